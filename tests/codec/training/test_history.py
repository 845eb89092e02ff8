"""Reading a run from outside, whole, half written or not ours at all; who holds its folder."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from codec.errors import TrainingError
from codec.training.history import (
    FINISHED,
    RUNNING,
    STOPPED,
    History,
    find_runs,
    read_history,
    try_history,
)
from codec.training.in_use import give_up, is_taken, take
from codec.training.log import Log

CONFIG = {
    "name": "x",
    "model": {},
    "training": {
        "log_every": 10,
        "stages": [{"name": "a", "steps": 30}, {"name": "b", "steps": 9}],
    },
}


def step(number: int, **values) -> dict:
    return {"step": number, "stage": "a", "loss": 1.0, "steps_per_second": 2.0, **values}


def write_run(folder: Path, records: list, config: dict | None = CONFIG, tail: str = "") -> Path:
    folder.mkdir(parents=True)
    if config is not None:
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
    lines = [one if isinstance(one, str) else json.dumps(one) for one in records]
    (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines) + tail)
    return folder


def test_a_finished_run(watched_run):
    history = read_history(watched_run)
    assert history.step == history.total == 12
    assert history.stage == "cascade"
    assert history.state() == (FINISHED, "lock")
    assert list(history.validations) == [8, 12]
    assert history.last_validation["loss"] == history.validations[12]["loss"]
    assert history.seconds > 0 and history.steps_per_second > 0
    card = json.loads((watched_run / "metrics.jsonl").read_text().splitlines()[-1])
    assert history.digest == card["digest"]


def test_lines_that_are_broken_or_not_ours_are_passed_over(tmp_path):
    records = [
        {"event": "start", "time": "2026-01-01", "step": 0},
        step(10),
        "12",
        "[]",
        "{}",
        json.dumps({"step": "ten", "loss": 1.0, "stage": "a"}),
        json.dumps({"step": 15, "other": 1}),
        step(20, loss=float("nan"), skipped=3),
        '{"step": 25, "validation": 3}',
    ]
    folder = write_run(tmp_path / "run", records, tail='{"step": 30, "stage": "a", "lo')
    with open(folder / "metrics.jsonl", "ab") as file:
        file.write(b"\xff\xfe")
    history = read_history(folder)
    assert [line["step"] for line in history.lines] == [10, 20]
    assert (history.step, history.total, history.skipped) == (20, 39, 3)
    assert history.intervals == [(10, 5.0), (10, 5.0)]
    assert history.last_validation is None and history.digest is None


def test_time_is_counted_from_where_a_session_began(tmp_path):
    records = [
        {"event": "start", "step": 0},
        step(10),
        {"event": "start", "step": 8},
        step(20, steps_per_second=4.0),
    ]
    history = read_history(write_run(tmp_path / "run", records))
    assert history.intervals == [(10, 5.0), (12, 3.0)]
    assert history.steps_per_second == pytest.approx(22 / 8)


def test_where_the_lock_says_nothing_the_age_of_the_log_decides(tmp_path):
    elsewhere = {"event": "start", "step": 0, "host": "no-such-host", "boot": "0"}
    folder = write_run(tmp_path / "run", [elsewhere, step(10)])
    history = read_history(folder)
    written = (folder / "metrics.jsonl").stat().st_mtime
    # Three intervals of 10 steps at 2 a second, and five minutes.
    assert history.state(written + 314) == (RUNNING, "time")
    assert history.state(written + 316) == (STOPPED, "time")
    assert history.age(written + 316) == pytest.approx(316)


def test_an_export_ends_a_schedule_and_a_longer_schedule_goes_on(tmp_path):
    records = [{"event": "start", "step": 0}, step(39), {"event": "exported", "step": 39}]
    assert read_history(write_run(tmp_path / "done", records)).state()[0] == FINISHED
    longer = {**CONFIG, "training": {"stages": [{"name": "a", "steps": 50}]}}
    history = read_history(write_run(tmp_path / "longer", records, longer))
    assert history.state(history.modified + 1e6)[0] == STOPPED
    again = write_run(tmp_path / "again", [*records, {"event": "start", "step": 39}])
    assert read_history(again).exported == records[-1]  # nothing was left to do
    anew = write_run(tmp_path / "anew", [*records, {"event": "start", "step": 20}])
    assert read_history(anew).exported is None


def test_the_folders_of_runs_are_found_and_others_left_alone(watched_run, tmp_path):
    shutil.copytree(watched_run, tmp_path / "deep" / "er" / "copy")
    write_run(tmp_path / "plain", [{"event": "start", "step": 0, "config": CONFIG}], None)
    write_run(tmp_path / "begun", [])
    write_run(tmp_path / "foreign", [{"loss": 1.0, "step": 3}], {"training": "mine"})
    write_run(tmp_path / "list", [{"loss": 1.0}], None)
    (tmp_path / "list" / "config.yaml").write_text("- 1\n- [")
    write_run(tmp_path / ".hidden", [])
    write_run(tmp_path / "begun" / "inside", [])
    (tmp_path / "file").write_text("")
    names = {str(one.folder.relative_to(tmp_path)) for one in find_runs(tmp_path)}
    assert names == {"deep/er/copy", "plain", "begun"}
    assert try_history(tmp_path / "plain").total == 39
    assert try_history(tmp_path / "begun").step == 0
    assert [one.folder for one in find_runs(tmp_path / "plain")] == [tmp_path / "plain"]


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(TrainingError, match="holds no training run"):
        read_history(tmp_path)
    with pytest.raises(TrainingError, match="no such folder"):
        read_history(tmp_path / "none")
    with pytest.raises(TrainingError, match="no such folder"):
        find_runs(tmp_path / "none")


def test_a_run_is_running_while_its_log_is_open(tmp_path):
    folder = write_run(tmp_path / "run", [])
    with Log(folder, 0) as log:
        log.event("start", step=0)
        assert read_history(folder).state() == (RUNNING, "lock")
        with open(folder / "metrics.jsonl", "a") as second:
            with pytest.raises(TrainingError, match="another process is training"):
                take(second, patience=0.2)
    assert read_history(folder).state() == (STOPPED, "lock")
    with open(folder / "metrics.jsonl", "a") as second:
        take(second, patience=0.0)
        give_up(second)


def test_the_lock_of_a_killed_process_is_gone_with_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    code = (
        "import sys, time; from codec.training.in_use import take\n"
        "log = open(sys.argv[1], 'a'); take(log); print('taken', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", code, str(path)]
    root = Path(__file__).parents[3]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment, cwd=root)
    try:
        assert process.stdout.readline() == b"taken\n"
        assert is_taken(path)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert is_taken(path) is False
    assert is_taken(tmp_path / "none") is None
    started = time.monotonic()
    with open(path, "a") as log:
        take(log)
    assert time.monotonic() - started < 5  # nobody had to be waited for


def test_an_export_counts_until_the_run_goes_on(tmp_path):
    """And only where it is that of the schedule as it now is."""
    config = {"training": {"stages": [{"steps": 8}, {"steps": 4}]}}
    start, earlier, again = ({"event": "start", "step": step} for step in (0, 8, 12))
    exported = {"event": "exported", "step": 12, "digest": "ab"}
    for events, digest in (
        ([start], None),
        ([start, exported], "ab"),
        ([start, start, exported], "ab"),
        ([start, exported, again], "ab"),  # the same command once more
        ([start, exported, earlier], None),
        ([start, {**exported, "step": 8}], None),
    ):
        assert History(tmp_path, config, events=events).digest == digest
