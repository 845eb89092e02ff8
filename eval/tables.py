"""An evaluation as text: RD points, and BD-rates with everything that qualifies them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from eval.bdrate import CONTROL_METHOD, METHOD, BdDelta
from eval.compare import Comparison, MeanDelta
from eval.plot import unit_of
from eval.published import PublishedCurves, PublishedTable
from eval.results import RdResults

_POINT_HEAD = (
    "codec",
    "sequence",
    "level",
    "bpp",
    "kbit/s",
    "PSNR RGB",
    "PSNR Y",
    "PSNR 6:1:1",
    "MS-SSIM",
)


def points_table(results: Sequence[RdResults]) -> list[str]:
    """One line per point, by sequence and codec."""
    rows = []
    for name in dict.fromkeys(info.name for one in results for info in one.sequences):
        for one in results:
            for point in one.points_of(name):
                metrics = point.metrics
                rows.append(
                    (
                        one.codec,
                        name,
                        f"{one.parameter} {point.level}",
                        f"{point.bpp:.4f}",
                        _number(point.kbps, 1),
                        *(
                            _number(metrics.get(m), 2)
                            for m in ("psnr_rgb", "psnr_y", "psnr_yuv611")
                        ),
                        _number(metrics.get("ms_ssim"), 4),
                    )
                )
    return align([_POINT_HEAD, *rows])


def comparison_lines(comparison: Comparison) -> list[str]:
    """One comparison: per sequence, class and mean, the interpolation, the overlap, the warnings.

    The two means, over sequences and over classes, both stand there where there are two classes.
    """
    title = (
        f"BD-rate of {comparison.test} against {comparison.anchor}, {comparison.metric}, "
        f"{METHOD} ({CONTROL_METHOD} beside it); negative is less rate"
    )
    unit = f" {unit_of(comparison.metric)}".rstrip()
    rows = [("sequence", "BD-rate", CONTROL_METHOD, "BD quality", "overlap")]
    remarks = [f"note: {note}" for note in comparison.warnings]
    for name, delta in comparison.deltas.items():
        if isinstance(delta, BdDelta):
            rows.append((name, *_delta(delta, unit)))
            remarks += [f"note: {name}: {note}" for note in delta.warnings]
        else:
            rows.append((name, "none", "", "", ""))
            remarks.append(f"note: {name}: {delta}")
    if len(comparison.deltas) > 1:
        classes = comparison.by_class
        if len(classes) > 1:
            rows += [_mean_row(f"class {name}", one, unit) for name, one in classes.items()]
            rows.append(_mean_row("mean over classes", comparison.over_classes, unit))
        rows.append(_mean_row("mean over sequences", comparison.over_sequences, unit))
    return [title, *("  " + line for line in align(rows)), *("  " + line for line in remarks)]


def published_lines(published: PublishedTable | PublishedCurves) -> list[str]:
    """Published figures with their source and conditions, marked as quoted."""
    conditions = "".join(f", {name}: {value}" for name, value in published.conditions.items())
    if isinstance(published, PublishedTable):
        what = f"BD-rate in %, {published.quality}, against {published.anchor}"
        sets = list(next(iter(published.rows.values())))
        cells = [
            (codec, *(f"{row[one]:+.1f}" for one in sets)) for codec, row in published.rows.items()
        ]
        rows = [("codec", *sets), *cells]
    else:
        what = f"bits per pixel and {published.metric} in dB"
        rows = [("codec", "set", "points")]
        for curve in published.curves:
            points = " ".join(f"({rate:.4f}, {value:.2f})" for rate, value in curve.points)
            rows.append((curve.codec, curve.set, points))
    title = f"quoted, not measured here: {published.source}: {what}{conditions}"
    return [title, *("  " + line for line in align(rows))]


def align(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns padded to their widest cell: words to the left, the first row a heading."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    numeric = [
        all(_is_number(row[i]) for row in rows[1:]) and len(rows) > 1 for i in range(len(rows[0]))
    ]
    return [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in rows
    ]


def _delta(delta: BdDelta, unit: str) -> tuple[str, ...]:
    return (
        f"{delta.rate_percent:+.2f} %",
        f"{delta.rate_percent_akima:+.2f} %",
        _number(delta.quality_db, 3, unit, "+"),
        f"{delta.overlap:.0%}",
    )


def _mean_row(name: str, mean: MeanDelta, unit: str) -> tuple[str, ...]:
    """Named with how many are in it, "3 of 4, partial" where one has no BD-rate."""
    count = str(mean.total) if mean.computed == mean.total else f"{mean.computed} of {mean.total}"
    partial = ", partial" if mean.partial and mean.computed else ""
    rate = "none" if mean.rate_percent is None else f"{mean.rate_percent:+.2f} %"
    fewer = mean.quality_computed != mean.computed
    gains = f", BD-PSNR of {mean.quality_computed}" if fewer else ""
    quality = _number(mean.quality_db, 3, unit, "+")
    return (f"{name} ({count}{partial}{gains})", rate, "", quality, "")


def _number(value: float | None, digits: int, unit: str = "", sign: str = "") -> str:
    return "-" if value is None else f"{value:{sign}.{digits}f}{unit}"


def _is_number(cell: str) -> bool:
    return cell in ("", "-", "none") or re.fullmatch(r"[-+]?[\d.]+( ?%| dB)?", cell) is not None
