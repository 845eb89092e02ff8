"""The RD plot: one panel per sequence and one of their average, as PNG and SVG."""

from __future__ import annotations

import hashlib
import io
import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from eval.conditions import code_digest
from eval.published import PublishedCurve
from eval.results import RdResults, ResultsError, write_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LABELS = {
    "psnr_y": "PSNR Y (dB)",
    "psnr_u": "PSNR U (dB)",
    "psnr_v": "PSNR V (dB)",
    "psnr_yuv611": "PSNR YUV 6:1:1 (dB)",
    "psnr_yuv411": "PSNR YUV 4:1:1 (dB)",
    "psnr_rgb": "PSNR RGB (dB)",
    "ms_ssim": "MS-SSIM RGB, -10 log10(1 - x) (dB)",
    "vmaf": "VMAF",
    "xpsnr_y": "XPSNR Y (dB)",
    "xpsnr_u": "XPSNR U (dB)",
    "xpsnr_v": "XPSNR V (dB)",
}


def unit_of(metric: str) -> str:
    """What a figure of a curve is in: "dB", nothing for VMAF's points."""
    return "" if metric == "vmaf" else "dB"


PLOTTED = ("psnr_rgb", "psnr_yuv611", "ms_ssim", "vmaf", "xpsnr_y")
"""The metrics that an evaluation draws."""

# Okabe and Ito's colours, told apart with colour-blind eyes and, by the markers, in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def average_curve(results: RdResults, metric: str) -> list[tuple[float, float]]:
    """(bpp, dB) averaged over sequences, level by level, by ascending rate.

    Only levels that every sequence has count, so that each point is of the same set. Empty where
    the metric does not apply to one of them.
    """
    by_level: dict[int, list[tuple[float, float]]] = {}
    for info in results.sequences:
        points = results.points_of(info.name)
        curve = results.curve(info.name, metric)
        if not curve:
            return []
        for point, pair in zip(points, curve, strict=True):
            by_level.setdefault(point.level, []).append(pair)
    full = [pairs for pairs in by_level.values() if len(pairs) == len(results.sequences)]
    return sorted(
        (sum(p[0] for p in pairs) / len(pairs), sum(p[1] for p in pairs) / len(pairs))
        for pairs in full
    )


def rd_digest(
    results: Sequence[RdResults], metric: str, quoted: Sequence[PublishedCurve] = ()
) -> str:
    """A digest of everything that decides the picture of ``plot_rd``, in hexadecimal."""
    seen = {
        "curves": [
            (one.codec, [(info.name, one.curve(info.name, metric)) for info in one.sequences])
            for one in results
        ],
        "title": _title(results),
        "quoted": [(one.label, one.points) for one in quoted],
        "drawn_by": [metadata.version("matplotlib"), code_digest("eval.plot")],
    }
    return hashlib.sha256(json.dumps(seen, default=str).encode()).hexdigest()


