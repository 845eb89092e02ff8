"""A run from end to end on clips it makes itself; resume is exact."""

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from codec.config import load_experiment
from codec.entropy.coders import RateModel
from codec.errors import ConfigError, ModelError, TrainingError
from codec.models import available, load
from codec.training.checkpoint import load_weights, save_checkpoint
from codec.training.data import Batch
from codec.training.run import TrainingRun
from codec.video_codec import VideoCodec
from train_codec import main

ROOT = Path(__file__).parents[3]
DEBUG = ROOT / "configs" / "debug.yaml"


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("cache")


def experiment(cache: Path, *overrides: str):
    return load_experiment(DEBUG, [f"training.data.cache={cache}", *overrides])


def weights(folder: Path) -> dict[str, torch.Tensor]:
    last = sorted((folder / "checkpoints").glob("step_*"))[-1]
    return load_file(last / "weights.safetensors")


def logged(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(cache, tmp_path_factory) -> Path:
    """A run that nothing interrupted."""
    folder = tmp_path_factory.mktemp("runs") / "whole"
    TrainingRun(experiment(cache), folder).train()
    return folder


def test_run_folder_is_complete(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"config.yaml", "environment.json", "metrics.jsonl", "tensorboard"} <= names
    records = logged(finished)
    steps = [r["step"] for r in records if "loss" in r]
    assert steps == list(range(1, 13))
    assert any("validation" in r for r in records)
    last = [r for r in records if "loss" in r][-1]
    assert set(last["bpp"]) == {"intra", "motion", "motion_hyper", "residual", "residual_hyper"}
    assert set(last["psnr"]) == {"intra", "inter", "warp"}
    assert last["clips_per_second"] == pytest.approx(2 * last["steps_per_second"])
    (data,) = [r for r in records if r.get("event") == "data"]
    assert data["cuts"] == 0 and data["left_out"] == {}


def test_exported_model_codes(finished):
    model = load(finished / "model.safetensors")
    assert model.codec.has_tables
    assert model.card["steps"] == 12
    assert model.card["data"]["held_out"] and model.card["data"]["names"]
    assert not set(model.card["data"]["held_out"]) & set(model.card["data"]["names"])


@pytest.mark.parametrize("stop", [3, 7])
def test_resumed_run_ends_with_the_same_weights(finished, cache, tmp_path, stop):
    folder = tmp_path / "resumed"
    TrainingRun(experiment(cache), folder).train(stop_at=stop)
    TrainingRun(experiment(cache), folder).train()
    expected, got = weights(finished), weights(folder)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_killed_run_resumes_exactly(finished, cache, tmp_path):
    """SIGKILL somewhere after a checkpoint: what was done since is done again, alike."""
    folder = tmp_path / "killed"
    command = [sys.executable, str(ROOT / "train_codec.py"), str(DEBUG), "--out", str(folder)]
    command.append(f"training.data.cache={cache}")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    checkpoints = folder / "checkpoints"
    deadline = time.time() + 120
    while process.poll() is None and not list(checkpoints.glob("step_*")):
        assert time.time() < deadline, "no checkpoint appeared"
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    expected, got = weights(finished), weights(folder)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    records = logged(folder)
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 13))


