"""One point of an evaluation: what decides it, and how it is measured.

A point is a real file, decoded from that file, measured on the decoded planes. Whoever measures it,
a thread here or a worker of a cluster, calls ``measure_point``.
"""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from codec.errors import LgmcError
from codec.video.ffmpeg import find_ffmpeg
from codec.video.format import Frame
from eval import conditions
from eval.anchors.program import ffmpeg_version
from eval.codec_under_test import CodecUnderTest, DecodeNotes, FrameClock, frames_per_second
from eval.conditions import Machine
from eval.filter_metrics import FilterMetrics
from eval.metrics import average, bits_per_pixel, kilobits_per_second, measure
from eval.results import FORMAT, Failure, PerFrame, RdPoint
from eval.sequences import Sequence

MEASURERS = (
    "eval.codec_under_test",
    "eval.metrics",
    "eval.point",
    "eval.sequences",
    "codec.video",
)
"""Modules whose sources measure a point of any codec."""

_RUNNERS = {"anchor": "eval.anchors", "model": "eval.learned"}
"""Modules that run a codec, by what its identity names."""


@dataclass(frozen=True, eq=False)
class PointTask:
    """A codec at one level on one sequence: what can be measured anywhere, and again.

    level: qp of an anchor, quality index of a model. metrics: "vmaf", "xpsnr", besides what is
    always measured.
    """

    codec: CodecUnderTest
    sequence: Sequence
    level: int
    intra_period: int
    metrics: tuple[str, ...] = ()

    def decided_by(self) -> dict[str, Any]:
        """Everything that decides the point but the machine, as it is in this process."""
        identity = self.codec.identity()
        runner = next((_RUNNERS[one] for one in _RUNNERS if one in identity), "eval.outside")
        parts: dict[str, Any] = {
            "format": FORMAT,
            "input": self.sequence.digest,
            "codec": identity,
            "level": self.level,
            "intra_period": self.intra_period,
            "measured_by": conditions.code_digest(runner, *MEASURERS),
            "versions": conditions.versions(),
        }
        if self.metrics:  # not otherwise: what was measured without them stays valid
            filters = (*sorted(self.metrics), ffmpeg_version(find_ffmpeg()))
            measurers = ("eval.filter_metrics", "eval.anchors.pixels", "eval.anchors.program")
            parts["filters"] = [*filters, conditions.code_digest(*measurers)]
        return parts


def place(
    machine: Machine, identity: dict[str, str], threads: int | None = None
) -> list[str | int | float | None]:
    """What of a machine decides a codec's times, and so belongs to a cached point's key.

    threads: those of a model; None for an anchor, which says itself how many it runs.
    """
    names = ("cpu", "cores", "gpu") if on_gpu(identity) else ("cpu", "cores")
    return [*(machine[name] for name in names), *([] if threads is None else [threads])]


def is_anchor(identity: dict[str, str]) -> bool:
    """Whether a codec of that identity is an anchor, and not under test."""
    return "anchor" in identity


def on_gpu(identity: dict[str, str]) -> bool:
    """Whether a codec of that identity runs on a GPU."""
    return identity.get("device", "cpu") != "cpu"


def measure_point(task: PointTask) -> RdPoint | Failure:
    """Code, decode and measure; what goes wrong is a Failure, for the sake of the other points."""
    try:
        return _measure(task.codec, task.sequence, task.level, task.metrics)
    except LgmcError as exc:
        error = str(exc)
    except Exception as exc:  # a fault of one codec must not lose the points of the others
        error = f"{type(exc).__name__}: {' '.join(str(exc).split())}"
    return Failure(sequence=task.sequence.name, level=task.level, error=error)


def _measure(
    codec: CodecUnderTest, sequence: Sequence, level: int, metrics: tuple[str, ...]
) -> RdPoint:
    info = sequence.format
    with tempfile.TemporaryDirectory(prefix="lgmc-eval-") as folder:
        target = Path(folder) / f"{sequence.name}{codec.extension}"
        encoded = codec.encode(sequence, level, target)
        size = target.stat().st_size
        clock, notes = FrameClock(), DecodeNotes()
        decoded = clock.over(codec.decode(target, sequence, notes))
        filters = FilterMetrics(metrics, info, find_ffmpeg()) if metrics else None
        parts: list[dict[str, float]] = []

        def also(original: Frame, result: Frame) -> None:
            if notes.bits_of_last is not None:
                parts.append(notes.bits_of_last())
            if filters is not None:
                filters.add(original, result)

        with sequence.open() as reader, filters or nullcontext():
            rows = measure(sequence.checked(reader), decoded, info, also=also)
            if filters is not None:
                for name, values in filters.values().items():
                    for row, value in zip(rows, values, strict=True):
                        row[name] = value
    return RdPoint(
        sequence=sequence.name,
        level=level,
        frames=sequence.frames,
        bytes=size,
        bpp=bits_per_pixel(size, info.width, info.height, sequence.frames),
        kbps=kilobits_per_second(size, sequence.frames, info.fps),
        metrics=average(rows),
        encode_seconds=encoded.seconds,
        decode_seconds=clock.seconds,
        encode_fps=frames_per_second(sequence.frames, encoded.seconds, encoded.first_frame_seconds),
        decode_fps=frames_per_second(sequence.frames, clock.seconds, clock.first),
        encode_peak_mib=encoded.peak_memory_mib,
        decode_peak_mib=notes.peak_memory_mib,
        measured=conditions.now(),
        arguments=encoded.arguments,
        per_frame=PerFrame(
            metrics={name: [row[name] for row in rows] for name in rows[0]},
            bytes=encoded.frame_bytes,
            types=encoded.frame_types,
            bits=_by_part(parts),
        ),
    )


def _by_part(frames: list[dict[str, float]]) -> dict[str, list[float]] | None:
    """Bits of each frame by part, to a thousandth; a part that a frame does not have takes none."""
    names = dict.fromkeys(name for frame in frames for name in frame)
    return {name: [round(one.get(name, 0.0), 3) for one in frames] for name in names} or None
