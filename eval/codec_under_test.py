"""What the evaluation asks of a codec: a file from frames, frames from that file, and its identity.

Anchors (``eval.anchors``) and our models (``eval.learned``) both answer to this, so that everything
after it (bits, metrics, times, result files) is one path for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from codec.video.format import Frame
    from eval.sequences import Sequence


@dataclass(frozen=True)
class Encoded:
    """What encoding left behind besides the file.

    seconds: wall time of the whole encode, reading included. first_frame_seconds: the part of it
    before the first frame was done (warm-up), None where it cannot be told apart.
    arguments: the exact call, as a list of words. frame_bytes, frame_types: per frame, in order;
    frame_types "I" or "P" (any predicted frame), frames as they are shown; None where unknown. The
    bytes may sum to less than the file's, which also holds headers. peak_memory_mib: the most
    main memory the encoder held, MiB; None where the system does not tell.
    """

    seconds: float
    first_frame_seconds: float | None
    arguments: list[str]
    frame_bytes: list[int] | None = None
    frame_types: list[str] | None = None
    peak_memory_mib: float | None = None


@dataclass
class DecodeNotes:
    """What decoding leaves behind besides frames, for who asks for it.

    peak_memory_mib: the most main memory that the decoder has held so far, MiB; None where the
    system does not tell. bits_of_last: bits by part of the model of the frame that was given last;
    None where the codec does not tell.
    """

    peak_memory_mib: float | None = None
    bits_of_last: Callable[[], dict[str, float]] | None = None

    def saw(self, peak_memory_mib: float | None) -> None:
        """Keep the larger of what was seen before and this."""
        seen = [one for one in (self.peak_memory_mib, peak_memory_mib) if one is not None]
        self.peak_memory_mib = max(seen, default=None)


class CodecUnderTest(Protocol):
    """A codec at one intra period, able to encode any sequence at any of its levels.

    Pickled, it carries what names it and not what was found on this machine (programs, weights): on
    another one it looks there, and its identity then says whether that is the same.
    """

    name: str
    """As in tables and file names, e.g. "x265-veryslow" or "lite"."""
    parameter: str
    """What a level is: "qp" or "quality"."""
    extension: str
    """Of its files, e.g. ".265"."""
    delay: int | None
    """Frames after a frame that its coding may depend on; None: any."""

    def identity(self) -> dict[str, str]:
        """Everything besides input, level and intra period that decides the result."""
        ...

    def encode(self, sequence: Sequence, level: int, target: Path) -> Encoded:
        """Write ``sequence`` at ``level`` to the file ``target``."""
        ...

    def decode(
        self, source: Path, sequence: Sequence, notes: DecodeNotes | None = None
    ) -> Iterator[Frame]:
        """The frames of the file ``source`` in the format of ``sequence``.

        notes: filled in on the way.
        """
        ...

    def abort(self) -> None:
        """End the programs that run for it, from any thread; the calls that wait then raise."""
        ...


@dataclass
class FrameClock:
    """Seconds spent inside an iterator's next(), the first call apart.

    Only the time until a frame is there counts, not what its receiver does with it.
    """

    first: float = 0.0
    rest: float = 0.0
    frames: int = field(default=0)

    def over(self, frames: Iterator[Frame]) -> Iterator[Frame]:
        """The same frames, timed."""
        from time import perf_counter

        while True:
            start = perf_counter()
            frame = next(frames, None)
            spent = perf_counter() - start
            if self.frames == 0:
                self.first = spent
            else:
                self.rest += spent
            if frame is None:
                return
            self.frames += 1
            yield frame

    @property
    def seconds(self) -> float:
        """All of it."""
        return self.first + self.rest


def frames_per_second(frames: int, seconds: float, first: float | None) -> float | None:
    """Steady speed: the frames after the first over their time; None with one frame or no time."""
    if first is None:
        return frames / seconds if seconds > 0.0 else None
    return (frames - 1) / (seconds - first) if frames > 1 and seconds > first else None
