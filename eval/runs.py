"""Training runs as tables: a list of them, and several side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from codec.training.history import History, flat_keys
from codec.training.summary import duration, stage_losses
from eval.tables import align


def row_of(history: History, root: Path) -> dict[str, Any]:
    """What a list says of a run; ``name`` is its folder's path below ``root``."""
    state, known_by = history.state()
    validation = history.last_validation or {}
    return {
        "name": name_of(history, root),
        "folder": str(history.folder),
        "state": state,
        "known_by": known_by,
        "step": history.step,
        "total": history.total,
        "stage": history.stage,
        "steps_per_second": history.steps_per_second,
        "validation_loss": validation.get("loss"),
        "age_seconds": history.age(),
    }


def name_of(history: History, root: Path) -> str:
    if history.folder == root:
        return history.folder.resolve().name
    return history.folder.relative_to(root).as_posix()


def list_lines(rows: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each of :func:`row_of`; ``?`` marks a state that the log's age alone tells."""
    head = ("run", "state", "step", "of", "stage", "steps/s", "validation", "age")
    cells = [
        (
            row["name"],
            row["state"] + ("?" if row["state"] == "running" and row["known_by"] == "time" else ""),
            str(row["step"]),
            "-" if row["total"] is None else str(row["total"]),
            row["stage"] or "-",
            _number(row["steps_per_second"], 2),
            _number(row["validation_loss"], 5),
            "-" if row["age_seconds"] is None else duration(row["age_seconds"]),
        )
        for row in rows
    ]
    return align([head, *cells])


def compare_runs(histories: Sequence[History]) -> dict[str, Any]:
    """Several runs side by side; lists are in their order, None where a run has nothing to say.

    ``differences``: values by key of the configurations, of the keys alone that differ; None is
    what is set to nothing, or a key that the run's version did not have. ``validation``: losses by
    step, of all steps at which one was validated. ``last``: the last validation by quality and
    kind of frame. ``figures``: the rest.
    """
    flat = [flat_keys(history.config) for history in histories]
    rows = {key: [one.get(key) for one in flat] for key in _in_order(flat)}
    steps = sorted({step for history in histories for step in history.validations})
    last = [history.last_validation or {} for history in histories]
    measures = dict.fromkeys(key for one in last for key in one)
    return {
        "runs": [str(history.folder) for history in histories],
        "differences": {key: values for key, values in rows.items() if _differ(values)},
        "validation": {
            step: [history.validations.get(step, {}).get("loss") for history in histories]
            for step in steps
        },
        "last": {key: [one.get(key) for one in last] for key in measures if key != "loss"},
        "figures": {
            "state": [history.state()[0] for history in histories],
            "steps": [history.step for history in histories],
            "of": [history.total for history in histories],
            "skipped": [history.skipped for history in histories],
            "seconds": [history.seconds for history in histories],
            "steps_per_second": [history.steps_per_second for history in histories],
            "training_loss": [_end_loss(history) for history in histories],
            "validation_loss": [one.get("loss") for one in last],
            "digest": [history.digest for history in histories],
        },
    }


def compare_lines(comparison: dict[str, Any]) -> list[str]:
    """:func:`compare_runs` as text."""
    names = short_names(comparison["runs"])
    lines = ["configurations, where they differ"]
    rows = [(key, *map(_word, values)) for key, values in comparison["differences"].items()]
    lines += _table("key", names, rows) if rows else ["  nowhere"]
    lines += ["", "validation loss"]
    rows = [
        (f"step {step}", *(_number(value, 5) for value in values))
        for step, values in comparison["validation"].items()
    ]
    lines += _table("", names, rows) if rows else ["  none of them was validated"]
    if comparison["last"]:
        lines += ["", "last validation"]
        rows = []
        for key, values in comparison["last"].items():
            *point, what = key.split("/")
            digits = 2 if what == "psnr" else 4
            label = " ".join([*point, {"psnr": "dB"}.get(what, what.replace("_", " "))])
            rows.append((label, *(_number(value, digits) for value in values)))
        lines += _table("", names, rows)
    figures = comparison["figures"]
    shown = {
        "state": figures["state"],
        "steps": [str(one) for one in figures["steps"]],
        "of": [_word(one) for one in figures["of"]],
        "skipped": [str(one) for one in figures["skipped"]],
        "time in steps": [duration(one) for one in figures["seconds"]],
        "steps/s, lately": [_number(one, 2) for one in figures["steps_per_second"]],
        "training loss, end": [_number(one, 4) for one in figures["training_loss"]],
        "weights": [one[:12] if one else "-" for one in figures["digest"]],
    }
    lines += ["", "at the end"]
    return lines + _table("", names, [(name, *values) for name, values in shown.items()])


def short_names(folders: Sequence[str]) -> list[str]:
    """The last parts of paths, as many as tell them apart."""
    parts = [Path(folder).resolve().parts for folder in folders]
    for count in range(1, max(map(len, parts)) + 1):
        names = ["/".join(one[-count:]) for one in parts]
        if len(set(names)) == len(set(parts)):
            break
    return names


def _table(head: str, names: Sequence[str], rows: Sequence[tuple[str, ...]]) -> list[str]:
    return ["  " + line for line in align([(head, *names), *rows])]


def _in_order(flat: Sequence[dict[str, Any]]) -> list[str]:
    """Every key once, beside those that share its beginning."""
    seen: dict[str, int] = {}

    def place(key: str) -> list[int]:
        parts = key.split(".")
        beginnings = [".".join(parts[: i + 1]) for i in range(len(parts))]
        return [seen.setdefault(one, len(seen)) for one in beginnings]

    return sorted(dict.fromkeys(key for one in flat for key in one), key=place)


def _differ(values: list[Any]) -> bool:
    return any(value != values[0] for value in values)


def _end_loss(history: History) -> float | None:
    stages = stage_losses(history)
    return stages[-1]["end"] if stages else None


def _word(value: Any) -> str:
    if isinstance(value, list):
        return "[" + ", ".join(map(_word, value)) + "]"
    return "-" if value is None else str(value)


def _number(value: float | None, digits: int) -> str:
    known = isinstance(value, (int, float)) and math.isfinite(value)
    return f"{value:.{digits}f}" if known else "-"
