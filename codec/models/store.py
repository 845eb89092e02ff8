"""Model files: one safetensors file holds weights, entropy tables, configuration and card.

One whose name ends in .safetensors.xz is that file as xz compresses it: a sixth smaller, as most of
the exponents of half-precision weights are alike, for half a second to load it.
"""

import hashlib
import json
import lzma
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from codec.config import ModelConfig, parse
from codec.errors import ModelError

FORMAT = "lgmc-model-1"
DIGEST_BYTES = 16
SUFFIXES = (".safetensors", ".safetensors.xz")
# Values are of two bytes, of which one kind, mostly exponent, is like its neighbours.
_FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 6, "lc": 0, "lp": 1, "pb": 1}]
_LONGEST_HEADER = 100_000_000  # bytes of JSON, safetensors' own limit


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
        path: ends in one of :data:`SUFFIXES`.
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
    content = save(contiguous, metadata)
    if _is_compressed(path):
        content = lzma.compress(content, filters=_FILTERS)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as out:
            out.write(content)
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
    try:
        metadata = read_header(path)
    except FileNotFoundError:
        raise ModelError(
            f"{path}: no such model file; `lgmc models` lists those that ship"
        ) from None
    except ValueError as error:
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
    metadata = read_metadata(path)
    config = parse(ModelConfig, json.loads(metadata["config"]), str(path))
    try:
        tensors = read_tensors(path)
    except ValueError as error:
        raise ModelError(f"{path}: the file is damaged ({error}); get it again") from None
    digest = weights_digest(tensors, metadata["config"])
    if digest.hex() != metadata.get("digest"):
        raise ModelError(
            f"{path}: the weights do not fit their digest: the file is damaged; get it again"
        )
    return tensors, config, json.loads(metadata.get("card", "{}")), digest


def read_header(path: Path) -> dict[str, str]:
    """The metadata of any safetensors file, compressed or not; of a compressed one its start alone.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read as that.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if not _is_compressed(path):
            with safe_open(path, "pt") as file:
                return file.metadata() or {}
        with lzma.open(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > _LONGEST_HEADER:
                raise ValueError("no safetensors file is compressed in it")
            header = json.loads(file.read(length))
        if not isinstance(header, dict):
            raise ValueError("no safetensors file is compressed in it")
        return header.get("__metadata__", {})
    except FileNotFoundError:
        raise
    except (SafetensorError, lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(str(error)) from None


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of any safetensors file, compressed or not.

    Raises:
        ValueError: it cannot be read as that.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load, load_file

    try:
        if not _is_compressed(path):
            return load_file(path)
        with lzma.open(path) as file:
            return load(file.read())
    except (SafetensorError, lzma.LZMAError, EOFError, OSError) as error:
        raise ValueError(str(error)) from None


def _is_compressed(path: Path) -> bool:
    return Path(path).suffix == ".xz"
