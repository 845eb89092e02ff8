"""Gradient descent on latents by what coding them brings, with the next frame in view."""

import copy

import numpy as np
import pytest
import torch

from codec.bitstream.container import ContainerReader
from codec.coding_descent import PACE, descended_by_coding, weighted_error
from codec.effort import Effort, FrameEffort
from codec.entropy.coders import RateEstimate
from codec.entropy.gains import lambda_of
from codec.errors import ConfigError
from codec.models import export, load
from codec.rate import RateTarget
from codec.session import decode, encode
from codec.video.synthetic import write_synthetic
from codec.video_codec import Following, FrameCoder

from .conftest import debug_config, loud_codec
from .test_video_codec import moving_frames

QUALITY = torch.tensor([40.0])
SIZE = (4, 6)
SHAPE = (64, 96)


@pytest.fixture(scope="module")
def small():
    return loud_codec(debug_config("all"))


@pytest.fixture(scope="module")
def model(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "debug.safetensors"
    export(small, path, {})
    return load(path)


@pytest.fixture(scope="module")
def lite():
    return load("lite")


def as_bytes(frames: torch.Tensor) -> list[np.ndarray]:
    return [(255 * frame).byte().numpy() for frame in frames]


def test_only_what_is_shown_counts():
    frame = torch.rand(1, 3, 32, 48)
    decoded = frame.clone()
    decoded[..., 30:, :] = 9.0
    decoded[..., :, 41:] = 9.0
    weight = torch.tensor([100.0])
    assert weighted_error(decoded, frame, weight, (30, 41)) == 0
    decoded[..., 0, 0] += 0.5  # one pixel of all three colours: mean squared error 0.25 / pixels
    assert float(weighted_error(decoded, frame, weight, (30, 41))) == pytest.approx(25.0, rel=1e-5)
    assert weighted_error(decoded, frame, weight, (30, 41)).shape == ()


def intra_latent(codec, following: torch.Tensor | None):
    """An I frame's y, what codes it, and what it and the next frame cost, priced by hand."""
    frame = moving_frames(1, *SHAPE)
    intra, inter = codec.intra, codec.inter
    y = intra.analyse(frame, QUALITY)
    motion = None

    def state_of(y_hat):
        return codec.intra_state(intra.synthesise(y_hat, QUALITY))

    def cost(y):
        coder = RateEstimate()
        y_hat, _ = intra.latent(y, coder, intra.prior, QUALITY, SIZE)
        picture = intra.synthesise(y_hat, QUALITY)
        error = (picture - frame).square().mean()
        if following is not None:
            coded = inter._code_residual(
                following, codec.intra_state(picture), motion, coder, QUALITY, SIZE
            )
            error = error + (coded.frame - following).square().mean()
        worth = float(codec.lambda_of(QUALITY) * error) * SHAPE[0] * SHAPE[1]
        return worth + sum(coder.bits.values())

    if following is not None:
        y_hat, _ = intra.latent(y, RateEstimate(), intra.prior, QUALITY, SIZE)
        motion = inter.code_motion(following, state_of(y_hat), RateEstimate(), QUALITY, SIZE)
    return frame, y, cost


@pytest.mark.parametrize("steps", [1, PACE.round, 2 * PACE.round + 1])
@pytest.mark.parametrize("looks", [False, True])
@torch.no_grad()
def test_the_cost_never_rises(codec, looks, steps):
    following = moving_frames(2, *SHAPE)[1:] if looks else None
    frame, y, cost = intra_latent(codec, following)
    effort = FrameEffort(Effort(0, steps), SHAPE, following, QUALITY)
    intra, known = codec.intra, (QUALITY, SIZE)

    def outcome(y_hat, _):
        picture = intra.synthesise(y_hat, QUALITY)
        return picture, codec.intra_state(picture)

    found = codec.inter.descended(
        intra.latent, y, intra.prior, known, outcome, frame, effort, steps
    )
    assert cost(found) <= cost(y) * (1 + 1e-6)
    assert not found.requires_grad


@torch.no_grad()
def test_it_finds_what_costs_less(lite):
    """With a trained model, on a frame alone: by more than rounding could."""
    codec = lite.codec
    frame, y, cost = intra_latent(codec, None)
    intra = codec.intra

    def errors(y_hat, symbols, coder):
        picture = intra.synthesise(y_hat, QUALITY)
        return weighted_error(picture, frame, lambda_of(QUALITY, *codec.inter.lambdas), SHAPE)

    found = descended_by_coding(intra.latent, y, intra.prior, (QUALITY, SIZE), errors, 20)
    assert cost(found) < 0.97 * cost(y)


def cost_of(codec, frames, effort, quality=40):
    """lambda times squared error plus bits, of a stream."""
    coder = FrameCoder(codec, *frames.shape[-2:], Effort.of(effort))
    total, weight = 0.0, float(codec.lambda_of(torch.tensor([float(quality)])))
    for number, frame in enumerate(frames):
        after = frames[number + 1 : number + 2]
        following = Following(after, quality) if len(after) else None
        bits, shown = coder.estimate(frame[None], number == 0, quality, following)
        total += sum(bits.values()) + weight * float((shown - frame).square().sum()) / 3
    return total


def test_a_stream_costs_less(lite):
    frames = moving_frames(5, *SHAPE)
    plain = cost_of(lite.codec, frames, 0)
    assert cost_of(lite.codec, frames, "0+10") < 0.85 * plain


def test_the_same_steps_give_the_same_stream(small):
    frames = moving_frames(3, *SHAPE)
    costs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        costs.append(cost_of(small, frames, "3+7"))
    assert costs[0] == costs[1]


def test_each_kind_of_steps_is_taken_where_it_is_meant(small, monkeypatch):
    """Twice as many on an I frame; on a P frame's motion both kinds, on its residual one."""
    taken = []

    def by_coding(latent, y, prior, known, errors, steps):
        taken.append((latent.part, "ahead", steps))
        return y

    def by_motion(motion, y, *rest):
        taken.append((motion.latent.part, "motion", rest[-1]))
        return y

    monkeypatch.setattr("codec.inter.descended_by_coding", by_coding)
    monkeypatch.setattr("codec.inter.descended_motion", by_motion)
    cost_of(small, moving_frames(2, *SHAPE), "3+2")
    motion = [("motion", "motion", 3), ("motion", "ahead", 2)]
    assert taken == [("intra", "ahead", 4), *motion, ("residual", "ahead", 2)]


def test_weights_get_no_gradients(small):
    codec = copy.deepcopy(small).requires_grad_(True)
    cost_of(codec, moving_frames(2, *SHAPE), "0+3")
    assert all(one.grad is None for one in codec.parameters())


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 71), (1, 1)])
def test_a_decoder_needs_not_know(codec, height, width):
    """It gives the encoder's pictures to the bit, I frames and changes of quality included."""
    encoder = FrameCoder(codec, height, width, Effort(2, 3))
    decoder = FrameCoder(codec, height, width)
    frames = moving_frames(5, height, width)
    for number, frame in enumerate(frames):
        intra, quality = number in (0, 3), 40 - number
        following = None if number in (2, 4) else Following(frames[number + 1][None], quality - 1)
        payload, shown = encoder.encode(frame[None], intra, quality, following)
        decoded, _ = decoder.decode(payload, intra, quality)
        assert torch.equal(shown, decoded)


