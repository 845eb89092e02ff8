"""BD-rate and BD-PSNR with every doubt stated: a wrapper around the ``bjontegaard`` package.

The package returns a number for a non-monotone curve without a word and only warns of a small
overlap. Here fewer than four points, a curve that is not monotone and curves that hardly meet are
errors, and the softer doubts are sentences that travel with the number.
"""

from __future__ import annotations

import math
import warnings as python_warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from codec.errors import LgmcError

BD_METRICS = ("psnr_rgb", "psnr_y", "psnr_yuv611", "ms_ssim", "vmaf", "xpsnr_y")
"""What the summary of an evaluation shows, where it was measured."""
BD_CHOICES = (*BD_METRICS, "psnr_yuv411")
"""What the command offers."""
METHOD = "pchip"
CONTROL_METHOD = "akima"
MIN_POINTS = 4
MIN_OVERLAP = 0.25
"""Below this share of common quality (of rate, for BD-PSNR) there is no figure but an error."""
WARN_OVERLAP = 0.75
WARN_METHODS_DIFFER = 1.0
"""Percentage points of BD-rate between pchip and akima from which the figure is called unsure."""


class BdRateError(LgmcError):
    """Two curves of which no honest BD-rate can be computed."""


@dataclass(frozen=True)
class BdDelta:
    """What a test curve costs against an anchor.

    rate_percent: mean difference of rate at equal quality in %, negative where the test needs less.
    quality_db: mean difference of quality at equal rate in dB (BD-PSNR), positive where the test is
        better; None where the curves share too little of their rates.
    rate_percent_akima: rate_percent with the second interpolation, for comparison.
    overlap: length of the common quality interval over that of the union of both, in [0, 1].
    quality_interval: the common quality interval in dB that was integrated.
    warnings: sentences to print beside the figure.
    """

    rate_percent: float
    quality_db: float | None
    rate_percent_akima: float
    overlap: float
    quality_interval: tuple[float, float]
    warnings: tuple[str, ...] = ()
    method: str = METHOD

    def to_json(self) -> dict:
        """The fields as a dictionary that json.dumps takes."""
        return asdict(self)


def bd_delta(
    anchor: Sequence[tuple[float, float]],
    test: Sequence[tuple[float, float]],
    *,
    anchor_name: str = "anchor",
    test_name: str = "test",
    min_overlap: float = MIN_OVERLAP,
) -> BdDelta:
    """Bjontegaard deltas of ``test`` against ``anchor``, each a list of (rate, quality) points.

    rate: any positive unit, the same for both (bits per pixel here); quality: dB. The order of the
    points does not matter. Raises BdRateError with fewer than four points, with rates that are not
    positive, where quality does not rise with every step of rate, and where the two curves have
    less than ``min_overlap`` of their quality range in common.
    Source: Bjontegaard, VCEG-M33 (2001), with piecewise cubic interpolation of log-rate.
    """
    anchor_rates, anchor_quality = _curve(anchor, anchor_name)
    test_rates, test_quality = _curve(test, test_name)
    names = f"{test_name} against {anchor_name}"
    overlap = interval_overlap(anchor_quality, test_quality)
    low = max(anchor_quality[0], test_quality[0])
    high = min(anchor_quality[-1], test_quality[-1])
    if overlap < min_overlap or overlap == 0.0:
        raise BdRateError(
            f"{names}: the curves share {overlap:.0%} of their quality range "
            f"({_span(anchor_quality)} dB and {_span(test_quality)} dB), at least "
            f"{min_overlap:.0%} is needed: choose qualities and qps whose ranges meet"
        )
    notes = []
    if overlap < WARN_OVERLAP:
        notes.append(
            f"the curves share only {overlap:.0%} of their quality range "
            f"({low:.2f} to {high:.2f} dB): the figure speaks for that part alone"
        )
    for name, qualities in ((anchor_name, anchor_quality), (test_name, test_quality)):
        inside = sum(low <= quality <= high for quality in qualities)
        if inside < 2:
            notes.append(
                f"{name} has {inside} point(s) inside the common range: the figure rests "
                "on interpolation"
            )
    curves = (anchor_rates, anchor_quality, test_rates, test_quality)
    rate = _package("bd_rate", curves, METHOD)
    rate_control = _package("bd_rate", curves, CONTROL_METHOD)
    if abs(rate - rate_control) > WARN_METHODS_DIFFER:
        notes.append(
            f"{METHOD} gives {rate:+.2f} % and {CONTROL_METHOD} {rate_control:+.2f} %: "
            "measure more points"
        )
    log_rates = [[math.log10(r) for r in rates] for rates in (anchor_rates, test_rates)]
    rate_overlap = interval_overlap(*log_rates)
    quality_db = None
    if rate_overlap >= min_overlap and rate_overlap > 0.0:
        quality_db = _package("bd_psnr", curves, METHOD)
    else:
        notes.append(f"no BD-PSNR: the curves share {rate_overlap:.0%} of their (log) rate range")
    return BdDelta(rate, quality_db, rate_control, overlap, (low, high), tuple(notes))


def interval_overlap(first: Sequence[float], second: Sequence[float]) -> float:
    """Length of the intersection over that of the union of two ranges of values, in [0, 1]."""
    union = max(max(first), max(second)) - min(min(first), min(second))
    shared = min(max(first), max(second)) - max(min(first), min(second))
    return max(0.0, shared) / union if union > 0.0 else 0.0


def _curve(points: Sequence[tuple[float, float]], name: str) -> tuple[list[float], list[float]]:
    """The points sorted by rate, checked, as (rates, qualities)."""
    if len(points) < MIN_POINTS:
        raise BdRateError(
            f"{name} has {len(points)} point(s): BD-rate needs {MIN_POINTS} or more, "
            "measure more qualities or qps"
        )
    ordered = sorted((float(rate), float(quality)) for rate, quality in points)
    for rate, quality in ordered:
        if not (math.isfinite(rate) and math.isfinite(quality) and rate > 0.0):
            raise BdRateError(
                f"{name} has a point of rate {rate} and quality {quality}: both must "
                "be finite and the rate positive"
            )
    for (rate, quality), (next_rate, next_quality) in zip(ordered, ordered[1:], strict=False):
        if next_rate <= rate or next_quality <= quality:
            raise BdRateError(
                f"{name} is not monotone: {quality:.3f} dB at rate {rate:.5g}, "
                f"{next_quality:.3f} dB at rate {next_rate:.5g}; leave one of the two points out "
                "or measure it again"
            )
    return [rate for rate, _ in ordered], [quality for _, quality in ordered]


def _package(function: str, curves: tuple[list[float], ...], method: str) -> float:
    import bjontegaard

    with python_warnings.catch_warnings():
        python_warnings.simplefilter("ignore")  # overlap is judged, and stated, by bd_delta
        value = getattr(bjontegaard, function)(
            *curves, method=method, require_matching_points=False, min_overlap=0
        )
    if not math.isfinite(value):
        raise BdRateError(f"the interpolation ({method}) gave no finite value: measure more points")
    return float(value)


def _span(values: Sequence[float]) -> str:
    return f"{min(values):.2f} to {max(values):.2f}"