def plot_rd(
    results: Sequence[RdResults],
    target: str | Path,
    *,
    metric: str = "psnr_rgb",
    log_rate: bool = True,
    quoted: Sequence[PublishedCurve] = (),
) -> list[Path]:
    """Draw the curves of several codecs to ``target`` with .png and .svg for its suffix.

    log_rate: a logarithmic axis of bits per pixel. quoted: published curves of this metric; being
    averages over a set they are drawn in the last panel, dotted, hollow and named as quoted.
    Returns the files written. Raises ResultsError where no codec has a point of this metric or a
    file cannot be written.
    """
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(info.name for one in results for info in one.sequences))
    panels = [name for name in names if any(one.curve(name, metric) for one in results)]
    if not panels:
        raise ResultsError(f"nothing to plot: no point has {metric}")
    # A codec without this metric on all of its sequences has no average.
    averages = [average_curve(one, metric) for one in results] if len(panels) > 1 else []
    averaged = any(averages)
    count = len(panels) + averaged
    columns = count if count <= 3 else 2 if count == 4 else 3
    rows = math.ceil(count / columns)
    # constrained layout: titles, the legend below and the conditions get their own room
    figure = Figure(figsize=(4.6 * columns + 0.4, 3.7 * rows + 1.0), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, name in zip(axes, panels, strict=False):
        _panel(axis, [one.curve(name, metric) for one in results])
        axis.set_title(name, fontsize=11)
    used = len(panels)
    if averaged:
        _panel(axes[used], averages)
        axes[used].set_title(f"average of {used} sequences", fontsize=11, fontweight="bold")
        used += 1
    if quoted:
        _quoted(axes[used - 1], quoted, len(results))
    for axis in axes[:used]:
        _rate_axis(axis, log_rate)
    for axis in axes[used:]:
        axis.set_axis_off()
    for axis in axes[max(0, used - columns) : used]:
        axis.set_xlabel("bits per pixel" + (" (log scale)" if log_rate else ""))
    for axis in axes[:used:columns]:
        axis.set_ylabel(LABELS[metric])
    names = [one.codec for one in results] + [one.label for one in quoted]
    handles, labels = _legend(figure.axes, names)
    longest = 0.6 + 0.09 * max(map(len, labels))  # inches, with the line before the words
    columns = max(1, min(5, len(labels), int(figure.get_figwidth() / longest)))
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
    figure.suptitle(_title(results), fontsize=9, color="#444444")
    return _save(figure, Path(target))


def _panel(axis: Axes, curves: list[list[tuple[float, float]]]) -> None:
    for index, curve in enumerate(curves):
        if curve:
            rates, values = zip(*curve, strict=True)
            style = {
                "color": COLOURS[index % len(COLOURS)],
                "marker": _MARKERS[index % len(_MARKERS)],
                "linestyle": "-" if index < len(COLOURS) else "--",
            }
            axis.plot(rates, values, linewidth=1.4, markersize=5, label=str(index), **style)


def _quoted(axis: Axes, curves: Sequence[PublishedCurve], first: int) -> None:
    for index, curve in enumerate(curves):
        rates, values = zip(*curve.points, strict=True)
        style = {"color": "#666666", "linestyle": ":", "markerfacecolor": "none"}
        style["marker"] = _MARKERS[index % len(_MARKERS)]
        label = str(first + index)
        axis.plot(rates, values, linewidth=1.2, markersize=6, label=label, **style)


def _rate_axis(axis: Axes, log_rate: bool) -> None:
    from matplotlib.ticker import FuncFormatter, MaxNLocator, NullFormatter

    if log_rate:
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(_rate_ticks(axis.get_xlim()))
        axis.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
        axis.xaxis.set_minor_formatter(NullFormatter())
    else:
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(6))
    axis.grid(True, which="major", color="#dddddd", linewidth=0.7)
    axis.set_axisbelow(True)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
    axis.tick_params(labelsize=9)


def _rate_ticks(limits: tuple[float, float]):
    """As many round numbers to a decade as there is room for."""
    from matplotlib.ticker import LogLocator

    decades = math.log10(limits[1] / limits[0])
    if decades < 1:
        return LogLocator(subs=(1, 1.5, 2, 3, 5, 7))
    return LogLocator(subs=(1, 2, 5) if decades < 2 else (1, 3) if decades < 3 else (1,))


def _legend(axes: list[Axes], codecs: list[str]):
    handles = {}
    for axis in axes:
        for line in axis.get_lines():
            handles.setdefault(int(line.get_label()), line)
    order = sorted(handles)
    return [handles[index] for index in order], [codecs[index] for index in order]


def _title(results: Sequence[RdResults]) -> str:
    dates = [one.conditions.date for one in results if one.conditions is not None]
    words = [f"{frame_counts(results)} frames", f"intra period {intra_periods(results)}"]
    return ", ".join([*words, *([max(dates)[:10]] if dates else [])])


def frame_counts(results: Sequence[RdResults]) -> str:
    """How many frames the sequences have: "96", "64 to 96", or "unknown number of"."""
    frames = sorted({i.frames for one in results for i in one.sequences if i.frames is not None})
    if not frames:
        return "unknown number of"
    return str(frames[0]) if len(frames) == 1 else f"{frames[0]} to {frames[-1]}"


def intra_periods(results: Sequence[RdResults]) -> str:
    """The intra periods, rising: "32", "16, 32", with "unknown" last where one is not known."""
    periods = {one.intra_period for one in results}
    known = sorted(period for period in periods if period is not None)
    return ", ".join([*map(str, known), *(["unknown"] if None in periods else [])])


def _save(figure, target: Path) -> list[Path]:
    stem = target.with_suffix("") if target.suffix in (".png", ".svg") else target
    with _any_script():
        figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not again for every file
    written = []
    for suffix in (".png", ".svg"):
        path = stem.with_name(stem.name + suffix)
        save_figure(figure, path, dpi=150)
        written.append(path)
    return written


def save_figure(figure: Figure, path: Path, dpi: int) -> None:
    """Write a figure in the format of the path's suffix, at once or not at all.

    Raises ResultsError where it cannot be written.
    """
    content = io.BytesIO()
    with _any_script():
        figure.savefig(content, dpi=dpi, format=path.suffix[1:])
    write_bytes(path, content.getvalue())


@contextmanager
def _any_script() -> Iterator[None]:
    """Names of clips may be in letters that matplotlib's font lacks: it draws boxes for them, and
    need not warn of each."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        yield
