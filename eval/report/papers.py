"""BD-rates for papers: LaTeX tables and a CSV."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from eval.bdrate import METHOD, BdDelta
from eval.compare import Comparison, MeanDelta
from eval.results import write_text

COLUMNS = (
    "test",
    "anchor",
    "metric",
    "sequence",
    "bd_rate_percent",
    "bd_rate_percent_akima",
    "bd_quality_db",
    "overlap",
    "quality_low_db",
    "quality_high_db",
    "remarks",
)

_SPECIAL = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def save_latex(comparisons: Sequence[Comparison], path: str | Path) -> None:
    """Write one tabular per test codec and metric: sequences by anchors, BD-rate in %."""
    write_text(path, latex(comparisons))


def save_bd_csv(comparisons: Sequence[Comparison], path: str | Path) -> None:
    """Write a row per test, anchor, metric and sequence, with what qualifies each figure."""
    text = io.StringIO()
    rows = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    rows.writeheader()
    for one in comparisons:
        for sequence, delta in one.deltas.items():
            row = {"test": one.test, "anchor": one.anchor, "metric": one.metric}
            rows.writerow({**row, "sequence": sequence, **_fields(delta, one.warnings)})
    write_text(path, text.getvalue())


def latex(comparisons: Sequence[Comparison]) -> str:
    """The tables as text, no package needed.

    A star marks a figure with a warning, and a mean that some sequences are missing from. The
    warnings, and the reasons where there is no figure, follow each table as LaTeX comments.
    """
    kinds = dict.fromkeys((one.test, one.metric) for one in comparisons)
    tables = []
    for test, metric in kinds:
        group = [one for one in comparisons if (one.test, one.metric) == (test, metric)]
        tables.append(_table(test, metric, group))
    return "\n".join(tables)


def _table(test: str, metric: str, group: list[Comparison]) -> str:
    names = list(dict.fromkeys(name for one in group for name in one.deltas))
    lines = [
        f"% BD-rate (%) of {test}, {metric}, {METHOD}; negative is less rate; * see below",
        rf"\begin{{tabular}}{{l{'r' * len(group)}}}",
        r"\hline",
        " & ".join(["Sequence", *(escape(one.anchor) for one in group)]) + r" \\",
        r"\hline",
    ]
    for name in names:
        cells = [_cell(one.deltas.get(name)) for one in group]
        lines.append(" & ".join([escape(name), *cells]) + r" \\")
    lines += [
        r"\hline",
        " & ".join(["Mean", *(_mean_cell(one.over_sequences) for one in group)]) + r" \\",
        r"\hline",
        r"\end{tabular}",
    ]
    for one in group:
        lines += [f"% {one.anchor}: {note}" for note in one.warnings]
        for name, delta in one.deltas.items():
            notes = delta.warnings if isinstance(delta, BdDelta) else (delta,)
            lines += [f"% {one.anchor}, {name}: {note}" for note in notes]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Plain text for LaTeX."""
    return re.sub(r"[\\~^&%$#_{}]", lambda m: _SPECIAL.get(m[0], "\\" + m[0]), text)


def _cell(delta: BdDelta | str | None) -> str:
    if not isinstance(delta, BdDelta):
        return "--"
    return f"${delta.rate_percent:+.2f}{'^{*}' if delta.warnings else ''}$"


def _mean_cell(mean: MeanDelta) -> str:
    """The mean over sequences, with a star where some of them have no figure."""
    if mean.rate_percent is None:
        return "--"
    return f"${mean.rate_percent:+.2f}{'^{*}' if mean.partial else ''}$"


def _fields(delta: BdDelta | str, warnings: Sequence[str]) -> dict[str, object]:
    if not isinstance(delta, BdDelta):
        return {"remarks": "; ".join([delta, *warnings])}
    return {
        "bd_rate_percent": delta.rate_percent,
        "bd_rate_percent_akima": delta.rate_percent_akima,
        "bd_quality_db": delta.quality_db,
        "overlap": delta.overlap,
        "quality_low_db": delta.quality_interval[0],
        "quality_high_db": delta.quality_interval[1],
        "remarks": "; ".join([*delta.warnings, *warnings]),
    }
