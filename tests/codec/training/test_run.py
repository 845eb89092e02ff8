"""A run from end to end on clips it makes itself; resume is exact."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codec.config import load_experiment
from codec.entropy.coders import RateModel
from codec.errors import ConfigError, TrainingError
from codec.models import load
from codec.training.checkpoint import save_checkpoint
from codec.training.data import Batch
from codec.training.run import TrainingRun
from codec.video_codec import VideoCodec

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


def test_a_folder_of_another_model_is_refused(finished, cache):
    with pytest.raises(ConfigError, match="another model"):
        TrainingRun(experiment(cache, "model.intra.latent=8"), finished)


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
