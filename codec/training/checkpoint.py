"""Checkpoints: weights as safetensors, the trainer's state beside them, whole or not at all."""

import hashlib
import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from codec.entropy.gains import moved_knots
from codec.errors import ModelError, TrainingError
from codec.models.store import read_header, read_tensors
from codec.video_codec import VideoCodec

# Tables with a row for each knot of the index.
_BY_QUALITY = (".log_gain", ".scale_path.offset", ".history.offset")

_HEARS_LATENTS = (".hyper_encoder.0.weight", ".scale_path.previous.weight")
# Of a new latent's density: scales of about a quarter, at which zeros cost next to nothing.
_NEW_INDEX = 6.0


@dataclass
class Checkpoint:
    """A folder ``step_XXXXXXXX`` with ``weights.safetensors`` and ``trainer.pt``.

    And ``average.safetensors``, of a run that keeps one.
    """

    folder: Path

    @property
    def step(self) -> int:
        return int(self.folder.name.removeprefix("step_"))


def save_checkpoint(
    folder: Path,
    codec: torch.nn.Module,
    trainer: dict[str, Any],
    step: int,
    keep: int = 2,
    average: torch.nn.Module | None = None,
) -> Checkpoint:
    """Write the checkpoint of a step, then drop all but the newest ``keep``.

    It is written under another name and renamed, so a killed run or a full disk leaves the
    previous one as it was.

    Raises:
        TrainingError: it cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    weights, final = _on_cpu(codec), folder / f"step_{step:08d}"
    temporary = folder / f".writing_{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.glob(".writing_*"):  # by a run that was killed
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
        save_file(weights, temporary / "weights.safetensors")
        if average is not None:
            save_file(_on_cpu(average), temporary / "average.safetensors")
        torch.save(trainer, temporary / "trainer.pt")
        for file in temporary.iterdir():
            _to_disk(file)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _to_disk(folder)
    except (OSError, RuntimeError, SafetensorError) as error:  # torch's own is a RuntimeError
        raise TrainingError(
            f"{final}: the checkpoint cannot be written ({error}); those before it are whole: make "
            "room on the disk and give the same command again"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for old in list_checkpoints(folder)[:-keep]:
        shutil.rmtree(old.folder, ignore_errors=True)
    return Checkpoint(final)


def _on_cpu(codec: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.detach().cpu().contiguous() for k, v in codec.state_dict().items()}


def _to_disk(path: Path) -> None:
    """What is renamed before it lies on the disk may be empty after a power cut."""
    written = os.open(path, os.O_RDONLY)
    try:
        os.fsync(written)
    finally:
        os.close(written)


def fingerprint(codec: torch.nn.Module) -> str:
    """A hash of all that a checkpoint has of a codec."""
    total = hashlib.sha256()
    for name, value in _on_cpu(codec).items():
        total.update(name.encode())
        total.update(value.numpy().tobytes())
    return total.hexdigest()


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Whole checkpoints, oldest first."""
    found = [
        Checkpoint(path)
        for path in folder.glob("step_*")
        if (path / "weights.safetensors").exists() and (path / "trainer.pt").exists()
    ]
    return sorted(found, key=lambda c: c.step)


def load_weights(
    path: Path, codec: VideoCodec, fresh: tuple[str, ...] = (), widen: bool = False
) -> list[str]:
    """Load a checkpoint's or model file's weights by name; returns the names not loaded.

    Tensors whose name or shape the codec does not have are passed over, so that a variant can
    start from its parent; so are those with a text of ``fresh`` in their name. Where the parent
    has another range of lambdas, its tables by quality move, so that each lambda keeps its own.
    Of a checkpoint that has the average over the steps, that is taken: what was validated.

    Args:
        widen: where the codec's tensor is larger, take the smaller one as its beginning. A layer's
            new outputs begin at zero and its new inputs as they were made, so what the parent
            computed is still computed, and a new latent learns to say what is left of the error.
            Trained by its rate it stays silent: codec.training.new_latents gives it a voice first.

    Raises:
        ModelError: no such file, none of its tensors fits, or a text of ``fresh`` is in no name.
    """
    file = path
    if path.is_dir():
        average = path / "average.safetensors"
        file = average if average.exists() else path / "weights.safetensors"
    try:
        stored = read_tensors(file)
    except ValueError as error:
        raise ModelError(f"{file}: cannot be read as weights ({error})") from None
    # Parameters alone: the buffers are bounds and tables, which follow from the configuration.
    own = dict(codec.named_parameters())
    for text in fresh:
        if not any(text in name for name in own):
            raise ModelError(f"training.fresh: {text!r} is in the name of no tensor of this model")
    fitting = {
        k: v.to(own[k].dtype)
        for k, v in stored.items()
        if k in own
        and (own[k].shape == v.shape or widen and _may_widen(k) and _fits_into(v, own[k]))
        and not any(text in k for text in fresh)
    }
    if not fitting:
        raise ModelError(f"{file}: none of its tensors fits this model; use one of the same family")
    _keep_lambdas(fitting, file, codec)
    fitting = {
        k: _widened(k, v, own[k].detach(), _is_transposed(codec, k)) for k, v in fitting.items()
    }
    codec.load_state_dict(fitting, strict=False)
    return sorted(k for k in own if k not in fitting)


