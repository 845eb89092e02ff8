"""Runs side by side: what differs, what was validated, and a picture of it."""

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

from codec.errors import ConfigError
from codec.training.history import find_runs, read_history
from eval.results import ResultsError
from eval.runs import compare_lines, compare_runs, list_lines, row_of, short_names
from eval.runs_plot import plot_runs


def write_run(folder: Path, lr: float, losses: list[float], validations: dict, **model) -> Path:
    folder.mkdir(parents=True)
    stages = [{"name": "first", "steps": 4, "lr": lr}, {"name": "second", "steps": 2, "lr": 1.0}]
    config = {"name": "x", "model": {"sizes": [1, 2], **model}, "training": {"stages": stages}}
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    records: list[dict] = [{"event": "start", "step": 0, "host": "elsewhere"}]
    for step, loss in enumerate(losses, 1):
        stage = "first" if step <= 4 else "second"
        records.append({"step": step, "stage": stage, "loss": loss, "steps_per_second": 2.0})
        if step in validations:
            values = {"q8/P/bpp": 0.5, "q8/P/psnr": 30.0, "loss": validations[step]}
            records.append({"step": step, "validation": values})
    if len(losses) == 6:
        records.append({"event": "exported", "step": 6, "digest": "ab" * 16})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    return folder


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "a", 0.1, [4, 3, 2, 1, 9, 8], {4: 0.5, 6: 0.4}, window=5, refine=None)
    write_run(tmp_path / "deep" / "b", 0.2, [5, float("nan"), 3], {3: 0.7}, window=5, new=True)
    write_run(tmp_path / "deep" / "none", 0.1, [], {})
    return [read_history(tmp_path / name) for name in ("a", "deep/b", "deep/none")]


def test_the_list(runs, tmp_path):
    rows = {row["name"]: row for row in (row_of(one, tmp_path) for one in find_runs(tmp_path))}
    assert set(rows) == {"a", "deep/b", "deep/none"}
    assert (rows["a"]["state"], rows["a"]["step"], rows["a"]["total"]) == ("finished", 6, 6)
    assert rows["a"]["stage"] == "second" and rows["a"]["validation_loss"] == 0.4
    assert (rows["deep/b"]["state"], rows["deep/b"]["known_by"]) == ("running", "time")
    assert rows["deep/b"]["steps_per_second"] == 2.0
    assert rows["deep/none"]["stage"] is None and rows["deep/none"]["validation_loss"] is None
    lines = {line.split()[0]: line.split() for line in list_lines(list(rows.values()))}
    assert lines["a"][:7] == ["a", "finished", "6", "6", "second", "2.00", "0.40000"]
    assert lines["deep/b"][1] == "running?"
    assert row_of(runs[1], tmp_path / "deep" / "b")["name"] == "b"


def test_only_keys_that_differ_are_compared(runs):
    comparison = compare_runs(runs[:2])
    assert comparison["differences"] == {
        "model.new": [None, True],
        "training.stages.0.lr": [0.1, 0.2],
    }
    assert list(comparison["differences"]) == ["model.new", "training.stages.0.lr"]
    assert compare_runs([runs[0], runs[0]])["differences"] == {}


def test_validations_and_figures_stand_side_by_side(runs):
    comparison = compare_runs(runs)
    assert comparison["validation"] == {
        3: [None, 0.7, None],
        4: [0.5, None, None],
        6: [0.4, None, None],
    }
    assert comparison["last"] == {"q8/P/bpp": [0.5, 0.5, None], "q8/P/psnr": [30.0, 30.0, None]}
    figures = comparison["figures"]
    assert figures["steps"] == [6, 3, 0] and figures["seconds"] == [3.0, 1.5, 0.0]
    assert figures["training_loss"] == [8, 3, None]
    assert figures["digest"] == ["ab" * 16, None, None]
    text = "\n".join(compare_lines(comparison))
    for words in ("training.stages.0.lr", "step 4", "0.50000", "q8 P dB", "abababababab"):
        assert words in text
    assert "none of them was validated" in "\n".join(compare_lines(compare_runs([runs[2]] * 2)))


def test_names_are_as_long_as_they_must_be():
    assert short_names(["runs/a", "runs/b"]) == ["a", "b"]
    assert short_names(["x/a", "y/a"]) == ["x/a", "y/a"]
    assert short_names(["x/a", "x/a"]) == ["a", "a"]


@pytest.mark.parametrize("chosen", [(0, 1, 2), (1,), (0, 2)])
def test_curves_are_drawn(runs, tmp_path, chosen):
    target = tmp_path / "runs.png"
    plot_runs([runs[number] for number in chosen], target)
    with Image.open(target) as image:
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20)}
    for number in range(len(chosen)):
        wanted = [(0, 114, 178), (213, 94, 0), (0, 158, 115)][number]
        assert wanted in colours  # at least the legend's line


def test_what_cannot_be_drawn(runs, tmp_path):
    with pytest.raises(ConfigError, match=".png, .svg or .pdf"):
        plot_runs(runs, tmp_path / "runs.txt")
    with pytest.raises(ConfigError, match="nothing to draw"):
        plot_runs(runs[2:], tmp_path / "runs.png")
    with pytest.raises(ResultsError, match="cannot be written"):
        plot_runs(runs, tmp_path / "none" / "runs.png")
