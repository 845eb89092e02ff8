"""Official DCVC-TCM P-frame checkpoints, mapped onto ours by name.

``paper`` with the float scale path, Laplace densities, no gains and ``local`` compensation is
DCVC-TCM; only the names differ. An official checkpoint holds no intra codec: that comes from a
model of ours.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.config import (
    EntropyConfig,
    FlowConfig,
    InterConfig,
    IntraConfig,
    ModelConfig,
    MotionConfig,
)
from codec.errors import ModelError
from codec.video_codec import VideoCodec

# Official prefix -> ours, below VideoCodec.inter. Longer prefixes first.
_PREFIXES = (
    ("optic_flow.moduleBasic.", "flow.levels."),
    ("mv_prior_encoder.", "motion.latent.hyper_encoder."),
    ("mv_prior_decoder.", "motion.latent.hyper_decoder."),
    ("mv_encoder.", "motion.encoder."),
    ("mv_decoder.", "motion.decoder."),
    ("feature_adaptor_I.", "compensation.extract.from_frame."),
    ("feature_adaptor_P.", "compensation.extract.from_feature."),
    ("feature_extractor.", "compensation.extract."),
    ("context_fusion_net.", "compensation.fusion."),
    ("contextual_encoder.", "encoder."),
    ("contextual_hyper_prior_encoder.", "latent.hyper_encoder."),
    ("contextual_hyper_prior_decoder.", "latent.hyper_decoder."),
    ("contextual_entropy_parameter.", "latent.parameter_net."),
    ("contextual_decoder.", "decoder."),
    ("temporal_prior_encoder.", "temporal_prior."),
    ("recon_generation_net.feature_conv.", "decoder.feature."),
    ("recon_generation_net.recon_conv.", "decoder.frame."),
)
_ESTIMATORS = (
    ("bit_estimator_z_mv.", "motion.latent.z_prior.model."),
    ("bit_estimator_z.", "latent.z_prior.model."),
)
_ESTIMATOR_LISTS = {"h": "matrices", "b": "biases", "a": "factors"}
_IGNORED = ("ms_ssim_loss.",)


def tcm_config(intra: IntraConfig, name: str = "dcvc-tcm") -> ModelConfig:
    """The configuration that is DCVC-TCM, with some intra codec of ours."""
    return ModelConfig(
        name=name,
        lambda_min=256,
        lambda_max=2048,
        intra=intra,
        inter=InterConfig(
            family="tcm",
            channels=(64,),
            latent=96,
            hyper=64,
            hyper_widths=(96, 144),
            hyper_out=192,
            parameter_widths=(320, 256),
            gains=False,
            flow=FlowConfig(levels=4, widths=(32, 64, 32, 16), kernel=7, top=1),
            motion=MotionConfig(latent=128, hyper=64, hyper_widths=(128, 192)),
            entropy=EntropyConfig(
                scale_path="float", distribution="laplace", factorized_filters=(1, 1, 1)
            ),
        ),
    )


def map_name(official: str) -> str | None:
    """Our name, below VideoCodec.inter, of an official parameter; None for what is ignored.

    Raises:
        ModelError: the name is none of DCVC-TCM's.
    """
    name = official.removeprefix("module.")
    if name.startswith(_IGNORED):
        return None
    for theirs, ours in _ESTIMATORS:
        if name.startswith(theirs):
            layer, kind = name.removeprefix(theirs).split(".")
            return f"{ours}{_ESTIMATOR_LISTS[kind]}.{int(layer[1:]) - 1}"
    for theirs, ours in _PREFIXES:
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    raise ModelError(f"the checkpoint's {official!r} is no parameter of a DCVC-TCM P-frame model")


def map_state(official: dict[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict under our names, below VideoCodec.inter."""
    mapped: dict[str, Tensor] = {}
    for name, tensor in official.items():
        ours = map_name(name)
        if ours is None:
            continue
        if ".z_prior." in ours:
            tensor = tensor.reshape(-1, 1, 1)  # [1, C, 1, 1] -> [C, 1, 1]
        mapped[ours] = tensor.float()
    return mapped


def import_checkpoint(path: str | Path, intra: str | Path = "lite") -> VideoCodec:
    """Our codec with an official P-frame checkpoint's weights.

    Args:
        path: the .pth or .pth.tar file, a state dict with or without ``module.`` prefixes.
        intra: the model of ours that gives the intra codec.

    Raises:
        ModelError: not a checkpoint, parameters missing or of another shape.
    """
    from codec.models import load

    state = _read(Path(path))
    donor = load(intra).codec
    codec = VideoCodec(tcm_config(donor.config.intra))
    codec.intra.load_state_dict(donor.intra.state_dict())
    load_inter(codec, state, str(path))
    codec.update()
    return codec


def load_inter(codec: VideoCodec, official: dict[str, Tensor], source: str) -> None:
    """Load an official state dict into ``codec.inter``."""
    mapped = map_state(official)
    own = codec.inter.state_dict()
    for name, tensor in mapped.items():
        if name not in own or own[name].shape != tensor.shape:
            have = tuple(own[name].shape) if name in own else "nothing"
            raise ModelError(
                f"{source}: {name} is {tuple(tensor.shape)}, the paper's model has {have}: "
                "this is another version of DCVC"
            )
    missing = [n for n, _ in codec.inter.named_parameters() if n not in mapped]
    missing = [n for n in missing if not n.endswith("quantiles")]
    if missing:
        raise ModelError(f"{source}: lacks {missing[0]} and {len(missing) - 1} more parameters")
    codec.inter.load_state_dict(mapped, strict=False)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file; name an official DCVC-TCM checkpoint") from None
    except Exception:  # torch.load raises many types on damaged files, in words for programmers
        raise ModelError(
            f"{path}: not a PyTorch checkpoint of weights; name an official one of DCVC-TCM"
        ) from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise ModelError(f"{path}: holds no state dict of tensors")
    return loaded
