"""scripts/gpu_train.py, as far as it needs no GPU: what diverges, and what takes longer."""

import importlib.util
import time
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from codec.config import load_experiment
from codec.errors import Diverged
from codec.models import load
from codec.training.calibrate import fit_schedule, slower
from codec.training.data import Batch
from codec.training.step import Learner

from ..conftest import CONFIGS

SCRIPT = CONFIGS.parent / "scripts" / "gpu_train.py"
STAGES = """[
 {name: intra, train: [intra], frames: 1, loss: all, steps: 10, lr: 1e-3},
 {name: inter, train: [inter], frames: 2, loss: all, steps: 10, lr: 4e-3, lr_end: 2e-3},
 {name: last, train: [inter], frames: 2, loss: all, steps: 10, lr: 1e-3, lr_end: 5e-4},
]"""
SECONDS = [1.0, 1.0, 1.0]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("gpu_train", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def diverges(monkeypatch):
    """Steps of stages above this learning rate give nothing but NaN."""
    learn, limit = Learner.learn, []

    def broken(self, batch: Batch, step: int, lr: float):
        if self._stage.lr > limit[0]:
            batch = batch._replace(clip=torch.full_like(batch.clip, float("nan")))
        return learn(self, batch, step, lr)

    monkeypatch.setattr(Learner, "learn", broken)
    return limit.append


def session(script, folder: Path):
    return script.Session(Namespace(since=time.time(), out=folder / "runs", keep=folder / "kept"))


def experiment():
    # Checkpoints at the ends of stages alone, as the script has them.
    rare = ["training.checkpoint_every=1000000000", "training.validate_every=1000000000"]
    overrides = [f"training.stages={STAGES}", "training.log_every=10", *rare]
    return load_experiment(CONFIGS / "debug.yaml", overrides)


def test_it_goes_on_at_half_the_rate(script, diverges, tmp_path, capsys):
    diverges(1.5e-3)
    run = session(script, tmp_path).train(experiment(), SECONDS, until=138.0)
    # The stage before keeps its rate; those after have learned from it.
    assert [stage.lr for stage in run.config.stages] == pytest.approx([1e-3, 1e-3, 2.5e-4])
    assert run.config.stages[1].lr_end == pytest.approx(5e-4)
    assert run.step == sum(stage.steps for stage in run.config.stages)
    said = capsys.readouterr().out
    assert said.count("inter: 10 of the last 10 steps had") == 2
    assert "once more from 2.0e-03 on" in said and "once more from 1.0e-03 on" in said
    # The first stage was learned once, and what it learned is in what goes on from it.
    assert said.count("debug intra done") == 1 and "debug last done" in said
    kept = load(tmp_path / "kept" / "debug.safetensors")
    for name, value in kept.codec.named_parameters():
        assert torch.isfinite(value).all(), name


def test_a_first_stage_begins_anew(script, diverges, tmp_path):
    diverges(1e-3 / 3)
    run = session(script, tmp_path).train(experiment(), SECONDS, until=138.0)
    assert [stage.lr for stage in run.config.stages] == pytest.approx([2.5e-4, 2.5e-4, 6.25e-5])
    assert run.step == sum(stage.steps for stage in run.config.stages)


def test_it_gives_up(script, diverges, tmp_path):
    diverges(0.0)
    with pytest.raises(Diverged, match="not finite"):
        session(script, tmp_path).train(experiment(), SECONDS, until=138.0)


def test_ends_that_take_longer_shorten_what_is_left(script, tmp_path, monkeypatch):
    """By a clock on which a step takes a second and the end of a stage 20."""
    clock, keep = [0.0], script.Session.keep_model

    def keep_slowly(self, run, result):
        keep(self, run, result)
        clock[0] += run.step - sum(taken) + 20
        taken.append(run.step - sum(taken))

    taken: list[int] = []
    monkeypatch.setattr(script.Session, "elapsed", property(lambda self: clock[0]))
    monkeypatch.setattr(script.Session, "keep_model", keep_slowly)
    ends = 4 * script.END_SECONDS
    run = session(script, tmp_path).train(experiment(), SECONDS, until=120 + ends)
    # The first by the ends that were expected, the others by the one that was seen.
    left = 120 + ends - 40 - 4 * 20
    assert taken == [40, left / 2, left / 2]
    assert clock[0] + 20 == 120 + ends  # the reserve that a last end is given
    assert run.step == sum(taken)
    assert load(tmp_path / "kept" / "debug.safetensors").card["steps"] == sum(taken)


def test_without_an_end_the_schedule_is_taken_as_it_is(script, tmp_path):
    run = session(script, tmp_path).train(experiment(), SECONDS)
    assert [stage.steps for stage in run.config.stages] == [10, 10, 10]


def test_only_what_is_left_is_fitted_and_slowed():
    before = experiment()
    after = fit_schedule(slower(before, 1), [1.0, 2.0, 3.0], 500.0, first=1)
    first, *others = after.training.stages
    assert first == before.training.stages[0]
    assert [stage.steps for stage in others] == [100, 100]  # 100 x (2 + 3) seconds
    assert [stage.lr for stage in others] == pytest.approx([2e-3, 5e-4])
    assert [stage.lr_end for stage in others] == pytest.approx([1e-3, 2.5e-4])
