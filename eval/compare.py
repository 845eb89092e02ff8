"""Two codecs' result files against each other: BD-rate per sequence and its mean."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from codec.errors import LgmcError
from eval.bdrate import MIN_OVERLAP, BdDelta, bd_delta
from eval.results import RdResults, ResultsError, check_metric


@dataclass(frozen=True)
class Comparison:
    """The test codec against the anchor by one metric.

    deltas: per sequence, a BdDelta or the sentence that says why there is none. warnings: what
    holds for the whole comparison.
    """

    anchor: str
    test: str
    metric: str
    deltas: dict[str, BdDelta | str]
    warnings: list[str] = field(default_factory=list)

    @property
    def computed(self) -> list[BdDelta]:
        """The deltas of the sequences that have one."""
        return [delta for delta in self.deltas.values() if isinstance(delta, BdDelta)]

    @property
    def mean_rate_percent(self) -> float | None:
        """Mean BD-rate in % over the sequences that have one; None where none has."""
        values = [delta.rate_percent for delta in self.computed]
        return sum(values) / len(values) if values else None

    @property
    def mean_quality_db(self) -> float | None:
        """Mean BD-PSNR in dB over the sequences that have one; None where none has."""
        values = [d.quality_db for d in self.computed if d.quality_db is not None]
        return sum(values) / len(values) if values else None

    def to_json(self) -> dict[str, Any]:
        """Everything, as json.dumps takes it."""
        sequences = {
            name: delta.to_json() if isinstance(delta, BdDelta) else {"error": delta}
            for name, delta in self.deltas.items()
        }
        return {
            "anchor": self.anchor,
            "test": self.test,
            "metric": self.metric,
            "mean_rate_percent": self.mean_rate_percent,
            "mean_quality_db": self.mean_quality_db,
            "computed": len(self.computed),
            "sequences": sequences,
            "warnings": self.warnings,
        }


def compare(
    anchor: RdResults,
    test: RdResults,
    metric: str = "psnr_rgb",
    *,
    min_overlap: float = MIN_OVERLAP,
) -> Comparison:
    """BD-rate of ``test`` against ``anchor`` on every sequence that both have.

    metric: one of ``eval.metrics.METRICS``; MS-SSIM is compared as -10 log10(1 - MS-SSIM). A
    sequence whose curves cannot be compared carries the reason in its place. Raises ResultsError
    where the two files share no sequence, or hold different frames under one name.
    """
    check_metric(metric)
    shared = [info for info in anchor.sequences if test.sequence(info.name)]
    if not shared:
        raise ResultsError(
            f"{anchor.codec} and {test.codec} have no sequence in common: measure "
            "both on the same clips"
        )
    notes = _notes(anchor, test, len(shared))
    deltas: dict[str, BdDelta | str] = {}
    for info in shared:
        other = test.sequence(info.name)
        if info.digest != other.digest:
            raise ResultsError(
                f"{info.name} is not the same video in both files ({info.frames} and {other.frames}"
                " frames, or other pixels, size, rate or matrix): measure both on the same frames"
            )
        try:
            deltas[info.name] = bd_delta(
                _curve(anchor, info.name, metric),
                _curve(test, info.name, metric),
                anchor_name=anchor.codec,
                test_name=test.codec,
                min_overlap=min_overlap,
            )
        except LgmcError as exc:
            deltas[info.name] = str(exc)
    comparison = Comparison(anchor.codec, test.codec, metric, deltas, notes)
    count = len(comparison.computed)
    if 0 < count < len(deltas):
        notes.append(f"the mean is over {count} of {len(deltas)} sequences: the others have none")
    return comparison


def _curve(results: RdResults, sequence: str, metric: str) -> list[tuple[float, float]]:
    curve = results.curve(sequence, metric)
    if not curve and results.points_of(sequence):
        raise ResultsError(
            f"{metric} does not apply to this video (Y, U, V: not for RGB; MS-SSIM: "
            "sides above 160 pixels)"
        )
    return curve


def _notes(anchor: RdResults, test: RdResults, shared: int) -> list[str]:
    notes = []
    periods = anchor.conditions.intra_period, test.conditions.intra_period
    if periods[0] != periods[1]:
        notes.append(f"the intra periods differ: {periods[0]} and {periods[1]}")
    for one in (anchor, test):
        if len(one.sequences) > shared:
            notes.append(f"{one.codec} has {len(one.sequences)} sequences, both have {shared}")
        if one.failures:
            notes.append(f"{len(one.failures)} point(s) of {one.codec} failed and are missing")
    return notes