def _may_widen(name: str) -> bool:
    """A history has both frames' symbols side by side: more of them would lie elsewhere."""
    return ".history." not in name


def _fits_into(small: torch.Tensor, large: torch.Tensor) -> bool:
    return small.dim() == large.dim() and all(
        a <= b for a, b in zip(small.shape, large.shape, strict=True)
    )


def _is_transposed(codec: torch.nn.Module, name: str) -> bool:
    layer = codec.get_submodule(name.rpartition(".")[0])
    return name.endswith(".weight") and isinstance(layer, torch.nn.ConvTranspose2d)


def _widened(name: str, small: torch.Tensor, large: torch.Tensor, transposed: bool) -> torch.Tensor:
    """``large`` with ``small`` as its beginning; to what is in ``small`` nothing new is added."""
    if small.shape == large.shape:
        return small
    wide = large.clone()
    if name.endswith(".scale_path.offset"):  # [knots, C]
        wide[:, small.shape[1] :] = _NEW_INDEX
    elif transposed:  # [in, out, height, width]
        wide[:, small.shape[1] :] = 0
    elif not name.endswith(_BY_QUALITY):  # a layer's [out, in, height, width] or its bias [out]
        wide[small.shape[0] :] = 0
        if any(part in name for part in _HEARS_LATENTS):  # they must not disturb what is there
            wide[:, small.shape[1] :] = 0
    wide[tuple(slice(0, side) for side in small.shape)] = small
    return wide


def _keep_lambdas(tensors: dict[str, torch.Tensor], file: Path, codec: VideoCodec) -> None:
    parent, own = _configuration_of(file), codec.config
    if parent is None:
        return
    before, now = (parent["lambda_min"], parent["lambda_max"]), (own.lambda_min, own.lambda_max)
    if before == now or before[0] == before[1]:
        return
    for name, value in tensors.items():
        if name.endswith(_BY_QUALITY):
            tensors[name] = moved_knots(value, before, now)


def _configuration_of(file: Path) -> dict[str, Any] | None:
    """The model that weights are of: in the file, or beside the checkpoint in its run's folder."""
    text = read_header(file).get("config")
    if text is not None:
        return json.loads(text)
    folder = file.parent.parent  # the run's checkpoints
    described = folder.parent / "config.yaml"
    if folder.name != "checkpoints" or not described.exists():
        return None
    model = yaml.safe_load(described.read_text(encoding="utf-8")).get("model") or {}
    return model if {"lambda_min", "lambda_max"} <= model.keys() else None


def load_trainer(checkpoint: Checkpoint, codec: torch.nn.Module) -> dict[str, Any]:
    """Load everything of a checkpoint; returns the trainer's state."""
    from safetensors.torch import load_file

    codec.load_state_dict(load_file(checkpoint.folder / "weights.safetensors"))
    return torch.load(checkpoint.folder / "trainer.pt", map_location="cpu", weights_only=True)


def load_average(checkpoint: Checkpoint, codec: torch.nn.Module) -> None:
    """Load the average of the weights, where the checkpoint has one."""
    from safetensors.torch import load_file

    file = checkpoint.folder / "average.safetensors"
    if file.exists():
        codec.load_state_dict(load_file(file))
