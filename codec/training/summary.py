"""The end of a run in a page: what was trained, what came of it, what to type next."""

import json
import shlex
from itertools import groupby
from pathlib import Path
from statistics import fmean
from typing import Any

from codec.training.history import History, finite, read_history

MODEL = "model.safetensors"


def write_summary(folder: Path) -> str:
    """Write ``summary.json`` and ``summary.md`` of a finished run; returns the latter's text.

    Raises:
        TrainingError: the folder holds no run.
    """
    summary = summarise(read_history(folder))
    text = "\n".join(as_text(summary)) + "\n"
    (folder / "summary.json").write_text(json.dumps(summary, indent=1), encoding="utf-8")
    (folder / "summary.md").write_text(text, encoding="utf-8")
    return text


def summarise(history: History) -> dict[str, Any]:
    """What ``summary.json`` holds.

    ``seconds`` are those of the steps that count, over all sessions: what a killed session computed
    after its last checkpoint is not in it, nor are validations and exports. A stage's losses are
    means over the first and the last tenth of its logged lines, each a single step's of random
    quality.
    """
    steps = sum(count for count, _ in history.intervals)
    starts = history.of_kind("start")
    model = history.folder / MODEL
    return {
        "run": history.folder.name,
        "steps": history.step,
        "of": history.total,
        "began": starts[0].get("time") if starts else None,
        "ended": history.exported.get("time") if history.exported else None,
        "sessions": len(starts),
        "seconds": history.seconds,
        "steps_per_second": steps / history.seconds if steps else None,
        "skipped": history.skipped,
        "stages": stage_losses(history),
        "validation": _first_and_last(history),
        "digest": history.digest,
        "model": str(model) if model.exists() else None,
        "next": (
            f"lgmc eval --model {shlex.quote(str(model))} --sequences CLIPS "
            f"--out {shlex.quote(f'results/{history.folder.name}')}"
        ),
    }


def stage_losses(history: History) -> list[dict[str, Any]]:
    """Where the loss of each stage began and ended, in the order they were trained."""
    stages = []
    for name, group in groupby(history.lines, key=lambda line: line["stage"]):
        lines = list(group)
        share = max(1, len(lines) // 10)
        ends = [finite([line["loss"] for line in part]) for part in (lines[:share], lines[-share:])]
        begin, end = (fmean(values) if values else None for values in ends)
        last = lines[-1]["step"]
        stages.append({"name": name, "until": last, "begin": begin, "end": end, "lines": share})
    return stages


def as_text(summary: dict[str, Any]) -> list[str]:
    """The summary as lines of Markdown."""
    of = "" if summary["of"] in (None, summary["steps"]) else f" of {summary['of']:,}"
    rate = summary["steps_per_second"]
    speed = "" if rate is None else f", {rate:.2f} steps/s"
    sessions = summary["sessions"]
    lines = [
        f"# {summary['run']}",
        "",
        f"- steps: {summary['steps']:,}{of}, {summary['skipped']:,} of them skipped",
        f"- time in steps: {duration(summary['seconds'])}{speed}, "
        + ("1 session" if sessions == 1 else f"{sessions} sessions"),
        f"- from {summary['began']} to {summary['ended']}",
        f"- model: {summary['model']}",
        f"- weights: {summary['digest']}",
        "",
    ]
    rows = [
        (s["name"], f"{s['until']:,}", _number(s["begin"]), _number(s["end"]))
        for s in summary["stages"]
    ]
    lines += [*_table([("stage", "until step", "loss at its begin", "at its end"), *rows]), ""]
    lines += [*_validation_lines(summary["validation"]), ""]
    lines += ["Next, with CLIPS a folder of clips it has not seen:", "", f"    {summary['next']}"]
    return lines


def duration(seconds: float) -> str:
    """``45 s``, ``3 min 20 s``, ``5 h 03 min``, ``2 d 4 h``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"


def _first_and_last(history: History) -> dict[str, Any] | None:
    if not history.validations:
        return None
    first, last = min(history.validations), max(history.validations)
    return {
        "first": {"step": first, **history.validations[first]},
        "last": {"step": last, **history.validations[last]},
    }


def _validation_lines(validation: dict[str, Any] | None) -> list[str]:
    if validation is None:
        return ["No validation: no clip was held out."]
    first, last = validation["first"], validation["last"]
    head = ("validation", *(f"bpp, step {one['step']:,}" for one in (first, last)))
    head += tuple(f"dB, step {one['step']:,}" for one in (first, last))
    points = [key.removesuffix("/bpp") for key in last if key.endswith("/bpp")]
    rows = [
        (
            point.replace("/", " "),
            *(_number(one.get(f"{point}/bpp")) for one in (first, last)),
            *(_number(one.get(f"{point}/psnr"), 2) for one in (first, last)),
        )
        for point in points
    ]
    loss = f"Validation loss {_number(first.get('loss'), 5)} at step {first['step']:,}"
    if first["step"] != last["step"]:
        loss += f", {_number(last.get('loss'), 5)} at step {last['step']:,}"
    else:
        head, rows = (head[0], head[1], head[3]), [(r[0], r[1], r[3]) for r in rows]
        loss += ", the only one"
    return [*_table([head, *rows]), "", loss + "."]


def _table(rows: list[tuple[str, ...]]) -> list[str]:
    """A Markdown table that reads well as it is; numbers to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| "
        + " | ".join(
            cell.rjust(width) if i else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        + " |"
        for row in rows
    ]
    rule = "|" + "|".join("-" * (w + 1) + (":" if i else "-") for i, w in enumerate(widths)) + "|"
    return [lines[0], rule, *lines[1:]]


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