def test_a_folder_that_cannot_be_made_is_one_line(cache, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/inside"):
        command = [str(DEBUG), f"training.data.cache={cache}", "--out", str(tmp_path / out)]
        assert main(command) == 1
        err = capsys.readouterr().err
        assert err.startswith(f"train_codec: the folder {tmp_path}") and err.count("\n") == 1


def test_worker_processes_change_nothing(finished, cache, tmp_path):
    folder = tmp_path / "workers"
    TrainingRun(experiment(cache, "training.data.workers=1"), folder).train()
    expected, got = weights(finished), weights(folder)
    assert all(torch.equal(expected[name], got[name]) for name in expected)


def test_only_the_stages_parts_learn(cache, tmp_path):
    run = TrainingRun(experiment(cache), tmp_path / "parts")
    before = {k: v.clone() for k, v in run.codec.state_dict().items()}
    run.train(stop_at=4)  # the first stage trains the intra codec
    after = {k: v.clone() for k, v in run.codec.state_dict().items()}
    changed = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert changed == {"intra"}
    run.train(stop_at=8)  # the next two flow, then flow and motion
    then = run.codec.state_dict()
    changed = {".".join(k.split(".")[:2]) for k in after if not torch.equal(after[k], then[k])}
    assert changed == {"inter.flow", "inter.motion"}


def test_parameters_start_from_another_model(finished, cache, tmp_path):
    init = finished / "model.safetensors"
    run = TrainingRun(experiment(cache, f"training.init={init}"), tmp_path / "init")
    stored = load_file(init)
    name = "intra.encoder.enter.weight"
    assert torch.equal(run.codec.state_dict()[name], stored[name].float())


def test_weights_of_a_model_that_ships_go_by_its_name(cache, tmp_path, monkeypatch):
    with pytest.raises(ModelError, match="no model 'lit': those that ship are lite"):
        TrainingRun(experiment(cache, "training.init=lit"), tmp_path / "lit")
    taken = []
    monkeypatch.setattr(
        "codec.training.run.load_weights", lambda file, *_: taken.append(file) or []
    )
    TrainingRun(experiment(cache, "training.init=lite"), tmp_path / "lite")
    assert taken == [available()["lite"]]


def test_a_folder_of_another_model_is_refused(finished, cache):
    with pytest.raises(ConfigError, match="another model"):
        TrainingRun(experiment(cache, "model.intra.latent=8"), finished)


def test_a_run_from_before_a_key_goes_on(cache, tmp_path):
    """A key that is missing from the folder's configuration is at its default."""
    run = TrainingRun(experiment(cache), tmp_path)
    run.train(stop_at=1)
    described = yaml.safe_load((tmp_path / "config.yaml").read_text())
    del described["model"]["intra"]["entropy"]["pass_width"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(described))
    assert TrainingRun(experiment(cache), tmp_path).step == 1


def test_a_finished_run_stays_as_it_is(finished, cache):
    before = (finished / "model.safetensors").read_bytes()
    TrainingRun(experiment(cache), finished).train()
    assert (finished / "model.safetensors").read_bytes() == before
    assert load(finished / "model.safetensors").card["validation"]["loss"] > 0


def test_a_run_killed_before_its_export_validates_and_exports(finished, cache, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(finished, folder)
    (folder / "model.safetensors").unlink()
    TrainingRun(experiment(cache), folder).train()
    card, whole = (load(f / "model.safetensors").card for f in (folder, finished))
    assert card["validation"] == pytest.approx(whole["validation"])


def test_a_run_that_is_going_on_keeps_its_configuration(cache, tmp_path, monkeypatch):
    TrainingRun(experiment(cache), tmp_path).train(stop_at=1)
    before = (tmp_path / "config.yaml").read_text()
    monkeypatch.setattr("codec.training.log.take", refuse)
    with pytest.raises(TrainingError, match="another process"):
        TrainingRun(experiment(cache, "training.clip_norm=2"), tmp_path).train()
    assert (tmp_path / "config.yaml").read_text() == before


def refuse(_):
    raise TrainingError("another process is training in this folder")


@pytest.mark.parametrize(
    ("stage", "says"),
    [
        ("{name: long, frames: 14, steps: 1}", "stage long: no clip has 14 frames"),
        ("{name: wide, frames: 2, steps: 1, crop: 256}", "stage wide: no clip has 2 frames"),
        ("{name: odd, frames: 2, steps: 1, crop: 72}", "stage odd: a crop of 72"),
        ("{name: lone, frames: 1, train: [inter], steps: 1}", "frames: 1 is an I frame"),
        ("{name: new, frames: 1, train: [second_pass], steps: 1}", "model has no second_pass"),
        (
            "{name: new, frames: 2, train: [second_pass], loss: motion_rd, steps: 1}",
            "nothing that learns from loss motion_rd",
        ),
    ],
)
def test_a_stage_that_cannot_be_run_is_refused_at_the_start(cache, tmp_path, stage, says):
    first = "{name: intra, train: [intra], frames: 1, steps: 1}"
    with pytest.raises(ConfigError, match=says):
        TrainingRun(experiment(cache, f"training.stages=[{first}, {stage}]"), tmp_path)


def test_a_chain_of_another_batch_begins_anew(cache, tmp_path):
    stage = "{name: chain, frames: 3, steps: 4, chain: 8, batch: %d}"
    run = TrainingRun(experiment(cache, f"training.stages=[{stage % 2}]"), tmp_path)
    run.train(stop_at=2)
    assert TrainingRun(run.experiment, tmp_path).learner.carried
    other = TrainingRun(experiment(cache, f"training.stages=[{stage % 3}]"), tmp_path)
    assert other.learner.carried is None
    other.train()
    assert other.step == 4


def test_a_run_that_goes_on_otherwise_says_so(cache, tmp_path, capsys):
    TrainingRun(experiment(cache), tmp_path).train(stop_at=1)
    TrainingRun(experiment(cache), tmp_path).train(stop_at=2)
    assert "changed" not in capsys.readouterr().out
    other = experiment(cache, "training.seed=5", "training.data.crop=96")
    TrainingRun(other, tmp_path).train(stop_at=3)
    lines = [line for line in capsys.readouterr().out.splitlines() if "changed" in line]
    said = "changed since the run's last start: training."
    assert lines == [f"{said}seed was 0, is 5", f"{said}data.crop was 64, is 96"]


def test_weight_decay_is_the_configured_one_after_a_resume(cache, tmp_path):
    TrainingRun(experiment(cache), tmp_path).train(stop_at=1)
    run = TrainingRun(experiment(cache, "training.weight_decay=0.3"), tmp_path)
    assert {group["weight_decay"] for group in run.optimizer.param_groups} == {0.3}


def test_a_text_of_fresh_that_fits_nothing_is_refused(finished, cache, tmp_path):
    init = f"training.init={finished / 'model.safetensors'}"
    with pytest.raises(ModelError, match="hyper_encodr"):
        TrainingRun(experiment(cache, init, "training.fresh=[hyper_encodr]"), tmp_path)


def test_a_checkpoint_gives_what_the_exported_model_gives(cache, tmp_path):
    """The average where there is one, and tables by quality moved to the child's lambdas."""
    TrainingRun(experiment(cache, "training.ema=0.9"), tmp_path / "parent").train()
    last = sorted((tmp_path / "parent" / "checkpoints").glob("step_*"))[-1]
    settings = experiment(cache, "model.lambda_min=256", "model.lambda_max=16384")
    one, other = VideoCodec(settings.model), VideoCodec(settings.model)
    load_weights(last, one)
    load_weights(tmp_path / "parent" / "model.safetensors", other)
    for name, value in one.named_parameters():  # the model has half the precision
        close = torch.allclose(value, other.get_parameter(name), rtol=2e-3, atol=1e-4)
        assert close or name.endswith("quantiles"), name
    moved = [name for name, _ in one.named_parameters() if name.endswith("log_gain")]
    raw = load_file(last / "average.safetensors")
    assert moved and not any(torch.equal(one.get_parameter(name), raw[name]) for name in moved)


@pytest.mark.parametrize(
    "key", ["log_every=0", "validate_every=0", "stages.0.batch=0", "threads=0"]
)
def test_values_out_of_range_are_refused(cache, key):
    with pytest.raises(ConfigError, match=key.split("=")[0]):
        experiment(cache, f"training.{key}")


@pytest.mark.parametrize(
    "place",
    ["safetensors.torch.save_file", "codec.training.checkpoint.torch.save", "os.replace"],
)
def test_full_disk_leaves_the_last_checkpoint(cache, tmp_path, monkeypatch, place):
    run = TrainingRun(experiment(cache, "training.ema=0.9"), tmp_path / "full")
    run.train(stop_at=4)
    good = weights(run.folder)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place, full)
    with pytest.raises(TrainingError, match="No space .* give the same command again"):
        run.train(stop_at=6)
    monkeypatch.undo()
    assert [p.name for p in (run.folder / "checkpoints").iterdir()] == ["step_00000004"]
    assert all(torch.equal(good[name], value) for name, value in weights(run.folder).items())
    resumed = TrainingRun(experiment(cache), run.folder)
    assert resumed.step == 4


@pytest.mark.parametrize("largest", ["weights", "trainer"])
def test_files_that_cannot_be_written_whole(cache, tmp_path, largest):
    """The system refuses to write on: safetensors and torch each have an error of their own."""
    codec = VideoCodec(experiment(cache).model)
    few = torch.nn.Linear(1, 1)
    save_checkpoint(tmp_path, codec, {"step": 1}, 1)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(TrainingError, match="step_00000002: the checkpoint cannot be written"):
            if largest == "weights":
                save_checkpoint(tmp_path, codec, {"step": 2}, 2)
            else:
                save_checkpoint(tmp_path, few, {"optimizer": torch.rand(100_000)}, 2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_what_a_killed_run_was_writing_goes(cache, tmp_path):
    (tmp_path / ".writing_1").mkdir()
    (tmp_path / ".writing_1" / "weights.safetensors").write_bytes(b"half")
    save_checkpoint(tmp_path, torch.nn.Linear(1, 1), {}, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step_00000001"]


def test_the_two_newest_checkpoints_are_kept(tmp_path):
    for step in (2, 9, 10, 100):
        save_checkpoint(tmp_path, torch.nn.Linear(1, 1), {}, step)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["step_00000010", "step_00000100"]


def test_steps_that_are_not_finite_are_skipped_and_counted(cache, tmp_path):
    run = TrainingRun(experiment(cache), tmp_path / "nan")
    before = {k: v.clone() for k, v in run.codec.named_parameters()}
    from codec.training.schedule import position, set_trained_parts

    stage = position(run.config.stages, 0).stage
    trained = set_trained_parts(run.codec, stage)
    batch = Batch(torch.full((2, 1, 3, 64, 64), float("nan")))
    run.learner.begin(stage, trained)
    run.learner.learn(batch, 0, 1e-3)
    assert run.learner.skipped == 1
    assert all(torch.equal(before[k], v) for k, v in run.codec.named_parameters())


def test_steps_that_were_skipped_are_counted_over_sessions(cache, tmp_path):
    run = TrainingRun(experiment(cache), tmp_path / "nan")
    run.learner.skipped = 1  # as if a step had been
    run.train(stop_at=2)
    assert TrainingRun(experiment(cache), tmp_path / "nan").learner.skipped == 1


def test_a_run_that_skips_every_step_stops_and_says_so(cache, tmp_path):
    slow = ("training.log_every=10", "training.validate_every=100")
    run = TrainingRun(experiment(cache, *slow), tmp_path / "lost")
    with torch.no_grad():
        for part in (run.codec.intra, run.codec.inter.flow):
            next(part.parameters()).fill_(float("nan"))
    with pytest.raises(TrainingError, match="10 of the last 10 steps"):
        run.train()
    assert run.learner.skipped == 10


def test_a_child_of_a_half_precision_model_can_learn(cache, tmp_path):
    """The bound of likelihoods, 1e-9, is 0 in float16: far-off symbols would cost infinite bits."""
    parent = TrainingRun(experiment(cache), tmp_path / "parent")
    parent.export(tmp_path / "parent.safetensors", {})
    init = f"training.init={tmp_path / 'parent.safetensors'}"
    child = TrainingRun(experiment(cache, init), tmp_path / "child")
    loaded = load(tmp_path / "parent.safetensors").codec
    for codec in (child.codec, loaded):
        prior = codec.intra.prior
        bits = RateModel()
        bits.code(torch.full((1, 1, 1, 1), 900.0), torch.zeros(1, 1, 1, 1), prior, "far")
        assert torch.isfinite(bits.bits["far"]).all()
    for name, value in parent.codec.named_buffers():
        if "bound" in name:
            assert torch.equal(value, loaded.get_buffer(name)), name


def test_a_schedule_is_fitted_to_the_time_there_is(cache, tmp_path):
    from codec.training.calibrate import fit_schedule, share_time, step_seconds

    probe = TrainingRun(experiment(cache), tmp_path / "probe")
    seconds = step_seconds(probe, warm_up=1, steps=2)
    assert len(seconds) == len(probe.config.stages) and min(seconds) > 0
    costs = [0.1 * (number + 1) for number in range(len(seconds))]
    planned = sum(c * s.steps for c, s in zip(costs, probe.config.stages, strict=True))
    fitted = fit_schedule(probe.experiment, costs, 10 * planned)
    assert [s.steps for s in fitted.training.stages] == [10 * s.steps for s in probe.config.stages]
    shared = fit_schedule(share_time(fitted, costs, [1, 2, 1, 4]), costs, 80.0)
    times = [c * s.steps for c, s in zip(costs, shared.training.stages, strict=True)]
    assert times == pytest.approx([10, 20, 10, 40], rel=0.05)
    with pytest.raises(ConfigError, match="3 shares"):
        share_time(fitted, costs, [1, 2, 3])
    with pytest.raises(ConfigError, match="no step for a stage"):
        fit_schedule(probe.experiment, costs, 0.01 * planned)


def test_fresh_parts_are_not_taken_from_the_initial_weights(cache, tmp_path):
    parent = TrainingRun(experiment(cache), tmp_path / "parent")
    parent.train(stop_at=1)
    parent.export(tmp_path / "parent.safetensors", {})
    child = TrainingRun(
        experiment(cache, f"training.init={tmp_path / 'parent.safetensors'}", "training.seed=9"),
        tmp_path / "child",
    )
    part = TrainingRun(
        experiment(
            cache,
            f"training.init={tmp_path / 'parent.safetensors'}",
            "training.seed=9",
            "training.fresh=[hyper_decoder]",
        ),
        tmp_path / "part",
    )
    for name, value in child.codec.named_parameters():
        same = torch.equal(value, part.codec.get_parameter(name))
        assert same != ("hyper_decoder" in name), name


def test_a_stage_that_searches_resumes_exactly_and_differs(cache, tmp_path):
    """What the search finds and which samples take it depend on seed and step alone."""
    stage = "{name: all, train: [all], frames: 2, loss: all, steps: 4, lr: 1e-3, searched: %s}"

    def losses(folder: str, searched: float, *stops: int) -> list[float]:
        stages = f"training.stages=[{stage % searched}]"
        settings = experiment(cache, "model.inter.motion.refine={}", stages)
        for stop in (*stops, None):
            TrainingRun(settings, tmp_path / folder).train(stop_at=stop)
        return [r["loss"] for r in logged(tmp_path / folder) if "loss" in r]

    whole = losses("whole", 0.5)
    assert losses("stopped", 0.5, 2) == whole
    assert losses("net", 0.0) != whole
