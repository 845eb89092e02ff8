"""Model files: one safetensors file holds weights, entropy tables, configuration and card."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.config import ModelConfig, parse
from codec.errors import ModelError

FORMAT = "lgmc-model-1"
DIGEST_BYTES = 16


def weights_digest(tensors: dict[str, Tensor], config: str) -> bytes:
    """What a stream names its model by: BLAKE2b over configuration, names, types and values.

    ``config`` is the JSON that the file holds, to the letter: a later version knows more keys, and
    the model is still the same one.
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    digest.update(config.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.digest()


def save_model(
    path: Path, tensors: dict[str, Tensor], config: ModelConfig | str, card: dict[str, Any]
) -> bytes:
    """Write a model file and return its digest; ``path`` holds all of it or nothing.

    Args:
        tensors: a state dict of a VideoCodec, of any float type.
        config: as text, it is kept to the letter: a model that is written anew keeps its digest.
        card: data, recipe, results: whatever JSON can hold.
    """
    from safetensors.torch import save

    text = config if isinstance(config, str) else config.model_dump_json()
    digest = weights_digest(tensors, text)
    metadata = {
        "format": FORMAT,
        "config": text,
        "card": json.dumps(card),
        "digest": digest.hex(),
    }
    contiguous = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(save(contiguous, metadata))
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return digest


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a model file, without its tensors.

    Raises:
        ModelError: no such file, or not a model file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise ModelError(
            f"{path}: no such model file; `lgmc models` lists those that ship"
        ) from None
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path}: not a model file ({error}); name a .safetensors of ours"
        ) from None
    if metadata.get("format") != FORMAT:
        raise ModelError(
            f"{path}: holds no {FORMAT} model; import it or train one with this version"
        )
    return metadata


def read_model(path: Path) -> tuple[dict[str, Tensor], ModelConfig, dict[str, Any], bytes]:
    """Tensors, configuration, card and digest of a model file.

    Raises:
        ModelError: it cannot be read or its digest does not fit its content.
    """
    from safetensors.torch import load_file

    metadata = read_metadata(path)
    config = parse(ModelConfig, json.loads(metadata["config"]), str(path))
    tensors = load_file(path)
    digest = weights_digest(tensors, metadata["config"])
    if digest.hex() != metadata.get("digest"):
        raise ModelError(
            f"{path}: the weights do not fit their digest: the file is damaged; get it again"
        )
    return tensors, config, json.loads(metadata.get("card", "{}")), digest
