"""What was read of a foreign result file, before it is made one of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from eval.results import PerFrame, ResultsError
from eval.sequences import VIDEO_SUFFIXES

CONVENTIONS = ("auto", "linear", "db")
"""How MS-SSIM is stated: 0..1, in dB, or to be told by the values."""

LEAST_LINEAR = 0.3
"""Below this a value could be MS-SSIM 0..1 of a ruin or some 1 dB: neither is taken for granted."""
MOST_DB = 60.0
"""Above this a value is no MS-SSIM in dB: 1 - 1e-6 is 60 dB, the last that float32 can tell."""


@dataclass(frozen=True)
class ForeignPoint:
    """One point as its file states it.

    level: None where the file only orders its points. bpp: bits per luma pixel; kbps: 1000 bits a
    second; at least one of them. metrics: by our names and units. pixels: of a frame.
    """

    sequence: str
    level: int | None
    metrics: dict[str, float | None]
    bpp: float | None = None
    kbps: float | None = None
    frames: int | None = None
    pixels: int | None = None
    per_frame: PerFrame | None = None


@dataclass(frozen=True)
class ForeignFile:
    """All points of one file. codec, description: "" where the file has none."""

    format: Literal["compressai", "dcvc"]
    path: Path
    codec: str
    description: str
    parameter: Literal["qp", "index"]
    points: list[ForeignPoint]
    notes: list[str]


def sequence_name(text: str) -> str:
    """A sequence's name without the suffix of a video file, as ours are."""
    path = Path(text)
    return path.stem if path.suffix.lower() in VIDEO_SUFFIXES else text


def number(value: Any, where: str) -> float:
    """A finite number as float. Raises ResultsError for anything else."""
    try:
        found = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, ValueError, OverflowError):  # an integer may be beyond a float
        found = math.nan
    if not math.isfinite(found):
        raise ResultsError(f"{where} is {_short(value)}, not a finite number")
    return found


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:40]}..."


def positive(value: Any, where: str) -> float:
    """A number above 0, such as a rate. Raises ResultsError for anything else."""
    if (found := number(value, where)) <= 0.0:
        raise ResultsError(f"{where} is {value!r}, not above 0")
    return found


def linear_ms_ssim(
    values: Sequence[float], where: str, convention: str = "auto"
) -> tuple[list[float], bool]:
    """(MS-SSIM in 0..1, whether it was stated in dB).

    With "auto" all values in LEAST_LINEAR..1 are linear and all above 1, up to MOST_DB, are dB;
    anything else is refused. Raises ResultsError for that, and for values that the stated
    convention cannot hold.
    """
    low, high = min(values), max(values)
    span = f"{where} is {low:.6g} to {high:.6g}"
    if convention == "auto":
        if LEAST_LINEAR <= low and high <= 1.0:
            convention = "linear"
        elif 1.0 < low and high <= MOST_DB:
            convention = "db"
        else:
            raise ResultsError(
                f"{span}, which may be 0..1 or dB: say with --ms-ssim linear or --ms-ssim db"
            )
    if convention == "linear":
        if not (0.0 <= low and high <= 1.0):
            raise ResultsError(f"{span}, which is not 0..1: say --ms-ssim db if it is in dB")
        return list(values), False
    if not (0.0 <= low and high <= MOST_DB):
        raise ResultsError(f"{span}, which is no MS-SSIM in dB (0 to {MOST_DB:.0f})")
    return [1.0 - 10.0 ** (-value / 10.0) for value in values], True


DB_NOTE = "MS-SSIM was stated in dB and is 1 - 10^(-x/10) of it here"
