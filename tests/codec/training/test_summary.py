"""The page that a run ends with says what its log says."""

import json
import shutil

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from codec.models import load
from codec.training.history import FINISHED, History, read_history
from codec.training.summary import as_text, duration, stage_losses, summarise, write_summary
from lgmc.main import build_parser


def test_the_summary_of_a_run(watched_run):
    summary = json.loads((watched_run / "summary.json").read_text())
    assert (summary["run"], summary["steps"], summary["of"]) == ("watched", 12, 12)
    assert [stage["name"] for stage in summary["stages"]] == ["intra", "flow", "motion", "cascade"]
    logged = {line["step"]: line["loss"] for line in read_history(watched_run).lines}
    assert [stage["begin"] for stage in summary["stages"]] == [logged[s] for s in (1, 5, 7, 9)]
    assert [stage["end"] for stage in summary["stages"]] == [logged[s] for s in (4, 6, 8, 12)]
    assert [summary["validation"][end]["step"] for end in ("first", "last")] == [8, 12]
    model = load(summary["model"])
    assert summary["digest"] == model.digest.hex()
    assert summary["skipped"] == 0 and summary["sessions"] == 1 and summary["seconds"] > 0
    assert summary["began"] <= summary["ended"]
    text = (watched_run / "summary.md").read_text()
    for words in ("# watched", summary["digest"], "| cascade", "| q24 P", summary["next"]):
        assert words in text


def test_the_next_command_parses(watched_run):
    words = json.loads((watched_run / "summary.json").read_text())["next"].split()
    options = build_parser().parse_args(words[1:])
    assert options.model == [str(watched_run / "model.safetensors")]


def test_it_is_printed_and_counts_sessions(watched_run, tmp_path, capsys):
    from codec.config import load_experiment
    from codec.training.run import TrainingRun

    folder = shutil.copytree(watched_run, tmp_path / "again")
    before = (folder / "summary.md").read_text()
    experiment = load_experiment(folder / "config.yaml")
    TrainingRun(experiment, folder).train()  # nothing is left to do
    after = (folder / "summary.md").read_text()
    assert read_history(folder).state()[0] == FINISHED
    assert f"weights: {read_history(watched_run).digest}" in after
    assert capsys.readouterr().out.endswith(after + "\n")
    assert "2 sessions" in after and "1 session" in before
    # What the first session showed at the step the second one began with is still shown.
    board = EventAccumulator(str(folder / "tensorboard"))
    board.Reload()
    assert [one.step for one in board.Scalars("validation/loss")] == [8, 12]


def test_a_run_without_validation_or_lines(tmp_path):
    empty = History(tmp_path, {})
    text = "\n".join(as_text(summarise(empty)))
    assert "No validation" in text and "steps: 0" in text


def test_losses_of_stages_leave_out_what_is_not_a_number(tmp_path):
    losses = [float("nan"), 3.0, *[2.0] * 17, 1.0]
    lines = [{"step": n + 1, "stage": "a", "loss": loss} for n, loss in enumerate(losses)]
    lines.append({"step": 21, "stage": "b", "loss": float("nan")})
    first, second = stage_losses(History(tmp_path, {}, lines))
    assert (first["begin"], first["end"], first["until"]) == (3.0, 1.5, 20)
    assert (second["begin"], second["end"]) == (None, None)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(59.4, "59 s"), (200, "3 min 20 s"), (18180, "5 h 03 min"), (187200, "2 d 4 h")],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_tensorboard_has_pictures_and_histograms_of_every_validation(watched_run):
    board = EventAccumulator(str(watched_run / "tensorboard"), size_guidance={"images": 0})
    board.Reload()
    tags = board.Tags()
    assert {"look/frame", "look/reconstruction", "look/flow"} <= set(tags["images"])
    assert {"look/bits_motion", "look/bits_residual"} <= set(tags["images"])
    assert [one.step for one in board.Images("look/flow")] == [8, 12]
    parts = {"intra", "motion", "residual"}
    symbols = {f"symbols/{part}{end}" for part in parts for end in ("", "_hyper")}
    assert symbols & set(tags["histograms"]) >= {f"symbols/{part}_hyper" for part in parts}
    assert {f"log2_scale/{part}" for part in parts} <= set(tags["histograms"])
    assert "look/longest_flow" in tags["scalars"]
    with pytest.raises(KeyError):
        board.Histograms("log2_scale/motion_hyper")


def test_a_summary_is_written_whole_again(watched_run):
    before = json.loads((watched_run / "summary.json").read_text())
    assert write_summary(watched_run) == (watched_run / "summary.md").read_text()
    assert json.loads((watched_run / "summary.json").read_text()) == before
