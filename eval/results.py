"""Result files: rate-distortion points with the conditions they were measured under.

One JSON file holds one codec's points on any number of sequences, one CSV any number of points. The
fields are described here and, by ``eval.results_schema``, in docs/results_format.md; a file that
does not follow them is refused in one line.
"""

from __future__ import annotations

import json
import os
import shlex
import tempfile
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from codec.errors import LgmcError
from eval.conditions import Machine
from eval.metrics import EXTRA_METRICS, METRICS, bits_per_pixel, ms_ssim_db

FORMAT = "lgmc-rd/1"
KNOWN_METRICS = (*METRICS, *EXTRA_METRICS)


class ResultsError(LgmcError):
    """A result file is missing, malformed or not comparable with another."""


class _Record(BaseModel):
    """A part of a result file. Its fields' descriptions and units are docs/results_format.md."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)

    def unknown(self) -> list[str]:
        """Names of the ``unknowable`` fields that are None."""
        fields = type(self).model_fields.items()
        names = [name for name, field in fields if is_unknowable(field)]
        return [name for name in names if getattr(self, name) is None]


def is_unknowable(field: FieldInfo) -> bool:
    """Whether the field is null where an imported file does not say it."""
    return bool((field.json_schema_extra or {}).get("unknowable"))


def _field(description: str, unit: str = "", *, unknowable: bool = False, **rules: Any) -> Any:
    """A field with its meaning and its unit.

    unknowable: null where the file was imported from one that does not say it, and only there.
    """
    extra: dict[str, Any] = {"unit": unit} if unit else {}
    if unknowable:
        extra["unknowable"] = True
    return Field(description=description, json_schema_extra=extra or None, **rules)


class SequenceInfo(_Record):
    """What was coded: the first frames of a clip."""

    name: str = _field("the clip's name, unique in the file")
    digest: str | None = _field(
        "SHA-256 of the format and the planes of the frames, in hexadecimal", unknowable=True
    )
    width: int | None = _field("of the luma plane", "pixels", unknowable=True, ge=1)
    height: int | None = _field("of the luma plane", "pixels", unknowable=True, ge=1)
    fps: str | None = _field(
        'rate as a fraction: "24", "30000/1001"', "frames a second", unknowable=True
    )
    frames: int | None = _field("how many were coded", "frames", unknowable=True, ge=1)
    chroma: Literal["420", "444", "rgb"] | None = _field(
        "the source's sampling; rgb: pictures, not Y, U, V", unknowable=True
    )
    bit_depth: Literal[8, 10] | None = _field("of a sample", "bits", unknowable=True)
    matrix: Literal["bt601", "bt709"] | None = _field(
        "colour matrix by which Y, U, V are RGB", unknowable=True
    )
    range: Literal["limited", "full"] | None = _field("range of the samples", unknowable=True)

    @model_validator(mode="after")
    def _rate_is_positive(self) -> SequenceInfo:
        if self.fps is None:
            return self
        try:
            positive = Fraction(self.fps) > 0
        except (ValueError, ZeroDivisionError):
            positive = False
        if not positive:
            raise ValueError(f"fps {self.fps!r} is not a positive fraction")
        return self


class PerFrame(_Record):
    """Lists with one entry a frame, in the order in which they are shown."""

    metrics: dict[str, list[float | None]] = _field(
        "per metric its values; null where one does not apply", "as the metric"
    )
    bytes: list[int] | None = _field(
        "size of the frame's data; their sum may be less than the file: the rest is headers and "
        "index; null where the codec does not tell",
        "bytes",
        default=None,
    )
    types: list[Literal["I", "P"]] | None = _field(
        "I: from itself alone; P: any predicted frame; null where the codec does not tell",
        default=None,
    )
    bits: dict[str, list[float]] | None = _field(
        "per part of the model (motion, residual, hyper ...) what it takes of each frame by the "
        "tables that code it; null where the codec does not tell",
        "bits",
        default=None,
    )


class RdPoint(_Record):
    """One codec at one level on one sequence."""

    sequence: str = _field("name of one of `sequences`")
    level: int = _field("what `parameter` says, unique for the sequence")
    frames: int | None = _field("as the sequence's", "frames", unknowable=True, ge=1)
    bytes: int | None = _field(
        "size of the whole file, headers included", "bytes", unknowable=True, ge=1
    )
    bpp: float = _field("8 bytes / (width x height x frames)", "bits per luma pixel", gt=0)
    kbps: float | None = _field(
        "at the sequence's own frame rate", "1000 bits a second", unknowable=True, gt=0
    )
    metrics: dict[str, float | None] = _field(
        "mean over the frames per metric of docs/protocol.md; null where one does not apply",
        "dB; ms_ssim: 0..1; vmaf: 0..100",
    )
    encode_seconds: float | None = _field(
        "wall time of the whole call, files included", "seconds", unknowable=True, ge=0
    )
    decode_seconds: float | None = _field(
        "wall time of the whole call, files included", "seconds", unknowable=True, ge=0
    )
    encode_fps: float | None = _field(
        "without the first frame where it can be told apart; null where not measured",
        "frames a second",
        default=None,
    )
    decode_fps: float | None = _field(
        "without the first frame; null where not measured", "frames a second", default=None
    )
    encode_peak_mib: float | None = _field(
        "the most main memory that the encoder's process held; null where the system does not tell",
        "MiB",
        default=None,
    )
    decode_peak_mib: float | None = _field(
        "the most main memory that the decoder's process held; null where it was not measured or "
        "the system does not tell",
        "MiB",
        default=None,
    )
    measured: str | None = _field("when: ISO 8601, UTC", unknowable=True)
    machine: Machine | None = _field(
        "what measured it, as in the conditions; null: the machine that the conditions name",
        "memory_gib: GiB",
        default=None,
    )
    arguments: list[str] | None = _field(
        "the call that made the file, word by word", unknowable=True
    )
    per_frame: PerFrame | None = _field("the frames' own figures", unknowable=True)

    @model_validator(mode="after")
    def _lengths_agree(self) -> RdPoint:
        frames = self.per_frame or PerFrame(metrics={})
        unknown = sorted((set(self.metrics) | set(frames.metrics)) - set(KNOWN_METRICS))
        if unknown:
            raise ValueError(f"unknown metric {unknown[0]!r}")
        parts = (frames.bits or {}).values()
        lists = [*frames.metrics.values(), *parts, frames.bytes, frames.types]
        if any(values is not None and len(values) != self.frames for values in lists):
            raise ValueError(f"a per-frame list does not have {self.frames} entries")
        return self

    def by_type(self) -> dict[str, dict[str, float | None]]:
        """ "I" and "P" apart: "frames", mean "bytes" a frame and the mean of each metric.

        Empty where the types are not known; a metric is None where it does not apply.
        """
        if self.per_frame is None:
            return {}
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
    """A point that could not be measured."""

    sequence: str = _field("name of one of `sequences`, or of a clip that could not be read")
    level: int = _field("as a point's")
    error: str = _field("the reason, as a sentence")


class Conditions(_Record):
    """Everything the figures depend on that is the same for all points of a file."""

    date: str = _field("when the file was written: ISO 8601, UTC")
    command: list[str] = _field("the command, word by word")
    machine: Machine = _field("cpu, cores, memory_gib, gpu (null: none), system", "memory_gib: GiB")
    versions: dict[str, str] = _field("of Python and of the packages that decide results")
    frames: int | None = _field("the limit asked for; null: all of each clip", "frames")
    intra_period: int = _field("an I frame every so many; 0: only the first", "frames")
    device: str = _field(
        '"cpu", "cuda": of models, and of codecs from outside that name one; else "cpu"'
    )
    codec: dict[str, str] = _field(
        "identity. Anchor: its options and version; model: its name, digests of weights and "
        "sources; a codec from outside: its name, digest of its file, and what it says itself"
    )
    prepared: dict[str, str] | None = _field(
        "recipe, ffmpeg and test_sets of `lgmc data prepare`; null: frames as they came",
        default=None,
    )


class Imported(_Record):
    """Where figures come from that were not measured here."""

    format: Literal["compressai", "dcvc"] = _field("whose result files these are")
    files: dict[str, str] = _field("per file that was read its SHA-256, in hexadecimal")
    description: str = _field("what the file says of itself; empty: nothing")
    notes: list[str] = _field("what was left out, derived or means another thing there")


class RdResults(_Record):
    """One codec's points: the content of a result file."""

    format: Literal["lgmc-rd/1"] = _field("the format and its version", default=FORMAT)
    codec: str = _field('name, e.g. "lite", "x265-veryslow"')
    parameter: Literal["qp", "quality", "index"] = _field(
        "what a level is: an encoder's qp, our models' quality, or only the number of a point in "
        "a file that was imported"
    )
    conditions: Conditions | None = _field("how it was measured", unknowable=True)
    sequences: list[SequenceInfo] = _field("what was coded")
    points: list[RdPoint] = _field("what was measured")
    failures: list[Failure] = _field("what could not be measured", default=[])
    imported: Imported | None = _field("null: measured here", default=None)

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
            size = (info.width, info.height, info.frames)
            if point.bytes is None or None in size:
                continue
            bpp = bits_per_pixel(point.bytes, *size)
            if abs(point.bpp - bpp) > 1e-6 * bpp:
                raise ValueError(f"{where} states {point.bpp:.6g} bpp but its bytes are {bpp:.6g}")
        return self

    @model_validator(mode="after")
    def _measured_is_known(self) -> RdResults:
        if self.imported is not None:
            return self
        for where, records in (
            ("the file", [self]),
            ("a sequence", self.sequences),
            ("a point", self.points),
        ):
            for record in records:
                if lacking := record.unknown():
                    raise ValueError(
                        f"{lacking[0]} of {where} is null, which only an imported file may have"
                    )
        if self.parameter == "index":
            raise ValueError("only an imported file has the parameter index")
        return self

    @property
    def intra_period(self) -> int | None:
        """That of the conditions, frames; None where it is not known."""
        return None if self.conditions is None else self.conditions.intra_period

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


