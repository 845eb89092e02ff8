"""Result files: rate-distortion points with the conditions they were measured under.

One JSON file holds one codec's points on any number of sequences, one CSV any number of points. The
schema is described in docs/protocol.md; a file that does not follow it is refused in one line.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from codec.errors import LgmcError
from eval.conditions import Machine
from eval.metrics import EXTRA_METRICS, METRICS, ms_ssim_db

FORMAT = "lgmc-rd/1"
KNOWN_METRICS = (*METRICS, *EXTRA_METRICS)


class ResultsError(LgmcError):
    """A result file is missing, malformed or not comparable with another."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class SequenceInfo(_Record):
    """What was coded: the first ``frames`` frames of a clip.

    fps: as a fraction, "24" or "30000/1001". digest: SHA-256 of the format and the frames' planes.
    """

    name: str
    digest: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    fps: str
    frames: int = Field(ge=1)
    chroma: Literal["420", "444", "rgb"]
    bit_depth: Literal[8, 10]
    matrix: Literal["bt601", "bt709"]
    range: Literal["limited", "full"]

    @model_validator(mode="after")
    def _rate_is_positive(self) -> SequenceInfo:
        try:
            positive = Fraction(self.fps) > 0
        except (ValueError, ZeroDivisionError):
            positive = False
        if not positive:
            raise ValueError(f"fps {self.fps!r} is not a positive fraction")
        return self


class PerFrame(_Record):
    """Lists with one entry a frame: the metrics, and bytes and type where the codec tells them."""

    metrics: dict[str, list[float | None]]
    bytes: list[int] | None = None
    types: list[Literal["I", "P"]] | None = None


class RdPoint(_Record):
    """One codec at one level on one sequence.

    level: qp of an anchor, quality index of a model. bytes: size of the file. bpp: 8 bytes / luma
    pixels of all frames. kbps: kilobits (1000) a second. metrics: means over frames, dB or
    (ms_ssim) 0..1, None where one does not apply. *_seconds: wall time; *_fps: without the first
    frame where it can be told apart. encode_peak_mib: the most main memory the encoder held,
    None where the system does not tell. measured: ISO 8601, UTC. arguments: the call that made the
    file. machine: what measured it, None where that is the machine of the conditions.
    """

    sequence: str
    level: int
    frames: int = Field(ge=1)
    bytes: int = Field(ge=1)
    bpp: float = Field(gt=0)
    kbps: float = Field(gt=0)
    metrics: dict[str, float | None]
    encode_seconds: float = Field(ge=0)
    decode_seconds: float = Field(ge=0)
    encode_fps: float | None = None
    decode_fps: float | None = None
    encode_peak_mib: float | None = None
    measured: str
    machine: Machine | None = None
    arguments: list[str]
    per_frame: PerFrame

    @model_validator(mode="after")
    def _lengths_agree(self) -> RdPoint:
        unknown = sorted((set(self.metrics) | set(self.per_frame.metrics)) - set(KNOWN_METRICS))
        if unknown:
            raise ValueError(f"unknown metric {unknown[0]!r}")
        lists = [*self.per_frame.metrics.values(), self.per_frame.bytes, self.per_frame.types]
        if any(values is not None and len(values) != self.frames for values in lists):
            raise ValueError(f"a per-frame list does not have {self.frames} entries")
        return self

    def by_type(self) -> dict[str, dict[str, float | None]]:
        """ "I" and "P" apart: "frames", mean "bytes" a frame and the mean of each metric.

        Empty where the types are not known; a metric is None where it does not apply.
        """
        types = self.per_frame.types or []
        means: dict[str, dict[str, float | None]] = {}
        for kind in dict.fromkeys(types):
            places = [i for i, one in enumerate(types) if one == kind]
            lists = {"bytes": self.per_frame.bytes, **self.per_frame.metrics}
            means[kind] = {"frames": len(places)}
            for name, values in lists.items():
                chosen = [values[i] for i in places] if values else [None]
                lacking = any(value is None for value in chosen)
                means[kind][name] = None if lacking else sum(chosen) / len(chosen)
        return means


class Failure(_Record):
    """A point that could not be measured, and why."""

    sequence: str
    level: int
    error: str


class Conditions(_Record):
    """Everything the figures depend on that is the same for all points of a file.

    machine: what measured the points, most of them where it was several (``RdPoint.machine``).
    frames: the limit asked for, None for all. codec: what identifies codec and version. prepared:
    the recipe by which ``lgmc data prepare`` made the frames, None for frames as they came.
    """

    date: str
    command: list[str]
    machine: Machine
    versions: dict[str, str]
    frames: int | None
    intra_period: int
    device: str
    codec: dict[str, str]
    prepared: dict[str, str] | None = None


