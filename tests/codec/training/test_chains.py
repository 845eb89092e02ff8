"""Chains: what a step decoded is where the next one goes on."""

import pytest
import torch

from codec.config import load_experiment
from codec.errors import ConfigError
from codec.inter import ReferenceState
from codec.training.data import Batch
from codec.training.loss import clip_loss
from codec.training.run import TrainingRun
from codec.training.step import Learner, make_optimizer
from codec.video_codec import VideoCodec
from tests.codec.training.test_run import DEBUG, experiment, logged, weights

STAGE = "{name: a, train: [all], frames: 3, loss: all, steps: 5, lr: 1e-3, chain: %s, batch: 3}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def chained(cache, chain: int, *more: str):
    return experiment(cache, f"training.stages=[{STAGE % chain}]", "training.log_every=1", *more)


@pytest.mark.parametrize("kind", ["lite", "tcm", "history"])
def test_links_decode_what_the_whole_chain_does(cache, kind):
    """Three frames and two more that go on from there are coded as five in a row."""
    more = {
        "lite": (),
        "tcm": ("model.inter.family=tcm", "model.inter.flow.top=1"),
        "history": ("model.inter.entropy.hyper_history=true",),
    }[kind]
    settings = chained(cache, 4, "training.precision=float32", *more)
    torch.manual_seed(0)
    codec = VideoCodec(settings.model)
    clip = torch.rand(2, 5, 3, 64, 64)
    quality = torch.tensor([12.0, 50.0])
    stage = settings.training.stages[0]

    def coded(batch, carried=None):
        with torch.no_grad():
            return clip_loss(codec, batch, quality, stage, settings.training, carried)

    codec.eval()
    whole = coded(Batch(clip))
    first = coded(Batch(clip[:, :3]))
    going_on = torch.tensor([False, False])
    second = coded(Batch(clip[:, 2:], begins=going_on), first.state.detach())
    for part in ("warp", "inter"):  # rates are not the same twice: noise is in the likelihood
        both = (first.psnr[part] + second.psnr[part]) / 2
        torch.testing.assert_close(both, whole.psnr[part])
    names = dict(whole.state.tensors()).keys()
    assert names == dict(second.state.tensors()).keys()
    assert ({"hypers", "motion_hypers"} <= names) == (kind == "history")
    for name, value in second.state.tensors():
        torch.testing.assert_close(value, getattr(whole.state, name))

    # A sample that begins has nothing of what was carried.
    begins = torch.tensor([True, False])
    mixed = coded(Batch(clip[:, 2:], begins=begins), first.state.detach())
    alone = coded(Batch(clip[:, 2:]))
    for name, value in mixed.state.tensors():
        torch.testing.assert_close(value[0], getattr(alone.state, name)[0])
        torch.testing.assert_close(value[1], getattr(second.state, name)[1])
    assert not torch.allclose(alone.state.frame[1], second.state.frame[1])


def test_a_sample_that_begins_forgets_everything():
    def of(value: float, names: str) -> ReferenceState:
        return ReferenceState(**{name: torch.full((2, 1, 1, 1), value) for name in names.split()})

    memories = "motion_symbols symbols motion_hypers hypers"
    carried, first = of(2.0, f"frame feature {memories}"), of(3.0, "frame")
    begun = carried.or_begin(torch.tensor([True, False]), first)
    assert begun.frame.flatten().tolist() == [3, 2]
    assert begun.feature.flatten().tolist() == [2, 2]  # the contexts know by begins
    for name in memories.split():
        assert getattr(begun, name).flatten().tolist() == [0, 2], name


def test_resumed_in_the_middle_of_a_chain(cache, tmp_path):
    settings = chained(cache, 8)
    TrainingRun(settings, tmp_path / "whole").train()
    for stop in (2, 3, None):
        run = TrainingRun(settings, tmp_path / "stopped")
        run.train(stop_at=stop)
    expected, got = weights(tmp_path / "whole"), weights(tmp_path / "stopped")
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert [r["step"] for r in logged(tmp_path / "stopped") if "loss" in r] == [1, 2, 3, 4, 5]


def test_a_broken_step_breaks_no_later_one(cache):
    settings = chained(cache, 8).training
    codec = VideoCodec(chained(cache, 8).model)
    learner = Learner(codec, make_optimizer(codec, settings), settings)
    learner.begin(settings.stages[0], list(codec.parameters()))
    begins, quality = torch.tensor([True]), torch.tensor([30.0])
    learner.learn(
        Batch(torch.full((1, 3, 3, 64, 64), float("nan")), None, None, begins, quality), 0, 1e-4
    )
    assert learner.skipped == 1
    learner.learn(Batch(torch.rand(1, 3, 3, 64, 64), None, None, ~begins, quality), 1, 1e-4)
    assert learner.skipped == 1


def test_a_new_stage_begins_anew(cache):
    settings = chained(cache, 8).training
    codec = VideoCodec(chained(cache, 8).model)
    learner = Learner(codec, make_optimizer(codec, settings), settings)
    stage = settings.stages[0]
    learner.begin(stage, list(codec.parameters()))
    begins, quality = torch.tensor([True]), torch.tensor([30.0])
    learner.learn(Batch(torch.rand(1, 3, 3, 64, 64), None, None, begins, quality), 0, 1e-4)
    assert {"frame", "feature", "symbols", "motion_symbols"} == learner.carried.keys()
    learner.begin(stage, list(codec.parameters()), goes_on=True)
    assert learner.carried
    learner.begin(stage, list(codec.parameters()))
    assert learner.carried is None


@pytest.mark.parametrize(
    "settings, said",
    [
        ([f"training.stages=[{STAGE % 3}]"], "multiple of frames - 1"),
        (["model.pattern.inter=[0,1,2]", f"training.stages=[{STAGE % 4}]"], "3 P frames"),
        (
            [
                "model.inter.compensation=[local, shifted]",
                "model.inter.shifted.references=2",
                f"training.stages=[{STAGE % 4}]",
            ],
            "references of 2",
        ),
    ],
)
def test_chains_that_cannot_be(settings, said):
    with pytest.raises(ConfigError, match=said):
        load_experiment(DEBUG, settings)