@pytest.mark.parametrize("effort", ["0+2", Effort(2, 2)])
def test_streams_decode_and_are_others(effort, model, tmp_path):
    frames = as_bytes(moving_frames(5, 50, 71))
    written = []
    for tries in (0, effort):
        stream = tmp_path / "s.lgmc"
        encode(frames, stream, model=model, effort=tries, intra_period=3)
        with decode(stream, model=model, verify=True) as decoded:
            assert sum(1 for _ in decoded) == 5
        written.append(stream.read_bytes())
    assert written[0] != written[1]


@pytest.mark.parametrize("period", [1, 2])
def test_no_frame_sees_beyond_the_next_i_frame(period, model, tmp_path):
    """Each stream is what it is whatever comes after."""
    frames, stream = as_bytes(moving_frames(4, 50, 71)), tmp_path / "s.lgmc"
    streams = []
    for part in (frames, frames[:2]):
        encode(part, stream, model=model, effort="0+3", intra_period=period)
        with stream.open("rb") as file:
            streams.append([packet.payload for packet in ContainerReader(file)][:2])
    assert streams[0] == streams[1]


@pytest.mark.parametrize(("effort", "held"), [(0, 0), (3, 0), ("0+1", 1)])
def test_one_frame_is_held_back_and_only_then(effort, held, model, tmp_path):
    read = []

    def source():
        for number, frame in enumerate(as_bytes(moving_frames(4, 16, 16))):
            read.append(number)
            yield frame

    behind = []
    encode(
        source(),
        tmp_path / "s.lgmc",
        model=model,
        effort=effort,
        progress=lambda done, total: behind.append(len(read) - done),
    )
    assert behind == [held, held, held, 0]


@pytest.mark.parametrize("two_pass", [False, True])
def test_a_rate_is_met_with_it(two_pass, lite, tmp_path):
    clip, stream = tmp_path / "pan.y4m", tmp_path / "s.lgmc"
    write_synthetic("pan", clip, 96, 64, 12)
    at = {
        quality: 8 * encode(clip, stream, model=lite, quality=quality, effort="0+2").bytes * 2
        for quality in (20, 50)
    }  # 12 frames at 24 a second
    rate = RateTarget(bitrate=(at[20] * at[50]) ** 0.5, two_pass=two_pass)
    report = encode(clip, stream, model=lite, rate=rate, effort="0+2")
    assert 8 * report.bytes * 2 == pytest.approx(rate.bitrate, rel=0.1)
    with decode(stream, model=lite, verify=True) as decoded:
        assert sum(1 for _ in decoded) == 12


def test_an_effort_that_is_none(model, tmp_path):
    with pytest.raises(ConfigError, match="the effort must be a whole number of 0..1000, or two"):
        encode(as_bytes(moving_frames(1, 16, 16)), tmp_path / "x.lgmc", model=model, effort="5+x")
