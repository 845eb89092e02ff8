"""A codec of somebody else's, named by its file, as ``eval.codec_under_test`` asks for one.

The file is Python and has a class; made with ``intra_period=N`` it gives an object with

    name        as in tables and file names
    levels      what is measured of it, integers >= 0
    encode(sequence, level, target)   writes the file ``target``; see below
    decode(source, sequence)          yields the frames that the file ``source`` gives
    identity()                        {name: text}: weights, version, options, device

and, where it differs from what stands here, ``parameter`` ("quality", or "qp", of which more is a
smaller file), ``extension`` (".bin") and ``delay`` (0 frames; None: any). ``sequence.open()`` reads
the frames; ``encode`` may return an ``Encoded`` and else is timed as a whole. A frame is its planes
(y, u, v), integers as in the clip; ``codec.video.colour`` converts them to RGB and back. Besides
the file, decode may use the sequence's format and number of frames, never its pictures.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from codec.errors import ConfigError, LgmcError
from eval.codec_under_test import DecodeNotes, Encoded
from eval.sequences import Sequence

if TYPE_CHECKING:
    from codec.video.format import Frame

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_WANTED = ("name", "levels", "encode", "decode", "identity")


class Outside:
    """The codec that ``spec``, "FILE.py:CLASS", names, at one intra period.

    Attributes:
        levels: those that are measured, in order.

    Raises ConfigError, in one line, for a spec or a codec that is not what the module says.
    """

    def __init__(self, spec: str, intra_period: int = 32) -> None:
        file, _, kind = spec.rpartition(":")
        if not file.endswith(".py") or not kind.isidentifier():
            raise ConfigError(f"{spec!r} names no codec: give FILE.py:CLASS")
        self._path, self._kind = Path(file).resolve(), kind
        self.intra_period = intra_period
        made = _called(spec, getattr(_module(self._path), kind, None), intra_period)
        lacking = [name for name in _WANTED if not hasattr(made, name)]
        if lacking:
            raise ConfigError(
                f"{spec} lacks {', '.join(lacking)}: eval/outside.py has what it needs"
            )
        self._made = made
        self.name = _checked_name(spec, made.name)
        self.levels = _checked_levels(spec, made.levels)
        self.parameter = getattr(made, "parameter", "quality")
        if self.parameter not in ("quality", "qp"):
            raise ConfigError(f"{spec}: parameter is quality or qp, not {self.parameter!r}")
        self.extension = getattr(made, "extension", ".bin")
        self.delay = getattr(made, "delay", 0)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (f"{self._path}:{self._kind}", self.intra_period)

    def abort(self) -> None:
        """What the codec does to end its programs, if it has any."""
        getattr(self._made, "abort", lambda: None)()

    def identity(self) -> dict[str, str]:
        """The codec's own words, its name, and the digest of its file; the codec is asked once.

        Modules that the file imports are for the codec to name.
        """
        return dict(self._identity)

    @functools.cached_property
    def _identity(self) -> dict[str, str]:
        own = {str(name): str(value) for name, value in self._made.identity().items()}
        taken = sorted({"anchor", "model"} & set(own))
        if taken:
            raise ConfigError(
                f"{self.name}: identity has {taken[0]!r}, which is for codecs of LGMC"
            )
        source = hashlib.sha256(self._path.read_bytes()).hexdigest()
        waits = "any" if self.delay is None else str(self.delay)
        file = f"{self._path.name} {source[:16]}"
        return {"codec": self.name, "file": file, "delay": waits, **own}

    def encode(self, sequence: Sequence, level: int, target: Path) -> Encoded:
        """Write ``sequence`` at ``level``. Raises LgmcError where no file came of it."""
        start = perf_counter()
        encoded = self._made.encode(sequence, level, target)
        seconds = perf_counter() - start
        if not target.is_file():
            raise LgmcError(f"{self.name} wrote no file")
        if isinstance(encoded, Encoded):
            return encoded
        words = [f"{self._path.name}:{self._kind}", f"--{self.parameter}", str(level)]
        return Encoded(seconds, None, [*words, "--intra-period", str(self.intra_period)])

    def decode(
        self, source: Path, sequence: Sequence, notes: DecodeNotes | None = None
    ) -> Iterator[Frame]:
        """The frames that the codec makes of the file."""
        yield from self._made.decode(source, sequence)


def _module(path: Path) -> Any:
    """The module in a file, by its path: two of one name stay apart."""
    name = f"lgmc_outside_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(path.parent))  # as `python FILE.py` does: what lies beside it
    try:
        spec.loader.exec_module(module)
    except BaseException as exc:
        del sys.modules[name]
        if isinstance(exc, FileNotFoundError) and not path.exists():
            raise ConfigError(f"{path}: no such file; give FILE.py:CLASS") from None
        if not isinstance(exc, Exception):
            raise
        raise ConfigError(f"{path} cannot be imported ({_line(exc)})") from exc
    finally:
        sys.path.remove(str(path.parent))
    return module


def _called(spec: str, kind: Any, intra_period: int) -> Any:
    if not callable(kind):
        raise ConfigError(f"{spec}: the file has no such class")
    try:
        return kind(intra_period=intra_period)
    except LgmcError:
        raise
    except Exception as exc:
        raise ConfigError(f"{spec}(intra_period={intra_period}) failed ({_line(exc)})") from exc


def _checked_name(spec: str, name: Any) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigError(f"{spec}: name is of letters, digits and ._+-, not {name!r}")
    return name


def _checked_levels(spec: str, levels: Any) -> tuple[int, ...]:
    try:
        found = tuple(levels)
    except TypeError:
        found = ()
    whole = all(isinstance(one, int) and not isinstance(one, bool) and one >= 0 for one in found)
    if not found or not whole or len(set(found)) != len(found):
        raise ConfigError(f"{spec}: levels are different integers >= 0, not {levels!r}")
    return found


def _line(exc: BaseException) -> str:
    return " ".join(f"{type(exc).__name__}: {exc}".split())[:200]
