"""Variants trained alike and measured alike: from configs to the table, stopped and gone on."""

import json
from pathlib import Path

import pytest

from codec.config import load_experiment
from codec.errors import ConfigError
from codec.video.synthetic import write_synthetic
from eval.ablation import Row, check_fair, jobs_of, run_job, summarise, table, take_device
from eval.results import save_results
from lgmc.main import main
from tests.eval.conftest import made_up

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


def test_the_command_shares_jobs_out_and_the_first_process_prints(
    place, configs, capsys, monkeypatch
):
    monkeypatch.setenv("WORLD_SIZE", "2")
    out = place / "shared"
    arguments = ["ablate", *map(str, configs), "--budget", str(BUDGET), "--out", str(out)]
    arguments += ["--data", str(place / "clips"), "--sequences", str(place / "clips")]
    arguments += ["--set", "training.data.synthetic=true", "--set", "training.data.paths=[]"]
    monkeypatch.setenv("RANK", "1")
    assert main([*arguments, "--frames", "2", "--json"]) == 0
    assert capsys.readouterr().out == "" and not (out / "plain-0").exists()
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr("eval.ablation.run_job", lambda job, **_: None)
    assert main([*arguments, "--frames", "2", "--json"]) == 0
    shown = capsys.readouterr()
    assert [row["variant"] for row in json.loads(shown.out)] == ["attentive"]
    assert "1 jobs" in shown.err


def test_each_process_has_a_gpu_of_its_own(place, configs, monkeypatch):
    taken = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    (job, _) = jobs_of(configs, [0], place / "gpus")
    take_device(job, COST, 1)
    assert taken == []
    take_device(job, [*COST, "training.device=cuda"], 1)
    assert [str(one) for one in taken] == ["cuda:1"]
    with pytest.raises(ConfigError, match="has no GPU of its own"):
        take_device(job, [*COST, "training.device=cuda"], 2)


def test_a_folder_of_clips_may_have_any_name(place, configs, monkeypatch):
    given = []
    monkeypatch.setattr("eval.ablation.check_fair", lambda jobs, budget, overrides: None)
    monkeypatch.setattr(
        "eval.ablation.run_job", lambda job, **options: given.append((job, options))
    )
    arguments = ["ablate", *map(str, configs), "--budget", "14", "--out", str(place / "named")]
    name = "clips, [some]: 'all'"
    assert main([*arguments, "--data", name, "--sequences", str(place / "clips")]) == 0
    job, options = given[0]
    experiment = load_experiment(job.config, options["overrides"])
    assert experiment.training.data.paths == (name,)


def test_a_job_begun_under_other_conditions_is_refused(place, configs, monkeypatch):
    monkeypatch.setattr("codec.training.run.TrainingRun", None)  # nothing is trained here
    (job, _) = jobs_of(configs, [0], place / "begun")
    options = {"budget": BUDGET, "overrides": COST, "sequences": place / "clips", "frames": 3}
    options |= {"intra_period": 32, "qualities": (0, 63), "report": lambda line: None}
    with pytest.raises(TypeError):
        run_job(job, **options)
    assert json.loads(job.conditions.read_text())["frames"] == 3
    save_results(made_up("model-a", {0: (2000, 30.0)}), job.results)
    run_job(job, **options)  # done before
    run_job(job, **{**options, "overrides": [*COST, "training.device=cuda"]})
    more = place / "more"
    more.mkdir()
    write_synthetic("zoom", more / "zoom.y4m", 64, 48, 2)
    others = {
        "experiment.training.stages.0.steps": {"budget": 2 * BUDGET},
        "experiment.training.precision": {"overrides": [*COST, "training.precision=bfloat16"]},
        "sequences": {"sequences": more},
        "frames": {"frames": None},
        "intra_period": {"intra_period": 0},
    }
    for name, other in others.items():
        with pytest.raises(ConfigError, match=f"with another {name}: choose another --out"):
            run_job(job, **{**options, **other})
    job.conditions.unlink()
    with pytest.raises(ConfigError, match="does not say under what it was made"):
        run_job(job, **options)


def test_what_is_trained_on_is_not_measured_on(place, configs):
    (job, _) = jobs_of(configs, [0], place / "mixed")
    linked = place / "linked"
    linked.mkdir()
    (linked / "other-name.y4m").symlink_to(place / "clips" / "pan.y4m")
    options = {"budget": BUDGET, "sequences": linked, "frames": 3, "intra_period": 32}
    options |= {"qualities": (0, 63), "report": lambda line: None}
    with pytest.raises(ConfigError, match="other-name.y4m is trained on"):
        run_job(job, overrides=[f"training.data.paths=[{place}]"], **options)
    assert not job.folder.exists()


def test_the_table_says_what_there_is_no_figure_of():
    figures = ("local",), 1.0, 1.0, 1.0
    first = Row("plain", *figures, anchor=True)
    whole = Row("whole", *figures, encode_fps=2.0, decode_fps=4.0, rates={0: -1.0, 1: -3.0})
    partial = Row("partial", *figures, rates={0: -1.0, 1: None})
    unmeasured = Row("unmeasured", *figures)
    lines = table([first, whole, partial, unmeasured])
    assert "anchor" in lines[1] and "2.0  4.0" in lines[2] and "-2.00 %" in lines[2]
    for line in lines[3:]:
        assert "none" in line and "anchor" not in line and "%" not in line
    assert partial.mean is None and partial.spread is None


def test_a_mean_is_of_all_clips_or_none(place, configs, monkeypatch):
    ours = {0: (2000, 30.0), 21: (4000, 33.0), 42: (8000, 36.0), 63: (16000, 39.0)}
    jobs = jobs_of(configs, [0], place / "partial")
    one = made_up("model-a", ours)
    lacking = [p for p in one.points if (p.sequence, p.level) != ("second_clip", 0)]
    for job, points in zip(jobs, (one.points, lacking), strict=True):
        job.folder.mkdir(parents=True)
        save_results(one.model_copy(update={"points": points}), job.results)
    monkeypatch.setattr("eval.ablation._row", lambda job: Row(job.variant, (), 1.0, 1.0, 1.0))
    rows = summarise(jobs)
    assert [row.anchor for row in rows] == [True, False]
    assert rows[1].rates == {0: None}
    assert rows[0].encode_fps is None


def test_unfair_variants_are_refused(place, configs):
    longer = config(place, "longer", "training: {precision: bfloat16}\n")
    with pytest.raises(ConfigError, match="training.precision"):
        check_fair(jobs_of([configs[0], longer], [0], place), BUDGET, COST)
    with pytest.raises(ConfigError, match="at least two"):
        jobs_of(configs[:1], [0], place)
    with pytest.raises(ConfigError, match="named plain"):
        jobs_of([configs[0], configs[0]], [0], place)
