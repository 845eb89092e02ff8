"""Runs suites and writes down what they ran on."""

import json
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path

from benchmarks import kernel_tables
from benchmarks.registry import Measured, load
from eval.conditions import command_line, machine, now, versions


def run(names: Iterable[str], options: dict) -> dict[str, object]:
    """Measure; a report with date, machine, versions, command and the figures by suite.

    Raises:
        LgmcError: a correctness gate failed; nothing is measured then.
    """
    found: dict[str, Measured] = {}
    packages: list[str] = []
    for name in names:
        suite = load(name)
        found[name] = suite.results(options)
        packages += suite.packages
    report = {
        "date": now(),
        "machine": machine(),
        "versions": versions() | installed(packages),
        "command": command_line(),
        "options": options,
        "figures": {name: [f.as_json() for f in m.figures] for name, m in found.items()},
    }
    rows = {name: m.rows for name, m in found.items() if m.rows}
    if rows:
        report["rows"] = rows
        report["ceilings"] = {name: found[name].ceilings for name in rows}
    return report


def installed(packages: Iterable[str]) -> dict[str, str]:
    """Version of each of the distributions that is installed."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def failed(report: dict) -> list[str]:
    """What of ours a gate refused: one line each."""
    rows = [row for suite in report.get("rows", {}).values() for row in suite]
    return [
        f"{row['operator']} {row['case']} {row['dtype']}, {row['backend']}: {row['error']}"
        for row in rows
        if row["ours"] and row["error"]
    ]


def describe(report: dict) -> str:
    """The figures as a table."""
    lines = []
    for suite, rows in report["figures"].items():
        lines.append(f"{suite}")
        if suite in report.get("rows", {}):
            lines += kernel_tables.text_table(report["rows"][suite]).splitlines()
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
