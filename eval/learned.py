"""Our own models as ``eval.codec_under_test`` asks for a codec: codec.session and real files."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from codec.effort import Effort
from codec.errors import ConfigError
from eval.codec_under_test import DecodeNotes, Encoded
from eval.conditions import code_digest, forget_peak_memory, peak_memory_mib
from eval.sequences import Sequence

if TYPE_CHECKING:
    from codec.video.format import Frame

MAX_QUALITY = 63


class Model:
    """A model that ships, by name, or one in a file, at one intra period on one device.

    here: whether it is to run in this process; else the device need not be there, as only its name
    and identity are asked for. effort: see ``codec.session.encode``; where it is not 0 it is part
    of the name. Raises ModelError where the model cannot be loaded.
    """

    parameter = "quality"
    extension = ".lgmc"

    def __init__(
        self,
        name: str | Path,
        intra_period: int = 32,
        device: str = "cpu",
        here: bool = True,
        effort: int | str | Effort = 0,
    ) -> None:
        import codec
        from codec.models import available

        self._model = codec.load(name, device=device if here else "cpu")
        self._source = str(name) if str(name) in available() else os.path.abspath(name)
        self.effort = Effort.of(effort)
        self.delay = 1 if self.effort.ahead else 0
        self.name = self._model.name + (f"-effort{self.effort}" if self.effort else "")
        self.intra_period = intra_period
        self.device = device

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self._source, self.intra_period, self.device, self.effort, self.name)

    def abort(self) -> None:
        """Nothing: no program runs for it."""

    def identity(self) -> dict[str, str]:
        """Name, digest of the weights, and digest of the sources that code and decode."""
        sources = code_digest("codec", "kernels", without=("training",))
        effort = {"effort": str(self.effort)} if self.effort else {}
        return {
            "model": self._model.name,
            "weights": self._model.digest.hex(),
            "code": sources,
            "device": self.device,
            **effort,
        }

    def encode(self, sequence: Sequence, level: int, target: Path) -> Encoded:
        """Write the .lgmc stream of ``sequence`` at quality index ``level`` (0..63).

        Raises ConfigError for a quality out of range, LgmcError for what the codec refuses.
        """
        import torch

        from codec.session import encode

        if not 0 <= level <= MAX_QUALITY:
            raise ConfigError(f"a quality is 0..{MAX_QUALITY}, not {level}")
        stamps: list[float] = []
        measurable = forget_peak_memory()
        start = perf_counter()
        report = encode(
            sequence.path,
            target,
            model=self._model,
            quality=level,
            intra_period=self.intra_period,
            effort=self.effort,
            frames=sequence.frames,
            digests=False,
            device=self.device,
            progress=lambda *_: stamps.append(perf_counter()),
            **sequence.reader_options,
        )
        seconds = perf_counter() - start
        words = f"lgmc encode {sequence.path.name} {target.name} --model {self._model.name}"
        words += f" --effort {self.effort}" if self.effort else ""
        words += f" --quality {level} --intra-period {self.intra_period} --frames {sequence.frames}"
        words += f" --threads {torch.get_num_threads()}"
        return Encoded(
            seconds,
            stamps[0] - start if stamps else None,
            words.split(" "),
            [frame["bytes"] for frame in report.frames],
            [frame["type"] for frame in report.frames],
            peak_memory_mib() if measurable else None,
        )

    def decode(
        self, source: Path, sequence: Sequence, notes: DecodeNotes | None = None
    ) -> Iterator[Frame]:
        """The decoded frames; the stream itself carries the format."""
        from codec.session import decode

        account = notes is not None
        notes = notes or DecodeNotes()
        with decode(source, model=self._model, device=self.device, account=account) as frames:
            notes.bits_of_last = lambda: frames.parts
            while True:
                measurable = forget_peak_memory()  # what measures the frames holds memory, too
                frame = next(frames, None)
                notes.saw(peak_memory_mib() if measurable else None)
                if frame is None:
                    return
                yield frame


@functools.lru_cache(maxsize=1)  # a worker measures many points of one model
def _restored(source: str, intra_period: int, device: str, effort: Effort, name: str) -> Model:
    """A model that was pickled, under the name that it had there."""
    model = Model(source, intra_period, device, effort=effort)
    model.name = name
    return model
