"""The models: those that ship, and loading of any model file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import ModelError
from codec.models.store import SUFFIXES, read_metadata, read_model, save_model

if TYPE_CHECKING:
    from codec.video_codec import VideoCodec

DEFAULT = "lite"
_SHIPPED = Path(__file__).parent


@dataclass
class Model:
    """A codec ready to encode and decode.

    Attributes:
        name: as streams state it.
        codec: the network, in evaluation mode, entropy tables built.
        digest: 16 bytes that tell these weights from any others.
        card: data, recipe and results.
    """

    name: str
    codec: VideoCodec
    digest: bytes
    card: dict[str, Any]


def available() -> dict[str, Path]:
    """The models that ship, by name."""
    files = (path for path in _SHIPPED.iterdir() if path.name.endswith(SUFFIXES))
    return {path.name.partition(".")[0]: path for path in sorted(files)}


def describe(name: str) -> dict[str, Any]:
    """Name, configuration, card and digest of a shipped model or a model file; reads no weights."""
    path = locate(name)
    metadata = read_metadata(path)
    config = json.loads(metadata["config"])
    return {
        "name": config["name"],
        "file": path.name,
        "bytes": path.stat().st_size,
        "default": path == available().get(DEFAULT),
        "digest": metadata.get("digest"),
        "stages": list(config["inter"]["compensation"]),
        "config": config,
        "card": json.loads(metadata.get("card", "{}")),
    }


def load(name: str | Path = DEFAULT, device: str = "cpu") -> Model:
    """Load a shipped model by name or any model file by path.

    Raises:
        ModelError: unknown name, unreadable or damaged file, or a device that is not there.
    """
    import torch

    path = locate(name)
    # The caller may be in inference mode, whose tensors no encoder could descend by.
    with torch.inference_mode(False):
        return _read(path, device)


def _read(path: Path, device: str) -> Model:
    import torch

    from codec.video_codec import VideoCodec

    tensors, config, card, digest = read_model(path)
    codec = VideoCodec(config)
    try:
        codec.load_state_dict({key: _as_float32(value) for key, value in tensors.items()})
    except RuntimeError as error:
        line = " ".join(str(error).split())[:300]
        raise ModelError(f"{path}: the weights do not fit the configuration: {line}") from None
    if not codec.has_tables:
        raise ModelError(f"{path}: has no entropy tables: export it with train_codec.py")
    try:
        codec.to(torch.device(device))
    except (RuntimeError, AssertionError) as error:
        line = " ".join(str(error).split())[:200]
        raise ModelError(f"device {device!r} cannot be used ({line}); use --device cpu") from None
    codec.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    return Model(config.name, codec, digest, card)


def export(codec: VideoCodec, path: Path, card: dict[str, Any], half: bool = True) -> bytes:
    """Write a codec as a model file with freshly built entropy tables; returns its digest.

    ``half`` stores weights as float16. They are rounded before the tables are built, so the file
    is the model: nothing is rounded again when it is loaded.
    """
    import copy

    exported = copy.deepcopy(codec).cpu().eval()
    # Only learned parameters: CompressAI's buffers hold bounds (1e-9) that float16 has not.
    learned = dict(exported.named_parameters())
    if half:
        for parameter in learned.values():
            parameter.data = _rounded_half(parameter.data)
    exported.update()
    tensors = exported.state_dict()
    if half:
        tensors = {k: v.half() if k in learned and _fits_half(v) else v for k, v in tensors.items()}
    return save_model(path, tensors, codec.config, card)


def _rounded_half(value):
    return value.half().float() if value.is_floating_point() and _fits_half(value) else value


def _fits_half(value) -> bool:
    return value.is_floating_point() and bool((value.abs() < 6e4).all())


def _as_float32(value):
    return value.float() if value.is_floating_point() else value


def locate(name: str | Path) -> Path:
    """The file of a shipped model's name, or what a path names.

    Raises:
        ModelError: neither.
    """
    shipped = available()
    if str(name) in shipped:
        return shipped[str(name)]
    path = Path(name)
    if path.name.endswith(SUFFIXES) or path.exists():
        return path
    known = ", ".join(shipped) or "none"
    raise ModelError(
        f"no model {str(name)!r}: those that ship are {known}; or name a .safetensors file"
    )
