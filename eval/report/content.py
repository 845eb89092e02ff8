"""What the page's scripts are given, as plain dictionaries: curves, frames, BD-rates, pictures."""

from __future__ import annotations

from typing import Any

from eval.bdrate import BD_METRICS
from eval.metrics import ms_ssim_db
from eval.plot import LABELS, average_curve, unit_of
from eval.report.embed import Album
from eval.report.folder import Measured, is_under_test
from eval.report.match import matched, reference_of
from eval.results import KNOWN_METRICS, RdPoint, RdResults


def page_content(measured: Measured, album: Album | None = None) -> dict[str, Any]:
    """Everything that is drawn; json.dumps takes it."""
    results = measured.results
    names = [name for name in KNOWN_METRICS if _measured_by(results, name)]
    return {
        "metrics": [
            {"id": name, "label": LABELS[name], "unit": unit_of(name), "bd": name in BD_METRICS}
            for name in names or BD_METRICS[:1]
        ],
        "codecs": [
            {"name": one.codec, "model": is_under_test(one), "parameter": one.parameter}
            for one in results
        ],
        "sequences": [_sequence(measured, name) for name in measured.sequences],
        "average": _average(measured) if len(measured.sequences) > 1 else None,
        "comparisons": [one.to_json() for one in measured.comparisons],
        "viewer": None if album is None else album.to_json(),
    }


def _measured_by(results: list[RdResults], metric: str) -> bool:
    return any(one.curve(info.name, metric) for one in results for info in one.sequences)


def _average(measured: Measured) -> dict[str, dict[str, list[list[float]]]]:
    """By codec and metric the mean curve; none for a codec that lacks a sequence others have."""
    every = set(measured.sequences)
    return {
        one.codec: {
            name: _pairs(average_curve(one, name)) if _names(one) == every else []
            for name in KNOWN_METRICS
        }
        for one in measured.results
    }


def _names(results: RdResults) -> set[str]:
    return {info.name for info in results.sequences}


def _sequence(measured: Measured, name: str) -> dict[str, Any]:
    curves = {
        one.codec: _points(one, name) for one in measured.results if one.sequence(name) is not None
    }
    return {"name": name, "points": curves, "matches": _matches(measured, name)}


def _points(results: RdResults, sequence: str) -> list[dict[str, Any]]:
    """The points of one curve by ascending rate."""
    curves = {name: results.curve(sequence, name) for name in KNOWN_METRICS}
    return [
        {
            "level": point.level,
            "bpp": point.bpp,
            "kbps": point.kbps,
            "bytes": point.bytes,
            "values": {
                name: round(curve[index][1], 4) if curve else None for name, curve in curves.items()
            },
            "ms_ssim": point.metrics.get("ms_ssim"),
            "frame_values": _frame_values(point),
            "frame_bytes": point.per_frame.bytes if point.per_frame else None,
            "frame_types": "".join((point.per_frame and point.per_frame.types) or []),
            "frame_parts": _frame_parts(point),
        }
        for index, point in enumerate(results.points_of(sequence))
    ]


def _frame_values(point: RdPoint) -> dict[str, list[float | None]]:
    """Per metric the frames' figures as in curves: MS-SSIM on its dB scale."""
    if point.per_frame is None:
        return {}
    values = {}
    for name, row in point.per_frame.metrics.items():
        scale = ms_ssim_db if name == "ms_ssim" else float
        values[name] = [None if value is None else round(scale(value), 3) for value in row]
    return values


def _frame_parts(point: RdPoint) -> dict[str, list[int]] | None:
    """Per part of the model the frames' bits, whole ones; None where the codec does not tell."""
    bits = point.per_frame.bits if point.per_frame else None
    return bits and {part: [round(value) for value in row] for part, row in bits.items()}


def _matches(measured: Measured, name: str) -> dict[str, Any] | None:
    """Per point of the reference codec, the index of every codec's point nearest in rate."""
    reference = reference_of(measured.results, name)
    if reference is None:
        return None
    codecs = {one.codec: one for one in measured.results}
    rows = []
    for point in reference.points_of(name):
        found = matched(measured.results, name, reference, point)
        rows.append(
            {
                codec: [other.level for other in codecs[codec].points_of(name)].index(chosen.level)
                for codec, chosen in found.items()
            }
        )
    return {"reference": reference.codec, "rows": rows}


def _pairs(curve: list[tuple[float, float]]) -> list[list[float]]:
    return [[bpp, round(value, 4)] for bpp, value in curve]