def save_results(results: RdResults, path: str | Path) -> None:
    """Write one codec's results as JSON."""
    write_text(path, json.dumps(results.model_dump(mode="json"), indent=1, allow_nan=False) + "\n")


def load_results(path: str | Path) -> RdResults:
    """Read a result file. Raises ResultsError, in one line, for anything but a valid one."""
    text = _read(path)
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise ResultsError(f"{path} is not JSON ({exc}): give one that lgmc eval wrote") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ResultsError(
            f"{path} is not a result file of format {FORMAT}: give a file that "
            "lgmc eval wrote, one per codec"
        )
    try:
        return RdResults.model_validate(content)
    except ValidationError as exc:
        raise ResultsError(f"{path} is not a valid result file: {first_complaint(exc)}") from None
    except OverflowError as exc:
        raise ResultsError(f"{path} is not a valid result file: {exc}") from None


_COSTS = (
    "encode_seconds",
    "decode_seconds",
    "encode_fps",
    "decode_fps",
    "encode_peak_mib",
    "decode_peak_mib",
)


def table(results: Iterable[RdResults]) -> list[dict[str, Any]]:
    """All points as flat rows, the conditions repeated in each: what the CSV holds."""
    rows = []
    for one in results:
        shared = _shared(one)
        for point in sorted(one.points, key=lambda p: (p.sequence, p.bpp)):
            info = one.sequence(point.sequence)
            row: dict[str, Any] = {"codec": one.codec, "sequence": point.sequence}
            row.update(parameter=one.parameter, level=point.level)
            row.update(bytes=point.bytes, bpp=point.bpp, kbps=point.kbps)
            row.update({name: point.metrics.get(name) for name in KNOWN_METRICS})
            for kind, means in point.by_type().items():
                row[f"bytes_{kind.lower()}"] = means["bytes"]
                row[f"psnr_rgb_{kind.lower()}"] = means.get("psnr_rgb")
            for part, bits in ((point.per_frame and point.per_frame.bits) or {}).items():
                row[f"bits_{part}"] = sum(bits) / len(bits)
            for name in _COSTS:
                row[name] = getattr(point, name)
            row.update(info.model_dump(exclude={"name"}))
            row.update(measured=point.measured)
            if point.arguments is not None:
                row["arguments"] = shlex.join(point.arguments)
            row.update(shared)
            if point.machine is not None:
                row.update({name: point.machine.get(name) for name in ("cpu", "cores")})
            rows.append(row)
    return rows


