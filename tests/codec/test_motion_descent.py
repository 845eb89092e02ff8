"""Gradient descent on the motion's latent, before it is coded."""

from functools import partial

import pytest
import torch

from codec.effort import Effort
from codec.entropy.coders import RateEstimate
from codec.entropy.gains import lambda_of
from codec.entropy.latent import NOTHING
from codec.errors import ConfigError
from codec.models import export, load
from codec.motion_descent import PACE, descended_motion
from codec.session import decode, encode
from codec.video_codec import FrameCoder

from .test_video_codec import moving_frames

QUALITY = torch.tensor([40.0])
SIZE = (4, 6)


@pytest.fixture(scope="module")
def model(codec, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "debug.safetensors"
    export(codec, path, {})
    return load(path)


def priced(codec, left, y) -> float:
    trial = RateEstimate()
    inter = codec.inter
    flow, _ = inter.motion.code(y, trial, inter.prior, QUALITY, SIZE)
    return sum(trial.bits.values()) + float(left(flow))


def one_frame(codec):
    """What a P frame's motion begins with: its latent, and what a decoded flow leaves over."""
    reference, current = moving_frames(2, 64, 96).split(1)
    inter = codec.inter
    left = partial(inter._left_over, current, reference, lambda_of(QUALITY, *inter.lambdas))
    with torch.no_grad():
        return inter.motion.encoder(inter.flow(current, reference)), left


@pytest.mark.parametrize("steps", [1, PACE.round, 2 * PACE.round + 3])
def test_the_price_never_rises(codec, steps):
    begin, left = one_frame(codec)
    inter = codec.inter
    with torch.no_grad():
        before = priced(codec, left, begin)
        y = descended_motion(inter.motion, begin, left, inter.prior, QUALITY, SIZE, NOTHING, steps)
        assert priced(codec, left, y) <= before
    assert not y.requires_grad


def test_it_brings_a_wrong_motion_nearer():
    """From twice the motion: by a trained model, for others lead nowhere."""
    codec = load("lite").codec
    _, left = one_frame(codec)
    inter = codec.inter
    true = torch.tensor([1.0, 0.5]).view(1, 2, 1, 1)  # moving_frames: 2 and 1 pixels
    twice = (2 * true).expand(1, 2, 32, 48)
    with torch.no_grad():
        begin = inter.motion.encoder(twice)
        before = priced(codec, left, begin)
        y = descended_motion(inter.motion, begin, left, inter.prior, QUALITY, SIZE, NOTHING, 40)
        flow, _ = inter.motion.code(y, RateEstimate(), inter.prior, QUALITY, SIZE)
        assert priced(codec, left, y) < 0.5 * before
    assert float((flow - true).square().sum(1).sqrt().mean()) < 0.2  # of 1.12


def test_the_same_steps_give_the_same_latent(codec):
    begin, left = one_frame(codec)
    inter = codec.inter
    known = inter.motion, begin, left, inter.prior, QUALITY, SIZE, NOTHING, 12
    torch.manual_seed(1)
    first = descended_motion(*known)
    torch.manual_seed(2)
    assert torch.equal(descended_motion(*known), first)


def test_weights_get_no_gradients(codec):
    begin, left = one_frame(codec)
    inter = codec.inter
    descended_motion(inter.motion, begin, left, inter.prior, QUALITY, SIZE, NOTHING, 3)
    assert all(one.grad is None for one in codec.parameters())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 71)])
def test_a_decoder_needs_not_know(codec, height, width):
    """It gives the encoder's pictures to the bit, I frames and changes of quality included."""
    encoder = FrameCoder(codec, height, width, effort=Effort(5))
    decoder = FrameCoder(codec, height, width)
    for number, frame in enumerate(moving_frames(5, height, width)):
        intra, quality = number in (0, 3), 40 - number
        payload, shown = encoder.encode(frame[None], intra, quality)
        decoded, _ = decoder.decode(payload, intra, quality)
        assert torch.equal(shown, decoded)


def test_streams_of_any_effort_decode(model, tmp_path):
    frames = [(255 * frame).byte().numpy() for frame in moving_frames(4, 50, 71)]
    sizes = {}
    for effort in (0, 3):
        stream = tmp_path / f"{effort}.lgmc"
        report = encode(frames, stream, model=model, effort=effort)
        sizes[effort] = [frame["bytes"] for frame in report.frames]
        with decode(stream, model=model, verify=True) as decoded:
            assert sum(1 for _ in decoded) == 4
    assert sizes[0][0] == sizes[3][0]  # of an I frame nothing changes


@pytest.mark.parametrize("effort", [-1, 1001, 2.5, True])
def test_an_effort_that_is_none(effort, model, tmp_path):
    frames = [(255 * frame).byte().numpy() for frame in moving_frames(1, 16, 16)]
    with pytest.raises(ConfigError, match="the effort must be a whole number of 0..1000"):
        encode(frames, tmp_path / "x.lgmc", model=model, effort=effort)
