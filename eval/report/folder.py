"""What a folder of ``lgmc eval`` holds: results, comparisons, and what could not be had of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from codec.errors import LgmcError
from eval.bdrate import BD_METRICS
from eval.compare import Comparison, compare
from eval.metrics import EXTRA_METRICS
from eval.point import is_anchor
from eval.results import RdResults, ResultsError, load_results

SUMMARY = "bdrate.json"
"""Written beside the results; the report computes its content anew."""


@dataclass
class Measured:
    """Everything measured in a folder.

    results: models first, then anchors, every codec name once. comparisons: each model against each
    anchor (all against all where there is only one kind), by every BD metric. notes: sentences on
    what was done; problems: sentences on what could not be.
    """

    results: list[RdResults]
    comparisons: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def sequences(self) -> list[str]:
        """Names of all sequences in the order of the files."""
        return list(dict.fromkeys(info.name for one in self.results for info in one.sequences))


def is_under_test(results: RdResults) -> bool:
    """Whether these are the results of a model, or of a codec from outside, not an anchor's."""
    if results.conditions is None:  # imported
        return results.parameter == "quality"
    return not is_anchor(results.conditions.codec)


def is_outside(results: RdResults) -> bool:
    """Whether these are the results of a codec from outside (``eval.outside``)."""
    return results.conditions is not None and "codec" in results.conditions.codec


def read_folder(folder: str | Path) -> Measured:
    """Read every result file of ``folder`` and compare them.

    A file that cannot be used is a problem and the others count. Raises ResultsError where the
    folder is not there or no file of it can be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ResultsError(f"{folder} is not a folder: give the one that lgmc eval --out wrote")
    loaded, notes, problems = load_folder(folder)
    measured = Measured([], notes=notes, problems=problems)
    if not loaded:
        reasons = "; ".join(problems)
        raise ResultsError(
            f"{folder} holds no results"
            + (f" that can be used ({reasons})" if reasons else "")
            + ": give the folder that lgmc eval --out wrote"
        )
    measured.results = sorted(
        _named_apart(loaded), key=lambda one: (not is_under_test(one), one.codec)
    )
    _compare(measured)
    return measured


def load_folder(
    folder: Path, without: Iterable[str] = ()
) -> tuple[dict[str, RdResults], list[str], list[str]]:
    """(results by the name of their file, notes, problems): every result file with points.

    without: names of files to pass over.
    """
    loaded: dict[str, RdResults] = {}
    notes, problems = [], []
    for path in sorted(folder.glob("*.json")):
        if path.name in (SUMMARY, *without):
            continue
        try:
            results = load_results(path)
        except ResultsError as exc:
            problems.append(str(exc).replace(str(path), path.name))  # pages travel
            continue
        same = next((name for name, other in loaded.items() if other == results), None)
        if same is not None:
            notes.append(f"{path.name} holds the same as {same} and is left out")
        elif not results.points:
            problems.append(f"{path.name} has no points: measure {results.codec} again")
        else:
            loaded[path.name] = results
    return loaded, notes, problems


def _named_apart(loaded: dict[str, RdResults]) -> list[RdResults]:
    """The results; codecs of one name in several files go by the files' names."""
    names = [one.codec for one in loaded.values()]
    return [
        one if names.count(one.codec) == 1 else one.model_copy(update={"codec": Path(file).stem})
        for file, one in loaded.items()
    ]


def _compare(measured: Measured) -> None:
    models = [one for one in measured.results if is_under_test(one)]
    anchors = [one for one in measured.results if not is_under_test(one)]
    # VMAF and XPSNR are measured where they were asked for.
    points = [point for one in measured.results for point in one.points]
    metrics = [
        name
        for name in BD_METRICS
        if name not in EXTRA_METRICS or any(name in point.metrics for point in points)
    ]
    for test in models or measured.results:
        for anchor in anchors or measured.results:
            if test is anchor:
                continue
            try:
                measured.comparisons += [compare(anchor, test, metric) for metric in metrics]
            except LgmcError as exc:
                measured.problems.append(f"{test.codec} against {anchor.codec}: {exc}")
