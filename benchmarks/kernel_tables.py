"""Rows of ``lgmc bench kernels`` as a table: text for a terminal, Markdown for docs/kernels.md.

    python -m benchmarks.kernel_tables kernels.json [more.json]

puts the tables of the reports into docs/kernels.md, between its two marker lines.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

DOCUMENT = Path(__file__).parents[1] / "docs" / "kernels.md"
BEGIN = "<!-- measured: begin (python -m benchmarks.kernel_tables) -->"
END = "<!-- measured: end -->"
HEAD = (
    "operator, case",
    "dtype",
    "contender",
    "forward ms",
    "backward ms",
    "extra MiB",
    "both ways, MiB",
    "ours ahead: forward",
    "both ways",
    "of ceilings, forward / backward",
)


def cells(rows: list[dict]) -> list[list[str]]:
    """A table's body, one list of cells a row; a peer's row says how far ours is ahead of it."""
    ours = {_case(row): row for row in rows if row["ours"]}
    body = []
    for row in rows:
        label = f"{row['operator']} {row['case']}" if row["ours"] else ""
        dtype = row["dtype"] if row["ours"] else ""
        if row["error"]:
            body.append([label, dtype, row["backend"], row["error"], *[""] * 6])
            continue
        mine, name = ours.get(_case(row), row), row["backend"]
        body.append(
            [
                label,
                dtype,
                f"{name} (ours)" if row["ours"] else name,
                _number(row["forward_ms"]),
                _number(row["backward_ms"]),
                _mebibytes(row["extra_bytes"]),
                _mebibytes(row["training_extra_bytes"]),
                _times(mine["speedup_over"].get(name)),
                _times(mine["training_speedup_over"].get(name)),
                _shares(row) if row["ours"] else "",
            ]
        )
    return body


def text_table(rows: list[dict]) -> str:
    """Each case as a heading, its contenders below it."""
    body = cells(rows)
    timed = [HEAD[2:], *(line[2:] for line in body if not _refused(line))]
    widths = [max(len(line[i]) for line in timed) for i in range(len(HEAD) - 2)]
    lines = [_padded(HEAD[2:], widths)]
    for line in body:
        if line[0]:
            lines.append(f"  {line[0]}, {line[1]}")
        if _refused(line):
            lines.append(f"    {line[2]:<{widths[0]}}  {line[3]}")
        else:
            lines.append(_padded(line[2:], widths))
    return "\n".join(lines)


def _refused(line: list[str]) -> bool:
    return not any(line[4:])


def _padded(cells: Sequence[str], widths: list[int]) -> str:
    name, *rest = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
    return ("    " + "  ".join((name, *rest))).rstrip()


def markdown(report: dict) -> str:
    """Conditions, held-to figures and rows of one report."""
    machine, versions = report["machine"], report["versions"]
    where = machine["gpu"] if report["options"].get("device") == "cuda" else machine["cpu"]
    packages = ", ".join(
        f"{name} {versions[name]}"
        for name in ("torch", "numba", "triton", "spatial-correlation-sampler", "natten")
        if name in versions
    )
    cores = f"{machine['cores']} cores"
    command = " ".join(Path(word).name for word in report["command"])
    lines = [
        f"### {where}, {report['date'][:10]}",
        "",
        f"`{command}`; {cores}, Python {versions['python']}, {packages}.",
        "",
        "| " + " | ".join(HEAD) + " |",
        "|---|---|---|" + "---:|" * 6 + "---|",
    ]
    lines += ["| " + " | ".join(line) + " |" for line in cells(report["rows"]["kernels"])]
    lines += ["", "| figure | value | range | held to | holds |", "|---|---:|---|---|---|"]
    for figure in report["figures"]["kernels"]:
        span = ""
        if figure["low"] is not None:
            span = f"{_number(figure['low'])} .. {_number(figure['high'])}"
        holds = {True: "yes", False: "**no**", None: ""}[figure["holds"]]
        value = f"{_number(figure['value'])} {figure['unit']}".rstrip()
        lines.append(f"| {figure['name']} | {value} | {span} | {figure['limit']} | {holds} |")
    return "\n".join(lines)


def fill(document: str, reports: list[dict]) -> str:
    """``document`` with the reports' tables between its markers."""
    return between(document, BEGIN, END, "\n\n".join(markdown(report) for report in reports))


def between(document: str, begin: str, end: str, text: str) -> str:
    """``document`` with ``text`` in the place of what stands between two marker lines."""
    before, rest = document.split(begin)
    _, after = rest.split(end)
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


def _case(row: dict) -> tuple:
    return row["operator"], row["case"], row["dtype"], row["device"]


def _number(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _mebibytes(value: int | None) -> str:
    return "?" if value is None else _number(value / 2**20)


def _times(value: float | None) -> str:
    return "" if value is None else f"{_number(value)}x"


def _shares(row: dict) -> str:
    """Forward / backward, in percent of each ceiling."""
    names = {"share_of_copy": "copy", "share_of_matmul": "matmul", "share_of_fma": "FMA"}
    return ", ".join(
        f"{name} {100 * row[key]:.0f} / {100 * row['backward_' + key]:.0f} %"
        for key, name in names.items()
        if key in row
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Put measured tables into docs/kernels.md.")
    parser.add_argument("reports", nargs="+", type=Path)
    args = parser.parse_args()
    reports = [json.loads(path.read_text(encoding="utf-8")) for path in args.reports]
    document = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(fill(document, reports), encoding="utf-8")


if __name__ == "__main__":
    main()
