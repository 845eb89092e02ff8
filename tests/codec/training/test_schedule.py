"""Where a step stands in the schedule, how fast it learns, and what of the codec does."""

import math

import pytest

from codec.config import Stage
from codec.training.schedule import position, set_trained_parts, total_steps
from codec.video_codec import VideoCodec

from ..conftest import debug_config

STAGES = (
    Stage(name="long", steps=400, frames=2, lr=1e-3, lr_end=1e-4),
    Stage(name="even", steps=200, frames=2, lr=2e-3),
    Stage(name="short", steps=4, frames=2, lr=1e-3, lr_end=0.0),
)


def rate(step: int) -> float:
    return position(STAGES, step).lr


def test_every_step_has_its_place():
    assert total_steps(STAGES) == 604
    places = [
        (where.number, where.done) for where in map(lambda s: position(STAGES, s), range(604))
    ]
    assert places == [(row, done) for row, n in enumerate((400, 200, 4)) for done in range(n)]
    assert position(STAGES, 401).stage is STAGES[1]
    with pytest.raises(ValueError, match="beyond the schedule"):
        position(STAGES, 604)


def test_the_rate_falls_by_a_cosine():
    assert rate(100) == pytest.approx(1e-4 + 9e-4 * (1 + math.sqrt(0.5)) / 2)
    assert rate(200) == pytest.approx(5.5e-4)
    assert rate(300) == pytest.approx(1e-4 + 9e-4 * (1 - math.sqrt(0.5)) / 2)
    assert rate(399) == pytest.approx(1e-4, rel=1e-3)
    assert rate(599) == rate(500) == 2e-3


def test_the_rate_rises_in_a_stages_first_steps():
    assert rate(400) == pytest.approx(2e-3 / 100)
    assert rate(449) == pytest.approx(2e-3 / 2)
    assert rate(498) < rate(499) == rate(500) == 2e-3
    shares = [0.5 * (1 + math.cos(math.pi * done / 4)) for done in range(4)]
    expected = [1e-3 * share * (done + 1) / 4 for done, share in enumerate(shares)]
    assert [rate(600 + done) for done in range(4)] == pytest.approx(expected)


PARTS = {
    "intra": {"intra"},
    "flow": {"inter.flow"},
    "motion": {"inter.motion"},
    "recon": {
        "inter.prior",
        "inter.compensation",
        "inter.encoder",
        "inter.decoder",
        "inter.temporal_prior",
        "inter.latent",
    },
    "entropy": {
        "intra.prior",
        "inter.prior",
        "intra.latent",
        "inter.latent",
        "inter.motion.latent",
    },
}
PARTS["second_pass"] = {"intra.latent.second", "inter.latent.second"}
PARTS["inter"] = PARTS["flow"] | PARTS["motion"] | PARTS["recon"]
PARTS["all"] = PARTS["intra"] | PARTS["inter"]


@pytest.mark.parametrize("variant", ["mixture", "two passes"])
@pytest.mark.parametrize("train", [*((name,) for name in PARTS), ("flow", "entropy")])
def test_a_stage_trains_its_parts_and_no_other(train, variant):
    codec = VideoCodec(debug_config(variant))
    trained = set_trained_parts(codec, Stage(name="a", steps=1, frames=2, train=train))
    begins = tuple(f"{part}." for name in train for part in PARTS[name])
    expected = {
        name
        for name, _ in codec.named_parameters()
        if name.startswith(begins) and not name.endswith("quantiles")
    }
    assert {name for name, p in codec.named_parameters() if p.requires_grad} == expected
    assert {id(p) for p in trained} == {id(codec.get_parameter(name)) for name in expected}
