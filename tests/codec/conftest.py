"""A debug-size codec with loud latents, so that every coder has real symbols to code."""

from pathlib import Path

import pytest
import torch

from codec.config import ModelConfig, load_experiment
from codec.video_codec import VideoCodec

CONFIGS = Path(__file__).parents[2] / "configs"


def debug_config() -> ModelConfig:
    return load_experiment(CONFIGS / "debug.yaml").model


def loud_codec(
    config: ModelConfig, seed: int = 0, loud: float = 4.0, scale_offset: float = 6.0
) -> VideoCodec:
    """Random weights, gains raised so that symbols are spread over the tables, tables built."""
    torch.manual_seed(seed)
    codec = VideoCodec(config).eval()
    with torch.no_grad():
        for latent in (codec.intra.latent, codec.inter.latent, codec.inter.motion.latent):
            latent.gain.log_gain += loud
            if latent.scale_path is not None:
                latent.scale_path.offset += scale_offset
                for conv in (latent.scale_path.last, latent.scale_path.hidden):
                    conv.weight *= 6.0
    codec.update()
    return codec


@pytest.fixture(scope="session")
def codec() -> VideoCodec:
    return loud_codec(debug_config())
