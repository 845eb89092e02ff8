"""Result files of DCVC and its successors, as their ``test_video.py`` writes them.

``{data set: {sequence: {rate: {"ave_all_frame_bpp", "ave_all_frame_psnr", ...}}}}``. The one PSNR
is of RGB where they coded pictures; of 4:2:0 video it is (6 Y + U + V) / 8, the planes' beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
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
from eval.metrics import psnr_yuv411, psnr_yuv611
from eval.results import PerFrame, RdPoint, RdResults, ResultsError
from eval.testsets import find_sequence

_ALL = "ave_all_frame_"
_PLANES = ("psnr_y", "psnr_u", "psnr_v")
_NAMES_AGREE_DB = 1e-3
"""Their files round to 1e-6 dB; a weighting that is another is further away than this."""


def recognises(content: Any) -> bool:
    """Whether this is such a file: every leaf has a rate, there is one or more."""
    try:
        leaves = [leaf for *_, leaf in _leaves(content)]
    except (AttributeError, TypeError):
        return False
    return bool(leaves) and all(isinstance(one, dict) and f"{_ALL}bpp" in one for one in leaves)


def read(
    content: dict[str, Any],
    path: Path,
    sequences: tuple[str, ...] = (),
    *,
    dataset: str | None = None,
    ms_ssim: str = "auto",
) -> ForeignFile:
    """The points of a file for which ``recognises`` is true.

    sequences, dataset: what to take; nothing given is everything. Raises ResultsError where that is
    not there, where one name stands in two data sets, and for values that cannot be.
    """
    if dataset is not None and dataset not in content:
        raise ResultsError(f"{path} has no data set {dataset!r}: choose from {', '.join(content)}")
    wanted = {sequence_name(one) for one in sequences}
    chosen = [
        (ds, sequence_name(name), rate, leaf)
        for ds, name, rate, leaf in _leaves(content)
        if (dataset is None or ds == dataset) and (not wanted or sequence_name(name) in wanted)
    ]
    missing = sorted(wanted - {name for _, name, *_ in chosen})
    if missing or not chosen:
        known = ", ".join(dict.fromkeys(sequence_name(name) for _, name, *_ in _leaves(content)))
        what = f"no sequence {missing[0]!r}" if missing else "no points"
        raise ResultsError(f"{path} has {what}: it has {known}")
    homes: dict[str, str] = {}
    for ds, name, *_ in chosen:
        if homes.setdefault(name, ds) != ds:
            raise ResultsError(
                f"{path} has {name!r} in {homes[name]} and in {ds}: choose one with --dataset"
            )
    notes = [f"of {len(homes)} sequence(s) in {', '.join(dict.fromkeys(homes.values()))}"]
    by_qp = all(isinstance(leaf.get("qp"), int) for *_, leaf in chosen)
    points = []
    for _, name, rate, leaf in chosen:
        level = leaf["qp"] if by_qp else int(rate) if rate.isdecimal() else None
        point, remarks = _point(leaf, name, level, f"{path}: {name}, {rate}", ms_ssim)
        points.append(point)
        notes += [one for one in remarks if one not in notes]
    return ForeignFile("dcvc", path, "", "", "qp" if by_qp else "index", points, notes)


def write(
    results: RdResults, *, dataset: str | None = None, psnr: str = "rgb"
) -> tuple[dict[str, Any], list[str]]:
    """(the content of such a file, sentences on what it cannot say).

    dataset: where all sequences go; None: the test set of each, "other" where it has none. psnr:
    "rgb", with MS-SSIM, or "yuv" (6:1:1 and the planes), without, as theirs is of the planes then.
    Rates count from 0 at the smallest. Raises ResultsError where a point lacks that PSNR.
    """
    content: dict[str, Any] = {}
    for info in results.sequences:
        found = find_sequence(info.name)
        home = dataset or (found[0].name if found else "other")
        pixels = info.width * info.height if info.width and info.height else None
        rates = {}
        for index, point in enumerate(results.points_of(info.name)):
            leaf = _leaf(point, pixels, psnr)
            if results.parameter == "qp":
                leaf["qp"] = point.level
            rates[f"{index:03d}"] = leaf
        if rates:
            content.setdefault(home, {})[info.name] = rates
    written = {"psnr_rgb", "ms_ssim"} if psnr == "rgb" else {"psnr_yuv611", *_PLANES}
    unsaid = sorted({name for point in results.points for name in point.metrics} - written)
    notes = [f"metrics left out: {', '.join(unsaid)}"] if unsaid else []
    if any(not point.by_type() for point in results.points):
        notes.append("figures of I and P frames left out where the codec does not tell them apart")
    return content, notes


def _leaves(content: Any) -> Iterator[tuple[str, str, str, Any]]:
    for dataset, sequences in content.items():
        for sequence, rates in sequences.items():
            for rate, leaf in rates.items():
                yield dataset, sequence, rate, leaf


def _point(
    leaf: dict[str, Any], name: str, level: int | None, where: str, ms_ssim: str
) -> tuple[ForeignPoint, list[str]]:
    frames = _frames(leaf, where)
    metrics, kept, notes = _metrics(leaf, where, ms_ssim)
    pixels = leaf.get("frame_pixel_num")
    point = ForeignPoint(
        sequence=name,
        level=level,
        metrics=metrics,
        bpp=positive(leaf[f"{_ALL}bpp"], f"{where}: {_ALL}bpp"),
        frames=frames,
        pixels=None if pixels is None else int(positive(pixels, f"{where}: frame_pixel_num")),
        per_frame=_per_frame(leaf, frames, kept, where),
    )
    return point, notes


def _frames(leaf: dict[str, Any], where: str) -> int | None:
    counts = [leaf.get(key) for key in ("i_frame_num", "p_frame_num")]
    if None in counts:
        return None
    if any(isinstance(n, bool) or not isinstance(n, int) or n < 0 for n in counts) or not sum(
        counts
    ):
        raise ResultsError(f"{where}: i_frame_num {counts[0]!r} and p_frame_num {counts[1]!r}")
    return sum(counts)


def _metrics(
    leaf: dict[str, Any], where: str, ms_ssim: str
) -> tuple[dict[str, float | None], dict[str, str], list[str]]:
    """(metrics by our names, of each the name in ``leaf``, sentences on what was left out)."""
    stated = {
        key.removeprefix(_ALL): number(value, f"{where}: {key}")
        for key, value in leaf.items()
        if key.startswith(_ALL) and value is not None
    }
    kept: dict[str, str] = {}
    notes = []
    if set(_PLANES) <= set(stated):
        kept = {name: name for name in _PLANES}
        weighting = _weighting(stated)
        if weighting:
            kept[weighting] = "psnr"
        elif "psnr" in stated:
            notes.append("left out: a PSNR that is no known weighting of those of the planes")
        if "msssim" in stated:
            notes.append("left out: MS-SSIM, which is of Y, U and V there")
    elif "psnr" in stated:
        kept["psnr_rgb"] = "psnr"
        if stated.get("msssim"):  # 0: not computed
            kept["ms_ssim"] = "msssim"
    if not kept:
        raise ResultsError(f"{where} has no {_ALL}psnr")
    metrics: dict[str, float | None] = {ours: stated[theirs] for ours, theirs in kept.items()}
    if "ms_ssim" in metrics:
        (metrics["ms_ssim"],), stated_db = linear_ms_ssim(
            [metrics["ms_ssim"]], f"{where}: {_ALL}msssim", ms_ssim
        )
        if stated_db:
            notes.append(DB_NOTE)
            kept.pop("ms_ssim")  # the mean of the frames' dB is not the dB of their mean
    return metrics, kept, notes


def _weighting(stated: dict[str, float]) -> str | None:
    planes = [stated[name] for name in _PLANES]
    for name, weighted in (("psnr_yuv611", psnr_yuv611), ("psnr_yuv411", psnr_yuv411)):
        if abs(stated.get("psnr", float("inf")) - weighted(*planes)) < _NAMES_AGREE_DB:
            return name
    return None


def _per_frame(
    leaf: dict[str, Any], frames: int | None, kept: dict[str, str], where: str
) -> PerFrame | None:
    """The lists of a verbose file. Bytes are not among them: rates are rounded."""
    lists = {ours: leaf.get(f"frame_{theirs}") for ours, theirs in kept.items()}
    lists = {ours: values for ours, values in lists.items() if values is not None}
    types = leaf.get("frame_type")
    if frames is None or (not lists and types is None):
        return None
    for values in (*lists.values(), types):
        if values is not None and (not isinstance(values, list) or len(values) != frames):
            raise ResultsError(f"{where}: a list per frame does not have {frames} entries")
    metrics = {
        ours: [number(value, f"{where}: frame_{kept[ours]}") for value in values]
        for ours, values in lists.items()
    }
    kinds = None if types is None else ["P" if kind else "I" for kind in types]
    return PerFrame(metrics=metrics, types=kinds)


def _leaf(point: RdPoint, pixels: int | None, psnr: str) -> dict[str, Any]:
    ours = {"psnr": "psnr_rgb", "msssim": "ms_ssim"}
    if psnr == "yuv":
        ours = {"psnr": "psnr_yuv611", **{name: name for name in _PLANES}}
    if point.metrics.get(ours["psnr"]) is None:
        raise ResultsError(
            f"a point of {point.sequence} has no {ours['psnr']}: choose the other with --psnr"
        )
    ours = {theirs: name for theirs, name in ours.items() if point.metrics.get(name) is not None}
    leaf: dict[str, Any] = {} if pixels is None else {"frame_pixel_num": pixels}
    kinds = point.by_type()
    for kind in ("I", "P") if kinds else ():
        means = kinds.get(kind, {})
        begin = kind.lower()
        leaf[f"{begin}_frame_num"] = means.get("frames", 0)
        size = means.get("bytes", 0)  # where there is no such frame they write 0
        if pixels is not None and size is not None:
            leaf[f"ave_{begin}_frame_bpp"] = 8.0 * size / pixels
        for theirs, name in ours.items():
            value = means.get(name) if means else 0
            if value is not None:
                leaf[f"ave_{begin}_frame_{theirs}"] = value
    if point.per_frame is not None:
        leaf |= _frame_lists(point.per_frame, ours, pixels)
    leaf[f"{_ALL}bpp"] = point.bpp
    leaf |= {f"{_ALL}{theirs}": point.metrics[name] for theirs, name in ours.items()}
    return leaf


def _frame_lists(frames: PerFrame, ours: dict[str, str], pixels: int | None) -> dict[str, Any]:
    lists: dict[str, Any] = {}
    if frames.bytes is not None and pixels is not None:
        lists["frame_bpp"] = [8.0 * size / pixels for size in frames.bytes]
    for theirs, name in ours.items():
        if name in frames.metrics and None not in frames.metrics[name]:
            lists[f"frame_{theirs}"] = frames.metrics[name]
    if frames.types is not None:
        lists["frame_type"] = [int(kind == "P") for kind in frames.types]
    return lists
