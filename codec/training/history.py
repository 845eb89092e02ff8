"""What a run's folder tells of the run, read from outside: while it trains, after it was killed.

Reads config.yaml and metrics.jsonl alone, and takes them as they are: of any version, with a last
line that is half written, with lines that are none of ours.
"""

import json
import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from codec.errors import TrainingError
from codec.training.in_use import is_taken, is_this_machine

RUNNING, STOPPED, FINISHED = "running", "stopped", "finished"

# How long a run whose lock cannot be asked for may be silent: so many intervals of its log, and
# so many seconds besides, for a validation and a checkpoint.
_INTERVALS, _SECONDS = 3, 300.0
_LATEST = 10  # lines that the present speed is averaged over


@dataclass
class History:
    """A run as its files tell it.

    Attributes:
        folder: the run's.
        config: as config.yaml has it, or the last start event; keys may be missing.
        lines: what was logged of steps, in order; each has ``step``, ``loss`` and ``stage``.
        validations: by step, each with ``loss``, bits per pixel and PSNR.
        events: in order.
        intervals: (steps, seconds) between one line and the next, in this run's own time.
        modified: seconds since 1970 when the log was last written, None before there is one.
    """

    folder: Path
    config: dict[str, Any]
    lines: list[dict[str, Any]] = field(default_factory=list)
    validations: dict[int, dict[str, float]] = field(default_factory=dict)
    events: list[dict[str, Any]] = field(default_factory=list)
    intervals: list[tuple[int, float]] = field(default_factory=list)
    modified: float | None = None

    @property
    def total(self) -> int | None:
        """Steps of the schedule; None where it cannot be read."""
        try:
            return sum(int(stage["steps"]) for stage in self.config["training"]["stages"])
        except (KeyError, TypeError, ValueError):
            return None

    @property
    def step(self) -> int:
        """Steps that are done and logged."""
        began = [one["step"] for one in self.of_kind("start")[-1:]]
        return max([*began, *(line["step"] for line in self.lines[-1:])], default=0)

    @property
    def stage(self) -> str | None:
        named = [one.get("name") for one in self.of_kind("stage")[-1:]]
        return self.lines[-1]["stage"] if self.lines else named[0] if named else None

    @property
    def seconds(self) -> float:
        """Spent in the steps that are logged, data included; validations are not."""
        return sum(seconds for _, seconds in self.intervals)

    @property
    def steps_per_second(self) -> float | None:
        """Over the last lines of the log."""
        latest = self.intervals[-_LATEST:]
        if not latest:
            return None
        return sum(steps for steps, _ in latest) / sum(seconds for _, seconds in latest)

    @property
    def skipped(self) -> int:
        """Steps that changed nothing because they were not finite."""
        return self.lines[-1].get("skipped", 0) if self.lines else 0

    @property
    def last_validation(self) -> dict[str, float] | None:
        return self.validations[max(self.validations)] if self.validations else None

    @property
    def digest(self) -> str | None:
        """Of the exported weights, where the schedule was run to its end."""
        return self.exported.get("digest") if self.exported else None

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [one for one in self.events if one["event"] == kind]

    def age(self, now: float | None = None) -> float | None:
        """Seconds since the log was last written."""
        if self.modified is None:
            return None
        return max(0.0, (time.time() if now is None else now) - self.modified)

    def state(self, now: float | None = None) -> tuple[str, str]:
        """``running``, ``stopped`` or ``finished``, and by what that is known.

        ``lock``: the log is locked, or not, by a process of this machine. ``time``: the lock says
        nothing (another machine's run, or one that was begun before there were locks), and the run
        counts as running while its log is younger than a few of its logging intervals.
        """
        ended = FINISHED if self.exported else STOPPED
        start = self.of_kind("start")[-1:]
        if start and is_this_machine(start[0]):
            taken = is_taken(self.folder / "metrics.jsonl")
            if taken is not None:
                return (RUNNING if taken else ended), "lock"
        age = self.age(now)
        if ended == STOPPED and age is not None and age < self._silence():
            return RUNNING, "time"
        return ended, "time"

    @property
    def exported(self) -> dict[str, Any] | None:
        """The event of the export that ended the schedule as it now is.

        A start at the end, the same command given once more, changes nothing of it.
        """
        ends = [
            one
            for one in self.events
            if one["event"] == "exported" or (one["event"] == "start" and one["step"] != self.total)
        ]
        if ends and ends[-1]["event"] == "exported" and ends[-1]["step"] == self.total:
            return ends[-1]
        return None

    def _silence(self) -> float:
        try:
            every = float(self.config["training"].get("log_every", 0))
        except (AttributeError, KeyError, TypeError, ValueError):
            every = 0.0
        rate = self.steps_per_second
        return _SECONDS + (_INTERVALS * every / rate if rate else 0.0)


