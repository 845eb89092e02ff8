"""The encoder's search for the motion: finds what moved far, leaves alone what is right."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from codec.config import RefineConfig
from codec.entropy.coders import RateEstimate, RateModel
from codec.layers import resize_flow, warp
from codec.motion_refine import left_over, refined
from codec.video_codec import FrameCoder

from .conftest import debug_config, loud_codec


def moved(
    height: int, width: int, x: int, y: int, margin: int = 32
) -> tuple[torch.Tensor, torch.Tensor]:
    """(current, reference) of a texture with current(p) = reference(p + (x, y))."""
    generator = torch.Generator().manual_seed(3)
    around = margin // 2
    small = torch.rand(1, 3, height // 4 + around, width // 4 + around, generator=generator)
    texture = F.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1)
    reference = texture[..., margin : margin + height, margin : margin + width]
    top, left = margin + y, margin + x
    return texture[..., top : top + height, left : left + width], reference


@pytest.mark.parametrize("top", [1, 2])
@pytest.mark.parametrize("shift", [(24, -12), (-32, 4), (0, 28)])
def test_finds_a_motion_far_from_the_estimate(shift, top):
    current, reference = moved(144, 176, *shift)
    nothing = torch.zeros(1, 2, 144 // top, 176 // top)
    flows = refined(current, reference, nothing, top, RefineConfig(stiffness=(0.1, 0.03)))
    assert len(flows) == 2 and not torch.equal(*flows)
    rim = 60 // top  # what has no match, and what the patch and the smoothing reach
    wanted = torch.tensor(shift, dtype=torch.float32).view(1, 2, 1, 1)
    for flow in flows:
        assert flow.shape == nothing.shape
        inner = flow[..., rim:-rim, rim:-rim] * top
        assert (inner - wanted).abs().max() < 0.5


def test_finds_what_moves_farther_than_the_search_with_a_hint():
    """160 pixels in a frame of 128 lines: beyond the coarsest window round no motion."""
    current, reference = moved(128, 416, 160, 0, margin=176)
    right = torch.tensor([80.0, 0.0]).view(1, 2, 1, 1).expand(1, 2, 64, 208).contiguous()
    config = RefineConfig(stiffness=(0.1,))
    with_hint, without = (
        refined(current, reference, hint, 2, config)[0][..., 24:-24, 24:-104] - right[..., :1, :1]
        for hint in (right, torch.zeros_like(right))
    )
    assert with_hint.abs().max() < 0.5
    assert without.abs().mean() > 10


def test_motion_of_a_fraction_of_a_pixel():
    current, reference = moved(96, 112, 3, 1)
    half, there = (F.avg_pool2d(x, 2) for x in (current, reference))  # (1.5, 0.5) of these
    flow = refined(half, there, torch.zeros(1, 2, 24, 28), 2, RefineConfig())[0]
    wanted = torch.tensor([0.75, 0.25]).view(1, 2, 1, 1)
    assert (flow[..., 6:-6, 6:-6] - wanted).abs().mean() < 0.1


@pytest.mark.parametrize("strength", [1.0, 4.0])
def test_a_disturbed_flow_is_aligned_again(strength):
    """Known motion, its flow off by a random vector of 1 to 4 pixels in every block of 16: what is
    found warps the reference at least 3 dB nearer to the frame."""
    current, reference = moved(144, 176, 6, -4)
    generator = torch.Generator().manual_seed(5)
    angle = torch.rand(1, 1, 9, 11, generator=generator) * 6.2832
    noise = F.interpolate(strength * torch.cat((angle.cos(), angle.sin()), 1), scale_factor=16)
    true = torch.tensor([6.0, -4.0]).view(1, 2, 1, 1)
    disturbed = F.avg_pool2d(true + noise, 2) / 2
    found = refined(current, reference, disturbed, 2, RefineConfig())[0]

    def error(flow):
        warped = warp(reference, resize_flow(flow, 2.0))
        return (warped - current)[..., 8:-8, 8:-8].square().mean()

    assert 10 * torch.log10(error(disturbed) / error(found)) > 3


def test_leaves_a_right_estimate_alone():
    current, reference = moved(112, 144, 8, 4)
    right = torch.tensor([4.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 56, 72).contiguous()
    # At the rim what moved in has no match in the reference: nothing there is better either.
    inner = refined(current, reference, right, 2, RefineConfig())[0][..., 20:-20, 20:-20]
    assert (inner - right[..., 20:-20, 20:-20]).abs().max() < 0.05


def test_noise_on_a_still_picture_is_no_reason_to_move():
    generator = torch.Generator().manual_seed(0)
    still, _ = moved(64, 64, 0, 0)
    frames = [still + 0.02 * torch.randn(still.shape, generator=generator) for _ in range(2)]
    flow = refined(*frames, torch.zeros(1, 2, 32, 32), 2, RefineConfig())[0]
    assert flow.abs().max() < 0.25


@pytest.mark.parametrize("size", [(16, 16), (16, 48)])
def test_frames_smaller_than_the_window(size):
    frames = torch.rand(2, 2, 3, *size)
    flow = torch.zeros(2, 2, size[0] // 2, size[1] // 2)
    for found in refined(*frames, flow, 2, RefineConfig()):
        assert found.shape == flow.shape and found.isfinite().all()


def test_samples_of_a_batch_do_not_mix():
    pairs = [moved(64, 80, 8, 0), moved(64, 80, -4, 12)]
    current, reference = (torch.cat(frames) for frames in zip(*pairs, strict=True))
    both = refined(current, reference, torch.zeros(2, 2, 32, 40), 2, RefineConfig())[0]
    for number, pair in enumerate(pairs):
        alone = refined(*pair, torch.zeros(1, 2, 32, 40), 2, RefineConfig())[0]
        torch.testing.assert_close(both[number : number + 1], alone, atol=1e-3, rtol=1e-3)


def test_what_is_left_over_by_hand():
    frame = torch.zeros(1, 3, 32, 48)
    wrong = frame.clone()
    wrong[..., :16, :16] = 0.5  # of six blocks one, with an error of 0.25
    one = 0.2 * 256 * torch.log2(torch.tensor(1 + 0.25 * 64 / 0.25)).item()
    rate_lambda = torch.tensor([64.0])
    assert left_over(wrong, frame, rate_lambda).item() == pytest.approx(one, rel=1e-6)
    assert left_over(frame, frame, rate_lambda).item() == 0.0


def test_even_sizes_are_refused():
    for name in ("reach", "window", "patch", "median"):
        with pytest.raises(ValidationError, match=name):
            RefineConfig(**{name: 4})


def test_the_encoder_takes_the_cheapest_motion(monkeypatch):
    """Whichever flow has the lower price is what is coded."""
    codec = loud_codec(debug_config("refined"))
    taken = []
    motion = codec.inter.motion.forward

    def spy(flow, coder, *arguments):
        if not isinstance(coder, RateEstimate) or coder is final:
            taken.append(flow)
        return motion(flow, coder, *arguments)

    monkeypatch.setattr(codec.inter.motion, "forward", spy)
    current, reference = moved(64, 96, 16, 8)
    for cheapest in range(3):
        left = iter([1e9 * (number != cheapest) for number in range(3)])
        monkeypatch.setattr("codec.inter.left_over", lambda *_, left=left: next(left))
        coder = FrameCoder(codec, 64, 96)
        coder.code(reference, True, 40, RateEstimate())
        state = coder.state
        final = RateEstimate()
        coder.code(current, False, 40, final)
        estimate = codec.inter.flow(codec.pad(current), state.frame)
        found = refined(codec.pad(current), state.frame, estimate, 2, codec.inter.refine)
        assert len(found) == 2
        flows = [estimate, *found]
        torch.testing.assert_close(taken[-1], flows[cheapest])
        for other in set(range(3)) - {cheapest}:
            assert not torch.equal(taken[-1], flows[other])


def test_training_keeps_the_estimate(monkeypatch):
    """Unless a stage asks for the search's motion: it costs time."""
    codec = loud_codec(debug_config("refined"))
    monkeypatch.setattr(codec.inter, "search", lambda *_: pytest.fail("searched"))
    estimated = _motion_in_training(codec)
    assert estimated.requires_grad


def _motion_in_training(codec) -> torch.Tensor:
    current, reference = (torch.cat((x, x.flip(3))) for x in moved(64, 96, 16, 8))
    quality = torch.tensor([30.0, 40.0])
    state = codec.code_intra(reference, RateModel(), quality, (4, 6))
    return codec.inter.code_motion(current, state, RateModel(), quality, (4, 6))[0]


def test_settings_of_the_search_before_are_passed_over():
    old = {"window": 17, "patch": 7, "least_gain": 0.002, "smooth": 9}
    assert RefineConfig.model_validate(old) == RefineConfig()