class RdResults(_Record):
    """One codec's points: the content of a result file."""

    format: Literal["lgmc-rd/1"] = FORMAT
    codec: str
    parameter: Literal["qp", "quality"]
    conditions: Conditions
    sequences: list[SequenceInfo]
    points: list[RdPoint]
    failures: list[Failure] = []

    @model_validator(mode="after")
    def _points_belong(self) -> RdResults:
        known = {sequence.name: sequence for sequence in self.sequences}
        if len(known) != len(self.sequences):
            raise ValueError("two sequences have the same name")
        seen = set()
        for point in self.points:
            where = f"the point of {point.sequence!r} at {self.parameter} {point.level}"
            if point.sequence not in known:
                raise ValueError(f"{where} is of a sequence that the file does not list")
            if (point.sequence, point.level) in seen:
                raise ValueError(f"{where} stands there twice")
            seen.add((point.sequence, point.level))
            info = known[point.sequence]
            if point.frames != info.frames:
                raise ValueError(f"{where} has {point.frames} frames, its sequence {info.frames}")
            bpp = bits_per_pixel(point.bytes, info.width, info.height, info.frames)
            if abs(point.bpp - bpp) > 1e-6 * bpp:
                raise ValueError(f"{where} states {point.bpp:.6g} bpp but its bytes are {bpp:.6g}")
        return self

    def sequence(self, name: str) -> SequenceInfo | None:
        """The sequence of that name, or None."""
        return next((info for info in self.sequences if info.name == name), None)

    def points_of(self, sequence: str) -> list[RdPoint]:
        """The points of one sequence by ascending rate."""
        chosen = [point for point in self.points if point.sequence == sequence]
        return sorted(chosen, key=lambda point: (point.bpp, point.level))

    def curve(self, sequence: str, metric: str) -> list[tuple[float, float]]:
        """(bpp, dB) of one sequence by ascending rate; MS-SSIM on its dB scale.

        Empty where the metric does not apply to the sequence. Raises ResultsError for an unknown
        metric.
        """
        check_metric(metric)
        points = [(p.bpp, p.metrics.get(metric)) for p in self.points_of(sequence)]
        if any(value is None for _, value in points):
            return []
        scale = ms_ssim_db if metric == "ms_ssim" else float
        return [(bpp, scale(value)) for bpp, value in points]


def check_metric(metric: str) -> None:
    """Raise ResultsError unless ``metric`` is one of ``KNOWN_METRICS``."""
    if metric not in KNOWN_METRICS:
        known = ", ".join(KNOWN_METRICS)
        raise ResultsError(f"there is no metric {metric!r}: choose from {known}")


def bits_per_pixel(file_bytes: int, width: int, height: int, frames: int) -> float:
    """Bits of a file over the luma pixels of all its frames."""
    return 8.0 * file_bytes / (width * height * frames)


def kilobits_per_second(file_bytes: int, frames: int, fps: Fraction) -> float:
    """1000 bits a second at the video's own frame rate."""
    return 8.0 * file_bytes * float(fps) / frames / 1000.0


def save_results(results: RdResults, path: str | Path) -> None:
    """Write one codec's results as JSON."""
    write_text(path, json.dumps(results.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")


def load_results(path: str | Path) -> RdResults:
    """Read a result file. Raises ResultsError, in one line, for anything but a valid one."""
    text = _read(path)
    try:
        content = json.loads(text)
    except ValueError as exc:
        raise ResultsError(f"{path} is not JSON ({exc}): give one that lgmc eval wrote") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultsError(
            f"{path} is not a result file of format {FORMAT}: give a file that "
            "lgmc eval wrote, one per codec"
        )
    try:
        return RdResults.model_validate(content)
    except ValidationError as exc:
        raise ResultsError(f"{path} is not a valid result file: {_first(exc)}") from None


_COSTS = ("encode_seconds", "decode_seconds", "encode_fps", "decode_fps", "encode_peak_mib")


def table(results: Iterable[RdResults]) -> list[dict[str, Any]]:
    """All points as flat rows, the conditions repeated in each: what the CSV holds."""
    rows = []
    for one in results:
        conditions = one.conditions
        for point in sorted(one.points, key=lambda p: (p.sequence, p.bpp)):
            info = one.sequence(point.sequence)
            row: dict[str, Any] = {"codec": one.codec, "sequence": point.sequence}
            row.update(parameter=one.parameter, level=point.level)
            row.update(bytes=point.bytes, bpp=point.bpp, kbps=point.kbps)
            row.update({name: point.metrics.get(name) for name in KNOWN_METRICS})
            for kind, means in point.by_type().items():
                row[f"bytes_{kind.lower()}"] = means["bytes"]
                row[f"psnr_rgb_{kind.lower()}"] = means["psnr_rgb"]
            for name in _COSTS:
                row[name] = getattr(point, name)
            row.update(info.model_dump(exclude={"name"}))
            row.update(intra_period=conditions.intra_period, device=conditions.device)
            machine = point.machine or conditions.machine
            row.update(measured=point.measured, cpu=machine.get("cpu"))
            row.update(cores=machine.get("cores"))
            row["versions"] = " ".join(f"{k}={v}" for k, v in conditions.versions.items())
            row["identity"] = " ".join(f"{k}={v}" for k, v in conditions.codec.items())
            row["arguments"] = " ".join(point.arguments)
            row["command"] = " ".join(conditions.command)
            rows.append(row)
    return rows


def save_csv(results: Iterable[RdResults], path: str | Path) -> None:
    """Write all points as CSV, one row each."""
    import pandas

    write_text(path, pandas.DataFrame(table(results)).to_csv(index=False))


def write_text(path: str | Path, text: str) -> None:
    """Write a file at once or not at all. Raises ResultsError where it cannot be written."""
    path = Path(path)
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    except OSError as exc:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        reason = exc.strerror or exc
        raise ResultsError(f"{path} cannot be written ({reason}): choose another folder") from exc


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ResultsError(f"{path} is not a text file: give a file that lgmc eval wrote") from None
    except OSError as exc:
        reason = exc.strerror or exc
        raise ResultsError(
            f"{path} cannot be read ({reason}): give a file that lgmc eval wrote"
        ) from None


def _first(error: ValidationError) -> str:
    """The first complaint of pydantic's, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    reason = " ".join(str(first["msg"]).removeprefix("Value error, ").split())
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {reason}{more}"