def read_history(folder: Path) -> History:
    """The run of a folder.

    Raises:
        TrainingError: the folder is not there or holds no run.
    """
    history = try_history(folder)
    if history is None:
        what = "holds no training run" if folder.is_dir() else "there is no such folder"
        raise TrainingError(f"{folder}: {what}; `lgmc runs FOLDER` lists those below a folder")
    return history


def try_history(folder: Path) -> History | None:
    """The run of a folder, None where it holds none."""
    log = folder / "metrics.jsonl"
    config = _config(folder / "config.yaml")
    records, modified = _records(log)
    started = [one for one in records if one.get("event") == "start"]
    if config is None:
        if not started:
            return None
        config = started[-1].get("config")
    history = History(folder, config if isinstance(config, dict) else {}, modified=modified)
    previous = 0
    for record in records:
        step = record["step"]
        if "event" in record:
            history.events.append(record)
            if record["event"] == "start":
                previous = step
        elif isinstance(record.get("validation"), dict):
            history.validations[step] = record["validation"]
        elif isinstance(record.get("loss"), (int, float)) and "stage" in record:
            history.lines.append(record)
            rate = record.get("steps_per_second", 0.0)
            if step > previous and rate > 0:
                history.intervals.append((step - previous, (step - previous) / rate))
            previous = step
    return history


def find_runs(root: Path, depth: int = 4) -> list[History]:
    """Every run in a folder and the folders below it, the one last written to first.

    Folders inside a run are not searched, nor hidden ones, nor links.

    Raises:
        TrainingError: there is no such folder.
    """
    if not root.is_dir():
        raise TrainingError(f"{root}: there is no such folder; name the one that holds the runs")
    found: list[History] = []
    _search(root, depth, found)
    return sorted(found, key=lambda one: (-(one.modified or 0.0), str(one.folder)))


def _search(folder: Path, depth: int, found: list[History]) -> None:
    history = try_history(folder)
    if history is not None:
        found.append(history)
        return
    if depth == 0:
        return
    try:
        below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.is_symlink())
    except OSError:
        return  # a folder that is not ours to read
    for one in below:
        if not one.name.startswith("."):
            _search(one, depth - 1, found)


def _config(path: Path) -> dict[str, Any] | None:
    """A run's configuration; None where the file is none, or none of ours."""
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return None
    ours = isinstance(values, dict) and isinstance(values.get("training"), dict)
    return values if ours and "stages" in values["training"] and "model" in values else None


def _records(path: Path) -> tuple[list[dict[str, Any]], float | None]:
    """The lines that are whole and ours, each with a step, and when the file was last written."""
    try:
        modified = path.stat().st_mtime
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return [], None
    records = []
    for line in text.splitlines():
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue  # being written, or cut off when the run was killed
        if isinstance(record, dict) and isinstance(record.setdefault("step", 0), int):
            records.append(record)
    return records, modified


def finite(values: list[float]) -> list[float]:
    """Those that are numbers: a step that was skipped logs a loss that is none."""
    return [value for value in values if isinstance(value, (int, float)) and math.isfinite(value)]


def flat_keys(value: Any, path: str = "") -> dict[str, Any]:
    """Keys of nested mappings joined by dots; lists of mappings by their numbers."""
    if isinstance(value, dict) and value:
        items = value.items()
    elif isinstance(value, list) and any(isinstance(one, dict) for one in value):
        items = enumerate(value)
    else:
        return {path: value}
    flat: dict[str, Any] = {}
    for key, below in items:
        flat.update(flat_keys(below, f"{path}.{key}" if path else str(key)))
    return flat


def changes(before: Any, now: Any) -> dict[str, tuple[Any, Any]]:
    """(before, now) by key, see ``flat_keys``, where the two differ; a key one lacks is None."""
    old, new = flat_keys(before), flat_keys(now)
    pairs = {key: (old.get(key), new.get(key)) for key in (*old, *new)}
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}
