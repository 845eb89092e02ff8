"""CompressAI's result files, as ``compressai.utils.video.bench`` and ``eval_model`` write them.

``{"name", "description", "results": {"qp" or "q", "bitrate" or "bpp", "psnr-rgb", ...}}``: a list
per figure, a place per level, averaged over the sequences of a data set; or numbers for lists and a
"source", one sequence at one level. Older files have the lists without the frame around them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from eval.exchange.foreign import (
    DB_NOTE,
    ForeignFile,
    ForeignPoint,
    linear_ms_ssim,
    number,
    positive,
    sequence_name,
)
from eval.results import RdPoint, RdResults, ResultsError

METRIC_OF = {
    "psnr-y": "psnr_y",
    "psnr-u": "psnr_u",
    "psnr-v": "psnr_v",
    "psnr-yuv": "psnr_yuv411",  # theirs is (4 Y + U + V) / 6
    "psnr-rgb": "psnr_rgb",
    "ms-ssim-rgb": "ms_ssim",
}
_OLDER = {
    "y_psnr": "psnr-y",
    "u_psnr": "psnr-u",
    "v_psnr": "psnr-v",
    "rgb_psnr": "psnr-rgb",
    "ms-ssim": "ms-ssim-rgb",
}
_LEVELS = ("qp", "q")


def recognises(content: Any) -> bool:
    """Whether this is such a file: a rate and a figure of quality, by CompressAI's names."""
    figures = _figures(content)
    return bool({"bpp", "bitrate"} & set(figures)) and bool(set(METRIC_OF) & set(figures))


def read(
    content: dict[str, Any],
    path: Path,
    sequences: tuple[str, ...] = (),
    *,
    dataset: str | None = None,
    ms_ssim: str = "auto",
) -> ForeignFile:
    """The points of a file for which ``recognises`` is true.

    sequences: the name of what it is of, one at most; where there is none the file's "source"
    counts. Raises ResultsError where no name is known, for lists of unequal length and for values
    that cannot be.
    """
    if len(sequences) > 1:
        raise ResultsError(f"{path} is of one sequence or set: give --sequence once")
    if dataset is not None:
        raise ResultsError(f"{path} names no data sets: give --sequence instead of --dataset")
    figures = {
        name: value if isinstance(value, list) else [value]
        for name, value in _figures(content).items()
    }
    name = sequences[0] if sequences else content.get("source")
    if not isinstance(name, str) or not name:
        raise ResultsError(
            f"{path} does not say of what its figures are: give the sequence's or the test set's "
            "name with --sequence"
        )
    used = [key for key in ("bpp", "bitrate", *_LEVELS, *METRIC_OF) if key in figures]
    count = len(figures[used[0]])
    for key in used:
        if len(figures[key]) != count:
            raise ResultsError(
                f"{path}: {key} has {len(figures[key])} entries and {used[0]} {count}"
            )
    if count == 0:
        raise ResultsError(f"{path} has no points")
    columns, notes = _metrics(figures, path, ms_ssim)
    for key in ("bpp", "bitrate"):
        columns[key] = [positive(v, f"{path}: {key}") for v in figures.get(key, [])]
    parameter, levels = _levels(figures, count)
    points = [
        ForeignPoint(
            sequence=sequence_name(name),
            level=levels[i],
            metrics={ours: columns[ours][i] for ours in METRIC_OF.values() if ours in columns},
            bpp=columns["bpp"][i] if columns["bpp"] else None,
            kbps=columns["bitrate"][i] if columns["bitrate"] else None,
        )
        for i in range(count)
    ]
    left_out = sorted(set(figures) - set(used))
    if left_out:
        notes.append(f"left out: {', '.join(left_out)}")
    return ForeignFile(
        "compressai",
        path,
        str(content.get("name") or ""),
        str(content.get("description") or ""),
        parameter,
        points,
        notes,
    )


