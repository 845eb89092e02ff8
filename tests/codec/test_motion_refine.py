"""The encoder's search for the motion: finds what moved far, leaves alone what is right."""

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from codec.config import RefineConfig
from codec.entropy.coders import RateEstimate
from codec.motion_refine import price, refined
from codec.video_codec import FrameCoder

from .conftest import debug_config, loud_codec


def moved(height: int, width: int, x: int, y: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(current, reference) of a texture with current(p) = reference(p + (x, y))."""
    generator = torch.Generator().manual_seed(3)
    margin = 32
    small = torch.rand(1, 3, height // 4 + 16, width // 4 + 16, generator=generator)
    texture = F.interpolate(small, scale_factor=4, mode="bicubic").clamp(0, 1)
    reference = texture[..., margin : margin + height, margin : margin + width]
    top, left = margin + y, margin + x
    return texture[..., top : top + height, left : left + width], reference


@pytest.mark.parametrize("top", [1, 2])
@pytest.mark.parametrize("shift", [(24, -12), (-32, 4), (0, 28)])
def test_finds_a_motion_far_from_the_estimate(shift, top):
    current, reference = moved(144, 176, *shift)
    nothing = torch.zeros(1, 2, 144 // top, 176 // top)
    flow = refined(current, reference, nothing, top, RefineConfig())
    assert flow.shape == nothing.shape
    rim = 60 // top  # what has no match, and what the patch and the median reach
    inner = flow[..., rim:-rim, rim:-rim] * top
    wanted = torch.tensor(shift, dtype=torch.float32).view(1, 2, 1, 1)
    assert (inner - wanted).abs().max() < 0.5


def test_leaves_a_right_estimate_alone():
    current, reference = moved(112, 144, 8, 4)
    right = torch.tensor([4.0, 2.0]).view(1, 2, 1, 1).expand(1, 2, 56, 72).contiguous()
    # At the rim what moved in has no match in the reference: nothing there is better either.
    inner = refined(current, reference, right, 2, RefineConfig())[..., 20:-20, 20:-20]
    torch.testing.assert_close(inner, right[..., 20:-20, 20:-20])


def test_noise_is_no_reason_to_move():
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((1, 3, 64, 64), 0.5)
    frames = [flat + 0.02 * torch.randn(flat.shape, generator=generator) for _ in range(2)]
    flow = torch.zeros(1, 2, 32, 32)
    assert torch.equal(refined(*frames, flow, 2, RefineConfig()), flow)


@pytest.mark.parametrize("size", [(16, 16), (16, 48)])
def test_frames_smaller_than_the_window(size):
    frames = torch.rand(2, 2, 3, *size)
    flow = torch.zeros(2, 2, size[0] // 2, size[1] // 2)
    found = refined(*frames, flow, 2, RefineConfig())
    assert found.shape == flow.shape and found.isfinite().all()


def test_the_price_by_hand():
    frame = torch.zeros(1, 3, 32, 48)
    wrong = frame.clone()
    wrong[..., :16, :16] = 0.5  # of six blocks one, with an error of 0.25
    one = 0.2 * 256 * torch.log2(torch.tensor(1 + 0.25 * 64 / 0.25)).item()
    assert price(7.0, wrong, frame, torch.tensor([64.0])) == pytest.approx(7.0 + one, rel=1e-6)
    assert price(7.0, frame, frame, torch.tensor([64.0])) == 7.0


def test_even_sizes_are_refused():
    for name in ("window", "patch", "smooth"):
        with pytest.raises(ValidationError, match=name):
            RefineConfig(**{name: 4})


def test_the_encoder_takes_the_cheaper_motion(monkeypatch):
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
    for cheap in (0, 1):
        prices = iter([1.0 - cheap, float(cheap)])  # of the estimate, of what the search found
        monkeypatch.setattr("codec.inter.price", lambda *_, prices=prices: next(prices))
        coder = FrameCoder(codec, 64, 96)
        coder.code(reference, True, 40, RateEstimate())
        state = coder.state
        final = RateEstimate()
        coder.code(current, False, 40, final)
        estimate = codec.inter.flow(codec.pad(current), state.frame)
        found = refined(codec.pad(current), state.frame, estimate, 2, codec.inter.refine)
        assert not torch.equal(estimate, found)
        # 1 - cheap is the estimate's price: the dearer one is left.
        torch.testing.assert_close(taken[-1], found if cheap == 0 else estimate)


def test_training_keeps_the_estimate(monkeypatch):
    """The choice is not differentiable, and costs a search."""
    from codec.entropy.coders import RateModel

    codec = loud_codec(debug_config("refined"))
    monkeypatch.setattr("codec.inter.refined", lambda *_: pytest.fail("searched"))
    frames = torch.rand(2, 1, 3, 64, 64)
    quality = torch.tensor([30.0])
    state = codec.code_intra(frames[0], RateModel(), quality, (4, 4))
    codec.code_inter(frames[1], state, RateModel(), quality, (4, 4))
