"""Variants trained alike and measured alike: from configs to the table, stopped and gone on."""

import json
from pathlib import Path

import pytest

from codec.errors import ConfigError
from codec.video.synthetic import write_synthetic
from eval.ablation import check_fair, jobs_of, run_job, summarise, table
from lgmc.main import main

DEBUG = Path(__file__).parents[2] / "configs" / "debug.yaml"
BUDGET = 14
COST = ["training.data.synthetic=true", "training.data.paths=[]"]


def config(folder: Path, name: str, text: str = "") -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(f"base: {DEBUG}\n{text}")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "clips").mkdir()
    write_synthetic("pan", folder / "clips" / "pan.y4m", 64, 48, 4, seed=1)
    return folder


@pytest.fixture(scope="module")
def configs(place) -> list[Path]:
    attention = "model: {inter: {compensation: [local, global]}}\n"
    return [config(place, "plain"), config(place, "attentive", attention)]


def work(jobs, place, done):
    for job in jobs:
        run_job(
            job,
            budget=BUDGET,
            overrides=COST,
            sequences=place / "clips",
            frames=3,
            intra_period=32,
            qualities=(0, 20, 40, 63),
            report=done.append,
        )


def test_variants_are_trained_measured_and_compared(place, configs):
    jobs = jobs_of(configs, [0, 1], place / "runs")
    assert [j.folder.name for j in jobs] == ["plain-0", "attentive-0", "plain-1", "attentive-1"]
    check_fair(jobs, BUDGET, COST)
    lines: list[str] = []
    work(jobs[:2], place, lines)
    rows = summarise(jobs)
    assert [row.variant for row in rows] == ["plain", "attentive"]
    assert rows[0].rates == {} and set(rows[1].rates) <= {0}
    assert rows[1].stages == ("local", "global")
    assert rows[1].decoder > rows[0].decoder and rows[1].parameters > rows[0].parameters
    assert len(table(rows)) == 3
    # The same steps for both, and nothing is done twice.
    metrics = [
        [json.loads(line) for line in (job.folder / "metrics.jsonl").read_text().splitlines()]
        for job in jobs[:2]
    ]
    assert [max(r.get("step", 0) for r in rows) for rows in metrics] == [BUDGET, BUDGET]
    before = [job.results.stat().st_mtime_ns for job in jobs[:2]]
    lines.clear()
    work(jobs[:2], place, lines)
    assert lines == ["plain-0: done before", "attentive-0: done before"]
    assert [job.results.stat().st_mtime_ns for job in jobs[:2]] == before


def test_the_command_shares_jobs_out_and_prints_the_table(place, configs, capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    out = place / "shared"
    arguments = ["ablate", *map(str, configs), "--budget", str(BUDGET), "--out", str(out)]
    arguments += ["--data", str(place / "clips"), "--sequences", str(place / "clips")]
    arguments += ["--set", "training.data.synthetic=true", "--set", "training.data.paths=[]"]
    assert main([*arguments, "--frames", "2", "--json"]) == 0
    shown = capsys.readouterr()
    assert [row["variant"] for row in json.loads(shown.out)] == ["attentive"]
    assert "1 jobs" in shown.err and not (out / "plain-0").exists()


def test_unfair_variants_are_refused(place, configs):
    longer = config(place, "longer", "training: {precision: bfloat16}\n")
    with pytest.raises(ConfigError, match="training.precision"):
        check_fair(jobs_of([configs[0], longer], [0], place), BUDGET, COST)
    with pytest.raises(ConfigError, match="at least two"):
        jobs_of(configs[:1], [0], place)
    with pytest.raises(ConfigError, match="named plain"):
        jobs_of([configs[0], configs[0]], [0], place)
