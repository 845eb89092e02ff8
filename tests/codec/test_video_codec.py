"""Encoder, decoder and estimate are one function: same pictures, same symbols, same bits."""

import pytest
import torch

from codec.config import EntropyConfig
from codec.entropy.coders import RateModel
from codec.video_codec import FrameCoder

from .conftest import VARIANTS, debug_config, loud_codec


def moving_frames(count: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(1, 3, height // 8 + 4, width // 8 + 4, generator=generator)
    canvas = torch.nn.functional.interpolate(coarse, scale_factor=8, mode="bicubic").clamp(0, 1)
    return torch.cat([canvas[..., t : t + height, 2 * t : 2 * t + width] for t in range(count)])


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 71), (16, 130), (1, 1)])
def test_decoder_gives_the_encoders_picture(codec, height, width):
    encoder, decoder, estimator = (FrameCoder(codec, height, width) for _ in range(3))
    for number, frame in enumerate(moving_frames(5, height, width)):
        intra = number in (0, 3)
        payload, shown = encoder.encode(frame[None], intra, quality=40)
        decoded, coded = decoder.decode(payload, intra, quality=40, account=True)
        bits = coded.bits
        estimate, estimated_picture = estimator.estimate(frame[None], intra, quality=40)
        assert torch.equal(shown, decoded)
        assert torch.equal(shown, estimated_picture)
        assert shown.shape == (1, 3, height, width)
        assert set(bits) <= set(estimate)
        # The stream's length is its symbols' cost by the tables plus the 8 bytes of rANS's end.
        assert sum(bits.values()) <= 8 * len(payload) <= sum(bits.values()) + 8 * 12


def test_quality_may_change_from_frame_to_frame(codec):
    encoder, decoder = (FrameCoder(codec, 64, 64) for _ in range(2))
    sizes = []
    for number, (frame, quality) in enumerate(
        zip(moving_frames(3, 64, 64), (5, 63, 0), strict=True)
    ):
        payload, shown = encoder.encode(frame[None], number == 0, quality)
        decoded, _ = decoder.decode(payload, number == 0, quality)
        assert torch.equal(shown, decoded)
        sizes.append(len(payload))
    assert sizes[1] > sizes[2]


def test_first_frame_must_be_intra(codec):
    with pytest.raises(ValueError, match="first frame"):
        FrameCoder(codec, 64, 64).encode(torch.zeros(1, 3, 64, 64), False, 30)


def test_frames_and_qualities_that_do_not_fit_are_refused(codec):
    coder, frame = FrameCoder(codec, 50, 71), torch.zeros(1, 3, 50, 71)
    for wrong in (frame.expand(2, -1, -1, -1), frame[..., :70], frame[0], frame.byte()):
        with pytest.raises(ValueError, match=r"frame: was .*must be floats .* \[1, 3, 50, 71\]"):
            coder.encode(wrong, True, 30)
    for wrong in (-1, 64):
        with pytest.raises(ValueError, match=f"quality: was {wrong}, must be 0..63"):
            coder.encode(frame, True, wrong)


@pytest.mark.parametrize("distribution", ["gaussian", "laplace"])
def test_the_papers_float_scale_path_codes_too(distribution):
    base = debug_config()
    entropy = EntropyConfig(scale_path="float", distribution=distribution)
    config = base.model_copy(
        update={
            "intra": base.intra.model_copy(update={"entropy": entropy}),
            "inter": base.inter.model_copy(update={"entropy": entropy}),
        }
    )
    codec = loud_codec(config)
    encoder, decoder = (FrameCoder(codec, 64, 96) for _ in range(2))
    for number, frame in enumerate(moving_frames(3, 64, 96)):
        payload, shown = encoder.encode(frame[None], number == 0, 40)
        assert torch.equal(shown, decoder.decode(payload, number == 0, 40)[0])


def test_training_forward_agrees_with_coding(codec):
    """The reconstruction path of training rounds as the encoder does (gates and index aside)."""
    frame = moving_frames(1, 64, 64)
    quality = torch.tensor([50.0])
    coder = RateModel()
    with torch.no_grad():
        trained = codec.intra(frame, coder, quality, (4, 4))
        coded = FrameCoder(codec, 64, 64).encode(frame, True, 50)[1]
    assert float((trained.clamp(0, 1) - coded).abs().mean()) < 0.02
    assert set(coder.bits) == {"intra", "intra_hyper"}
    assert coder.bits["intra"].shape == (1,)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_trained_parameter(variant):
    codec = loud_codec(debug_config(variant), seed=1).train()
    frames = moving_frames(3, 64, 64)[:, None].transpose(0, 1)  # [1, T, 3, H, W]
    quality = torch.tensor([33.0])
    coder = RateModel()
    state = codec.intra_state(codec.intra(frames[:, 0], coder, quality, (4, 4)))
    loss = sum(bits.sum() for bits in coder.bits.values()) + state.frame.square().sum()
    for t in (1, 2):
        coder = RateModel()
        out = codec.code_inter(frames[:, t], state, coder, quality, (4, 4))
        state = out.state
        loss = loss + sum(b.sum() for b in coder.bits.values()) + out.frame.square().sum()
    loss.backward()
    without = [
        name
        for name, p in codec.named_parameters()
        if p.requires_grad and (p.grad is None or not torch.isfinite(p.grad).all())
    ]
    assert without == []


@pytest.mark.parametrize("offset", [-63, -8, -3, 0, 1, 8, 63])
def test_the_pattern_keeps_the_order_of_qualities(codec, offset):
    from codec.config import QualityPattern

    pattern = QualityPattern(intra=offset, inter=(0, offset))
    config = codec.config.model_copy(update={"pattern": pattern})
    patterned = loud_codec(config)
    for number, expected in ((0, offset), (1, 0), (2, offset), (3, 0)):
        levels = [patterned.frame_quality(quality, number) for quality in range(64)]
        assert levels == sorted(levels) and levels[0] >= 0 and levels[-1] <= 63
        assert all(b > a for a, b in zip(levels[::8], levels[8::8], strict=False))
        together = patterned.frame_quality(torch.arange(64.0), number)
        assert together.tolist() == levels
        if abs(expected) <= 8:
            assert levels[32] == 32 + expected
