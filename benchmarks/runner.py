"""Runs suites and writes down what they ran on."""

import json
from collections.abc import Iterable
from pathlib import Path

from benchmarks.registry import Figure, load
from eval.conditions import command_line, machine, now, versions


def run(names: Iterable[str], options: dict) -> dict[str, object]:
    """Measure; a report with date, machine, versions, command and the figures by suite.

    Raises:
        LgmcError: a correctness gate failed; nothing is measured then.
    """
    figures: dict[str, list[Figure]] = {}
    for name in names:
        suite = load(name)
        suite.gate(options)
        figures[name] = suite.measure(options)
    return {
        "date": now(),
        "machine": machine(),
        "versions": versions(),
        "command": command_line(),
        "options": options,
        "figures": {name: [f.as_json() for f in rows] for name, rows in figures.items()},
    }


def describe(report: dict) -> str:
    """The figures as a table."""
    lines = []
    for suite, rows in report["figures"].items():
        lines.append(f"{suite}")
        for row in rows:
            spread = ""
            if row["low"] is not None:
                spread = f"({row['low']:.3g} .. {row['high']:.3g})"
            verdict = ""
            if row["limit"]:
                verdict = f"held to {row['limit']}: {'yes' if row['holds'] else 'NO'}"
            lines.append(
                f"  {row['name']:<44} {row['value']:>10.4g} {row['unit']:<12} "
                f"{spread:<22} {verdict}"
            )
    return "\n".join(lines)


def save(report: dict, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
