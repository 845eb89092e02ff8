"""Two codecs' result files against each other: BD-rate per sequence, per class, and its means."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from codec.errors import LgmcError
from eval.bdrate import MIN_OVERLAP, BdDelta, bd_delta
from eval.metrics import EXTRA_METRICS
from eval.results import RdResults, ResultsError, SequenceInfo, check_metric
from eval.testsets.classes import classes_of


@dataclass(frozen=True)
class MeanDelta:
    """A mean of BD figures.

    rate_percent: of BD-rate, %; quality_db: of BD-PSNR, dB; each None where nothing has one.
    computed: how many have a BD-rate; quality_computed: a BD-PSNR; total: of so many.
    partial: whether a sequence whose BD-rate belongs into the mean has none.
    """

    rate_percent: float | None
    quality_db: float | None
    computed: int
    quality_computed: int
    total: int
    partial: bool

    def to_json(self) -> dict[str, Any]:
        """The fields as a dictionary that json.dumps takes."""
        return asdict(self)


@dataclass(frozen=True)
class Comparison:
    """The test codec against the anchor by one metric.

    deltas: per sequence, a BdDelta or the sentence that says why there is none. warnings: what
    holds for the whole comparison. classes: per sequence its class, of the test sets where empty.
    """

    anchor: str
    test: str
    metric: str
    deltas: dict[str, BdDelta | str]
    warnings: list[str] = field(default_factory=list)
    classes: dict[str, str] = field(default_factory=dict)

    @property
    def computed(self) -> list[BdDelta]:
        """The deltas of the sequences that have one."""
        return [delta for delta in self.deltas.values() if isinstance(delta, BdDelta)]

    @property
    def mean_rate_percent(self) -> float | None:
        """Mean BD-rate in % over the sequences that have one; None where none has."""
        return self.over_sequences.rate_percent

    @property
    def mean_quality_db(self) -> float | None:
        """Mean BD-PSNR in dB over the sequences that have one; None where none has."""
        return self.over_sequences.quality_db

    @property
    def over_sequences(self) -> MeanDelta:
        """The mean in which every sequence counts the same."""
        return _mean_of_sequences(self.deltas.values())

    @property
    def by_class(self) -> dict[str, MeanDelta]:
        """The mean of each class over its sequences, in the order in which they come."""
        groups: dict[str, list[BdDelta | str]] = {}
        classes = self.classes or classes_of(self.deltas)
        for name, delta in self.deltas.items():
            groups.setdefault(classes[name], []).append(delta)
        return {name: _mean_of_sequences(group) for name, group in groups.items()}

    @property
    def over_classes(self) -> MeanDelta:
        """The mean of the classes' means: every class counts the same, however many are in it."""
        means = list(self.by_class.values())
        rates = [one.rate_percent for one in means if one.rate_percent is not None]
        gains = [one.quality_db for one in means if one.quality_db is not None]
        partial = any(one.partial for one in means)
        return MeanDelta(_mean(rates), _mean(gains), len(rates), len(gains), len(means), partial)

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
            "classes": {name: mean.to_json() for name, mean in self.by_class.items()},
            "mean_over_sequences": self.over_sequences.to_json(),
            "mean_over_classes": self.over_classes.to_json(),
            "warnings": self.warnings,
        }


def _mean_of_sequences(deltas: Iterable[BdDelta | str]) -> MeanDelta:
    deltas = list(deltas)
    computed = [delta for delta in deltas if isinstance(delta, BdDelta)]
    rates = [delta.rate_percent for delta in computed]
    gains = [delta.quality_db for delta in computed if delta.quality_db is not None]
    partial = len(rates) < len(deltas)
    return MeanDelta(_mean(rates), _mean(gains), len(rates), len(gains), len(deltas), partial)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None


def compare(
    anchor: RdResults,
    test: RdResults,
    metric: str = "psnr_rgb",
    *,
    min_overlap: float = MIN_OVERLAP,
    classes: dict[str, str] | None = None,
) -> Comparison:
    """BD-rate of ``test`` against ``anchor`` on every sequence that both have.

    metric: one of ``eval.metrics.METRICS``; MS-SSIM is compared as -10 log10(1 - MS-SSIM). classes:
    sequence -> class, before those of the test sets. A sequence whose curves cannot be compared
    carries the reason in its place. Raises ResultsError where the two files share no sequence, or
    hold different frames under one name.
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
    unchecked = 0
    for info in shared:
        unchecked += not _same_video(info, test.sequence(info.name))
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
    if unchecked:
        notes.append(
            f"imported: that both are of the same frames is not known for {unchecked} of "
            f"{len(shared)} sequences, nor that their metrics are made alike"
        )
    of = classes_of(deltas, classes)
    comparison = Comparison(anchor.codec, test.codec, metric, deltas, notes, of)
    count = len(comparison.computed)
    if 0 < count < len(deltas):
        notes.append(f"the mean is over {count} of {len(deltas)} sequences: the others have none")
    return comparison


def same_frames(info: SequenceInfo, other: SequenceInfo) -> bool:
    """Whether two sequences of one name may be of the same frames: by digest, else by size."""
    fields = ("digest",) if _both_known(info, other) else ("width", "height", "frames")
    pairs = [(getattr(info, name), getattr(other, name)) for name in fields]  # 30 may be 30000/1001
    return all(None in pair or pair[0] == pair[1] for pair in pairs)


def _both_known(info: SequenceInfo, other: SequenceInfo) -> bool:
    return info.digest is not None and other.digest is not None


def _same_video(info: SequenceInfo, other: SequenceInfo) -> bool:
    """Whether the digests say so; False where one is unknown. Raises ResultsError where not."""
    if not same_frames(info, other):
        counts = " and ".join(
            "?" if frames is None else str(frames) for frames in (info.frames, other.frames)
        )
        raise ResultsError(
            f"{info.name} is not the same video in both files ({counts}"
            " frames, or other pixels, size, rate or matrix): measure both on the same frames"
        )
    return _both_known(info, other)


def _curve(results: RdResults, sequence: str, metric: str) -> list[tuple[float, float]]:
    curve = results.curve(sequence, metric)
    if not curve and results.points_of(sequence):
        if results.imported is not None:
            raise ResultsError(f"{results.codec} was imported without {metric}: choose another")
        if metric in EXTRA_METRICS and not _was_measured(results, sequence, metric):
            raise ResultsError(
                f"{metric} of {results.codec} was not measured on all points: measure it with "
                f"`lgmc eval --metrics {metric.partition('_')[0]}`"
            )
        raise ResultsError(
            f"{metric} does not apply to this video (Y, U, V: not for RGB; MS-SSIM: "
            "sides above 160 pixels; XPSNR: 2026 pixels or more)"
        )
    return curve


def _was_measured(results: RdResults, sequence: str, metric: str) -> bool:
    return all(metric in point.metrics for point in results.points_of(sequence))


def _notes(anchor: RdResults, test: RdResults, shared: int) -> list[str]:
    notes = []
    periods = anchor.intra_period, test.intra_period
    if None in periods:
        unknown = [one.codec for one in (anchor, test) if one.intra_period is None]
        notes.append(f"the intra period is not known of {' and '.join(unknown)}")
    elif periods[0] != periods[1]:
        notes.append(f"the intra periods differ: {periods[0]} and {periods[1]}")
    for one in (anchor, test):
        if len(one.sequences) > shared:
            notes.append(f"{one.codec} has {len(one.sequences)} sequences, both have {shared}")
        if one.failures:
            notes.append(f"{len(one.failures)} point(s) of {one.codec} failed and are missing")
    return notes
