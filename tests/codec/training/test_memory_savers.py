"""Micro-batches, frames computed again, the average of the weights, compiled transforms."""

import pytest
import torch
from safetensors.torch import load_file
from torch._dynamo.exc import BackendCompilerFailed

from codec.config import load_experiment
from codec.errors import ConfigError
from codec.models import load
from codec.training.average import Average
from codec.training.compiled import compile_transforms
from codec.training.data import Batch
from codec.training.loss import clip_loss
from codec.training.run import TrainingRun
from codec.training.step import Learner, make_optimizer
from codec.video_codec import VideoCodec

from .conftest import ROUNDING
from .test_run import DEBUG, experiment, weights

STAGE = "{name: a, train: [all], frames: 3, loss: %s, steps: 2, lr: 1e-3, cascade: %s}"


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def one_stage(cache, *more: str, loss: str = "all", cascade: str = "true"):
    stages = f"training.stages=[{STAGE % (loss, cascade)}]"
    return experiment(cache, stages, "training.data.batch=3", *more)


def gradients(settings, batch, quality) -> tuple[torch.Tensor, dict[str, torch.Tensor], int]:
    """The loss, the gradients, and how often a P frame was computed."""
    torch.manual_seed(0)
    codec = VideoCodec(settings.model)
    calls = []
    codec.inter.motion.register_forward_hook(lambda *_: calls.append(1))
    torch.manual_seed(1)
    stage = settings.training.stages[0]
    loss = clip_loss(codec, batch, quality, stage, settings.training).loss
    loss.backward()
    found = {n: p.grad for n, p in codec.named_parameters() if p.grad is not None}
    return loss.detach(), found, len(calls)


@pytest.mark.parametrize(
    "loss, cascade, precision",
    [("all", "true", "float32"), ("motion_rd", "false", "float32"), ("all", "true", "bfloat16")],
)
def test_frames_computed_again_have_the_same_gradients(cache, loss, cascade, precision):
    batch, quality = Batch(torch.rand(2, 3, 3, 64, 64)), torch.tensor([10.0, 50.0])
    more = f"training.precision={precision}"
    stage = {"loss": loss, "cascade": cascade}
    kept = gradients(one_stage(cache, more, **stage), batch, quality)
    settings = one_stage(cache, more, "training.checkpointing=true", **stage)
    again = gradients(settings, batch, quality)
    assert again[2] == 2 * kept[2]
    assert torch.equal(kept[0], again[0])
    assert kept[1].keys() == again[1].keys()
    for name, gradient in kept[1].items():
        torch.testing.assert_close(again[1][name], gradient)


def test_micro_batches_give_the_weights_of_the_whole_batch(whole, tmp_path):
    TrainingRun(whole.experiment("training.accumulate=2"), tmp_path / "parts").train()
    assert 0 < whole.differs_from(tmp_path / "parts") < ROUNDING  # 0: it was not split


def test_a_broken_micro_batch_breaks_the_step(cache):
    settings = one_stage(cache, "training.accumulate=3")
    codec = VideoCodec(settings.model)
    learner = Learner(codec, make_optimizer(codec, settings.training), settings.training)
    learner.begin(settings.training.stages[0], list(codec.parameters()))
    clip = torch.rand(3, 3, 3, 64, 64)
    clip[1] = float("nan")
    before = {k: v.clone() for k, v in codec.named_parameters()}
    learner.learn(Batch(clip), 0, 1e-3)
    assert learner.skipped == 1
    assert all(torch.equal(before[k], v) for k, v in codec.named_parameters())
    learner.learn(Batch(clip.nan_to_num(0.5)), 1, 1e-3)
    assert learner.skipped == 1


def test_the_average_is_what_it_says():
    codec = VideoCodec(load_experiment(DEBUG).model)
    average = Average(codec, 0.6)
    name = "intra.encoder.enter.weight"
    weight, expected = codec.get_parameter(name), codec.get_parameter(name).detach().clone()
    for step in range(1, 20):
        with torch.no_grad():
            weight.normal_()
        average.follow(codec, step)
        decay = min(0.6, step / (step + 9))
        expected = decay * expected + (1 - decay) * weight.detach()
    torch.testing.assert_close(average.codec.get_parameter(name), expected)
    assert not any(parameter.requires_grad for parameter in average.codec.parameters())


def test_the_average_is_resumed_exactly_and_exported(cache, tmp_path):
    settings = experiment(cache, "training.ema=0.9")
    TrainingRun(settings, tmp_path / "whole").train()
    for stop in (5, None):
        TrainingRun(settings, tmp_path / "stopped").train(stop_at=stop)
    last = "checkpoints/step_00000012/average.safetensors"
    whole, stopped = (load_file(tmp_path / run / last) for run in ("whole", "stopped"))
    assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    trained = weights(tmp_path / "whole")
    name = "intra.encoder.enter.weight"
    assert not torch.equal(trained[name], whole[name])
    model = load(tmp_path / "whole" / "model.safetensors").codec
    assert torch.equal(model.get_parameter(name), whole[name].half().float())


def test_the_average_changes_no_step(cache, tmp_path):
    for name, more in (("with", ["training.ema=0.9"]), ("without", [])):
        TrainingRun(one_stage(cache, *more), tmp_path / name).train()
    one, other = weights(tmp_path / "with"), weights(tmp_path / "without")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_may_begin_to_average_in_its_middle(cache, tmp_path):
    TrainingRun(one_stage(cache), tmp_path / "run").train(stop_at=1)
    run = TrainingRun(one_stage(cache, "training.ema=0.9"), tmp_path / "run")
    name = "intra.encoder.enter.weight"
    assert torch.equal(run.product.get_parameter(name), run.codec.get_parameter(name))
    assert run.product is not run.codec


@pytest.mark.parametrize("backend, frames", [("inductor", 1), ("aot_eager", 3)])
def test_compiled_transforms_learn_what_the_others_do(cache, backend, frames):
    """Machine code for I frames alone, which takes long enough; P frames by the same graphs."""
    settings = one_stage(cache)
    clip = torch.rand(2, frames, 3, 64, 64)
    losses = []
    for compiled in (False, True):
        torch.manual_seed(0)
        codec = VideoCodec(settings.model)
        names = list(codec.state_dict())
        if compiled:
            assert len(compile_transforms(codec, backend)) == 6
        learner = Learner(codec, make_optimizer(codec, settings.training), settings.training)
        learner.begin(settings.training.stages[0], list(codec.parameters()))
        try:
            losses.append([float(learner.learn(Batch(clip), s, 1e-3).loss) for s in range(2)])
        except BackendCompilerFailed as error:
            pytest.skip(f"inductor does not work here: {str(error).splitlines()[0]}")
        assert learner.skipped == 0
        assert list(codec.state_dict()) == names
    assert losses[1] == pytest.approx(losses[0], rel=1e-3)
    assert losses[0][0] != losses[0][1]


@pytest.mark.parametrize("setting", ["accumulate=2", "checkpointing=true", "compile=true"])
def test_a_graph_cannot_go_with(setting):
    name = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=f"cuda_graph cannot go with {name}"):
        load_experiment(DEBUG, ["training.cuda_graph=true", f"training.{setting}"])


def test_a_batch_too_small_for_its_parts_is_refused(cache, tmp_path):
    with pytest.raises(ConfigError, match="set training.data.batch to at least 4"):
        TrainingRun(one_stage(cache, "training.accumulate=4"), tmp_path / "run")
