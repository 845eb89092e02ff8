"""A debug-size codec with loud latents, so that every coder has real symbols to code."""

from pathlib import Path

import pytest
import torch

from codec.config import ModelConfig, load_experiment
from codec.video_codec import VideoCodec

CONFIGS = Path(__file__).parents[2] / "configs"


# Stages of compensation, passes of the entropy model -> overrides of model.inter or of all. What is
# promised of streams is tested over all of them.
VARIANTS = {
    "local": (),
    "global": ("compensation=[local, global]",),
    "coder": ("compensation=[local, global]", "global_attention.query=coder"),
    "shifted": ("compensation=[local, shifted]", "shifted.scales=[0, 1]", "shifted.heads=2"),
    "refined": ("motion.refine.window=9",),
    "all": ("compensation=[local, shifted, global]", "shifted.references=2"),
    "mixture": ("entropy.distribution=mixture", "model.intra.entropy.distribution=mixture"),
    "history": ("entropy.hyper_history=true",),
    "two passes": ("entropy.passes=2", "model.intra.entropy.passes=2"),
}


def debug_config(variant: str = "local") -> ModelConfig:
    overrides = [
        override if override.startswith("model.") else f"model.inter.{override}"
        for override in VARIANTS[variant]
    ]
    return load_experiment(CONFIGS / "debug.yaml", overrides).model


def loud_codec(
    config: ModelConfig, seed: int = 0, loud: float = 4.0, scale_offset: float = 6.0
) -> VideoCodec:
    """Random weights, gains raised so that symbols are spread over the tables, tables built."""
    torch.manual_seed(seed)
    codec = VideoCodec(config).eval()
    with torch.no_grad():
        for latent in (codec.intra.latent, codec.inter.latent, codec.inter.motion.latent):
            latent.gain.log_gain += loud
            if latent.history is not None:
                latent.history.last.weight.normal_(0, 0.05)
            if latent.scale_path is not None:
                latent.scale_path.offset += scale_offset
                for conv in (latent.scale_path.last, latent.scale_path.hidden):
                    conv.weight *= 6.0
        for parameter in codec.inter.parameters():
            if parameter.dim() > 1 and not parameter.any():  # layers that begin at zero
                parameter.normal_(0, 0.1)
    codec.update()
    return codec


@pytest.fixture(scope="session", params=VARIANTS)
def codec(request) -> VideoCodec:
    return loud_codec(debug_config(request.param))