def write(results: RdResults) -> tuple[dict[str, Any], list[str]]:
    """(the content of such a file, sentences on what it cannot say).

    Of several sequences it holds the means, level by level, over the levels that all of them have,
    as CompressAI's own aggregation does. By ascending rate. Raises ResultsError where the sequences
    share no level.
    """
    names = [info.name for info in results.sequences]
    by_level: dict[int, list[RdPoint]] = {}
    for point in results.points:
        by_level.setdefault(point.level, []).append(point)
    full = {level: group for level, group in by_level.items() if len(group) == len(names)}
    if not full:
        raise ResultsError(
            f"{results.codec}: no level has a point of every sequence: give one with --sequence"
        )
    columns = {
        "bpp": lambda point: point.bpp,
        "bitrate": lambda point: point.kbps,
        **{key: lambda p, ours=ours: p.metrics.get(ours) for key, ours in METRIC_OF.items()},
    }
    ordered = sorted(full.items(), key=lambda pair: sum(point.bpp for point in pair[1]))
    figures: dict[str, list[float]] = {
        "qp" if results.parameter == "qp" else "q": list(dict(ordered))
    }
    for key, of in columns.items():
        values = [[of(point) for point in group] for _, group in ordered]
        if all(value is not None for group in values for value in group):
            figures[key] = [sum(group) / len(group) for group in values]
    content = {
        "name": results.codec,
        "description": f"lgmc eval, {len(names)} sequence(s): {', '.join(names)}",
        "results": figures,
    }
    if len(names) == 1:
        content = {"source": names[0], **content}
    return content, _unsaid(results, full, figures)


def _unsaid(
    results: RdResults, full: dict[int, list[RdPoint]], figures: dict[str, list[float]]
) -> list[str]:
    notes = []
    if len(results.sequences) > 1:
        notes.append(f"the figures are means over {len(results.sequences)} sequences")
    missing = sorted({point.level for point in results.points} - set(full))
    if missing:
        levels = ", ".join(map(str, missing))
        notes.append(f"left out as not every sequence has it: {results.parameter} {levels}")
    metrics = {name for point in results.points for name in point.metrics}
    unsaid = sorted(metrics - {METRIC_OF.get(key) for key in figures})
    if unsaid:
        notes.append(f"metrics left out: {', '.join(unsaid)}")
    return notes


def _figures(content: Any) -> dict[str, Any]:
    """The dictionary of lists, by the names of today; empty where there is none."""
    if not isinstance(content, dict):
        return {}
    figures = content.get("results", content)
    if not isinstance(figures, dict):
        return {}
    return {_OLDER.get(name, name): value for name, value in figures.items()}


def _metrics(
    figures: dict[str, list[Any]], path: Path, ms_ssim: str
) -> tuple[dict[str, list[float]], list[str]]:
    """The metrics by our names, and what is to be said of them."""
    notes = ["RGB may be by CompressAI's own conversion, chroma bicubic"]
    if "mse-rgb" not in figures:
        notes.append(
            "PSNR may be that of the mean MSE (CompressAI's bench), not the mean of frames' PSNR"
        )
    columns = {}
    for key, ours in METRIC_OF.items():
        if key not in figures:
            continue
        columns[ours] = [number(value, f"{path}: {key}") for value in figures[key]]
        if ours == "ms_ssim" and columns[ours]:
            columns[ours], stated_db = linear_ms_ssim(columns[ours], f"{path}: {key}", ms_ssim)
            notes += [DB_NOTE] if stated_db else []
    return columns, notes


def _levels(figures: dict[str, list[Any]], count: int) -> tuple[str, list[int | None]]:
    """("qp" or "index", a level per point): "q" numbers qualities or names files of weights."""
    for key, parameter in (("qp", "qp"), ("q", "index")):
        values = figures.get(key, [])
        if values and all(isinstance(v, int) and not isinstance(v, bool) for v in values):
            return parameter, list(values)
    return "index", [None] * count