def _shared(results: RdResults) -> dict[str, Any]:
    """What of a file's conditions stands in every row; nothing where they are not known."""
    conditions = results.conditions
    if conditions is None:
        return {"imported": results.imported.format}
    return {
        "intra_period": conditions.intra_period,
        "device": conditions.device,
        "cpu": conditions.machine.get("cpu"),
        "cores": conditions.machine.get("cores"),
        "versions": " ".join(f"{k}={v}" for k, v in conditions.versions.items()),
        "identity": " ".join(f"{k}={v}" for k, v in conditions.codec.items()),
        "command": shlex.join(conditions.command),
    }


def save_csv(results: Iterable[RdResults], path: str | Path) -> None:
    """Write all points as CSV, one row each."""
    import pandas

    write_text(path, pandas.DataFrame(table(results)).to_csv(index=False))


def write_text(path: str | Path, text: str) -> None:
    """Write a file at once or not at all. Raises ResultsError where it cannot be written."""
    write_bytes(path, text.encode("utf-8"))


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file at once or not at all. Raises ResultsError where it cannot be written."""
    path = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:  # an interrupt too leaves nothing behind
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as exc:
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


def first_complaint(error: ValidationError) -> str:
    """The first complaint of pydantic's, in one line."""
    first = error.errors()[0]
    place = ".".join(str(part) for part in first["loc"]) or "the file"
    reason = " ".join(str(first["msg"]).removeprefix("Value error, ").split())
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return f"{place}: {reason}{more}"
