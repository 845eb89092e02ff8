"""`lgmc runs`: the list, the comparison and the picture, for people and for programs."""

import json

import pytest

from lgmc.main import main


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder ``runs`` with two runs and half a line, and something else."""
    monkeypatch.chdir(tmp_path)
    for name, lr in (("a", 0.1), ("b", 0.2)):
        run = tmp_path / "runs" / name
        run.mkdir(parents=True)
        stages = f"[{{name: all, steps: 30, lr: {lr}}}]"
        (run / "config.yaml").write_text(f"model: {{}}\ntraining: {{stages: {stages}}}\n")
        lines = [
            {"event": "start", "step": 0},
            {"step": 10, "stage": "all", "loss": 0.5, "steps_per_second": 1.0},
            {"step": 20, "stage": "all", "loss": float("nan"), "steps_per_second": 1.0},
        ]
        text = "".join(json.dumps(one) + "\n" for one in lines)
        (run / "metrics.jsonl").write_text(text + '{"step": 30, "sta')
    (tmp_path / "runs" / "other").mkdir()
    (tmp_path / "runs" / "other" / "metrics.jsonl").write_text("not ours\n")
    return tmp_path


def test_list(folder, capsys):
    assert main(["runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[0] for line in lines[1:]) == ["a", "b"]
    assert main(["runs", "runs/b", "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)
    assert (row["name"], row["step"], row["total"]) == ("b", 20, 30)
    (folder / "empty").mkdir()
    assert main(["runs", "empty"]) == 0
    assert "no training run in empty" in capsys.readouterr().out


def test_compare(folder, capsys):
    assert main(["runs", "compare", "runs/a", "runs/b"]) == 0
    assert "training.stages.0.lr" in capsys.readouterr().out
    assert main(["runs", "compare", "runs/a", "runs/b", "--json"]) == 0
    found = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)
    assert found["differences"] == {"training.stages.0.lr": [0.1, 0.2]}


def test_plot(folder, capsys):
    assert main(["runs", "plot", "runs/a", "runs/b", "-o", "curves.png"]) == 0
    assert capsys.readouterr().out == "written: curves.png\n"
    assert (folder / "curves.png").stat().st_size > 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none"], "no such folder"),
        ([], "runs: there is no such folder"),
        (["one", "two"], "only one folder"),
        (["compare", "one"], "two runs or more"),
        (["compare", "one", "two"], "one: there is no such folder"),
        (["plot", "-o", "x.png"], "plot needs"),
        (["plot", "one"], "-o FILE.png"),
    ],
)
def test_bad_input(refuses, words, says):
    refuses(["runs", *words], says)
