"""Expecting z from former z: integers against int64, coders that agree, and that it learns."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from codec.config import load_experiment
from codec.entropy.coders import RateEstimate, RateModel, StreamDecoder, StreamEncoder
from codec.entropy.hyper_history import HyperHistory
from codec.entropy.latent import NOTHING, LatentCodec, Past
from codec.entropy.priors import TAIL_MASS, ConditionalPrior, ShiftedPrior

from ..conftest import CONFIGS
from .test_scale_path import int64_conv

QUALITY = torch.tensor([17.0])
SIZES = st.tuples(st.integers(1, 4), st.integers(1, 5))


def shifted(shape: list[float] | None = None) -> ShiftedPrior:
    prior = ShiftedPrior()
    if shape is not None:
        prior.model.shape.data = torch.tensor(shape).reshape(3, 3)
    prior.requires_grad_(False).update()
    return prior


def loud(channels: int = 3, width: int = 6, loudness: float = 1.0, seed: int = 0) -> HyperHistory:
    """One that expects all kinds of things."""
    torch.manual_seed(seed)
    history = HyperHistory(channels, width)
    with torch.no_grad():
        for parameter in history.parameters():
            parameter.mul_(loudness).add_(0.2 * torch.randn_like(parameter))
    history.requires_grad_(False).update()
    return history


def remembered(history: HyperHistory, *frames: Tensor) -> Tensor:
    hypers = None
    for z in frames:
        hypers = history.joined(z, hypers)
    return hypers


def test_what_is_remembered():
    history = HyperHistory(2)
    first, second, third = (torch.full((1, 2, 1, 1), float(n)) for n in (5, 6, 7))
    assert remembered(history, first).flatten().tolist() == [5, 5, 1, 0, 0, 0]
    assert remembered(history, first, second).flatten().tolist() == [6, 6, 1, 5, 5, 1]
    assert remembered(history, first, second, third).flatten().tolist() == [7, 7, 1, 6, 6, 1]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), SIZES, st.floats(0.1, 30), st.booleans())
def test_it_is_integer_arithmetic(seed, size, loudness, begins):
    history, prior = loud(loudness=loudness, seed=seed), shifted()
    frames = torch.randint(-200, 200, (2, 1, 3, *size)).float()
    hypers = None if begins else remembered(history, *frames)
    found = history.exact(hypers, QUALITY, size)
    whole, sign, row = prior.about_eighths(*found)

    known = torch.zeros(1, 8, *size) if begins else hypers
    known = known.to(torch.int64)

    def active(sums: Tensor) -> Tensor:
        return ((sums + (1 << 11)) >> 12).clamp(0, 1 << 14)

    x = active(int64_conv(known.clamp(-24, 24) * 64, history.mix))
    x = int64_conv(active(int64_conv(x, history.hidden)), history.last)
    x = x + history.offset_table[17].to(torch.int64)[None, :, None, None]
    middle, level = x.chunk(2, 1)
    weights = torch.floor(history.weights.double() * 4096 + 0.5).clamp(-(1 << 15), 1 << 15)
    for frame, weight in zip((known[:, :3], known[:, 4:7]), weights.to(torch.int64), strict=True):
        middle = middle + 64 * frame.clamp(-127, 127) * weight[:, None, None]
    eighths = ((middle + (1 << 14)) >> 15).clamp(-(1 << 15), 1 << 15)
    level = ((level + (1 << 17)) >> 18).clamp(-(1 << 15), 1 << 15)
    assert torch.equal(found.middle, eighths.double())
    assert torch.equal(found.level, level.double())
    level = level.clamp(0, prior.levels - 1)
    rest = eighths - 8 * whole.to(torch.int64)
    assert bool((rest >= -4).all()) and bool((rest < 4).all())
    assert torch.equal(sign, torch.where(rest < 0, -1.0, 1.0))
    assert torch.equal(row.to(torch.int64), level * 5 + rest.abs())


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), SIZES)
def test_training_sees_what_a_stream_does(seed, size):
    history, prior = loud(seed=seed), shifted()
    hypers = remembered(history, *torch.randint(-9, 10, (2, 1, 3, *size)).float())
    whole, sign, row = prior.about_eighths(*history.exact(hypers, QUALITY, size))
    real, ones, index = prior.about(*history(hypers, QUALITY, size))
    assert bool((ones == 1).all())
    middle = whole + sign * (row % 5) / 8
    torch.testing.assert_close(real + index[..., 1], middle, rtol=0, atol=0.0625 + 5e-3)
    level = index[..., 0].clamp(0, prior.levels - 1)
    torch.testing.assert_close(level, (row // 5).float(), rtol=0, atol=0.5 + 5e-3)


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(-0.5, 0.5), min_size=9, max_size=9))
def test_rows_are_the_density_about_their_middle(shape):
    prior = shifted(shape)
    counts, lengths, offsets = prior.tables()
    assert len(counts) == 5 * prior.levels
    for row in (*range(40), 64, 97, 159):
        symbols = torch.arange(offsets[row], -offsets[row] + 1).float()
        assert lengths[row] == len(symbols) + 2
        found = prior.likelihood(symbols, torch.full(symbols.shape, row, dtype=torch.int32))
        level, middle = row // 5, (row % 5) / 8
        pair = torch.tensor([float(level), middle]).expand(len(symbols), 2)
        torch.testing.assert_close(prior.likelihood(symbols, pair), found)
        expected = density(prior, symbols.double(), level, middle)
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-6)
        assert 1 - float(expected.sum()) < TAIL_MASS * 1.02
        if len(symbols) > 1:
            assert 1 - float(expected[1:-1].sum()) > TAIL_MASS * 0.98
        # What counts of 16 bits cost, in bits a symbol.
        table = torch.tensor(counts[row]).diff()[:-1].double() / 2**16
        assert float((found * torch.log2(found / table)).sum()) < 0.05


def density(prior: ShiftedPrior, symbols: Tensor, level: int, middle: float) -> Tensor:
    """The definition, by torch's own normal distribution in float64."""
    scale = 0.11 * (64 / 0.11) ** (level / (prior.levels - 1))
    place = 2 * level / (prior.levels - 1) - 1
    powers = torch.tensor([1.0, place, place**2], dtype=torch.float64)
    logit, narrow, wide = (prior.model.shape.double() * powers).sum(1)
    weight, total = torch.sigmoid(logit), torch.zeros_like(symbols)
    for part, spread in ((1 - weight, narrow), (weight, wide)):
        law = torch.distributions.Normal(middle, scale * spread.exp())
        total += part * (law.cdf(symbols + 0.5) - law.cdf(symbols - 0.5))
    return total


def make_latent() -> tuple[LatentCodec, ConditionalPrior]:
    torch.manual_seed(0)
    latent = LatentCodec(
        "residual", 4, 3, (4, 4), scale_width=8, previous_symbols=True, gain=2.0, history=True
    )
    latent.history = loud()
    with torch.no_grad():
        # Wide densities, as what is expected is nonsense: else all symbols are escaped.
        latent.history.offset[:, 3:] = 24
        latent.hyper_encoder[-1].weight *= 40
    latent.requires_grad_(False).update()
    prior = ConditionalPrior()
    prior.update()
    return latent, prior


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (1, 1), (9, 3)])
@torch.no_grad()
def test_a_decoder_reads_what_was_written(height, width):
    latent, prior = make_latent()
    y = torch.randn(4, 1, 4, height, width)
    there, here, before = NOTHING, NOTHING, None
    for frame in y:
        encoder, estimate = StreamEncoder(), RateEstimate()
        known = prior, QUALITY, (height, width), None
        latent(frame, estimate, *known, there)
        y_hat, there = latent(frame, encoder, *known, there)
        decoder = StreamDecoder(encoder.finish(), account=True)
        read, here = latent(None, decoder, *known, here)
        decoder.finish()
        assert torch.equal(read, y_hat)
        for a, b in zip(there, here, strict=True):
            assert torch.equal(a, b)
        # z itself, whatever it was expected to be.
        padded = torch.nn.functional.pad(frame, (0, -width % 4, 0, -height % 4), mode="replicate")
        z = torch.round(latent.hyper_encoder(padded * latent.gain(QUALITY)))
        assert torch.equal(there.hypers[:, :3], z)
        if before is not None:
            assert torch.equal(there.hypers[:, 4:7], before)
        before = z
        told = decoder.bits["residual_hyper"]
        assert told == pytest.approx(estimate.bits["residual_hyper"], rel=0.02, abs=1)
    assert there.hypers[:, :3].abs().max() > 1


def test_z_that_stays_costs_next_to_nothing_once_that_is_learned():
    torch.manual_seed(0)
    history, prior = HyperHistory(3, 8), ShiftedPrior()
    z = torch.randint(-6, 7, (8, 3, 2, 3)).float()
    once, twice = history.joined(z, None), history.joined(z, history.joined(z, None))
    quality = torch.full((8,), 30.0)

    def bits(hypers: Tensor | None) -> Tensor:
        coder = RateModel(lambda like: torch.full_like(like, 0.5))
        whole, sign, index = prior.about(*history(hypers, quality, (2, 3)))
        symbols = coder.code((z - whole) * sign, index, prior, "z")
        torch.testing.assert_close(whole + symbols, z)
        return coder.bits["z"].sum()

    before = float(bits(once).detach())
    optimizer = torch.optim.Adam((*history.parameters(), *prior.parameters()), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        (bits(once) + bits(twice)).backward()
        optimizer.step()
    assert float(bits(twice).detach()) < 0.2 * before
    assert float(bits(None).detach()) > float(bits(once).detach())
    history.update()
    prior.update()
    coder = RateEstimate()
    whole, sign, row = prior.about_eighths(*history.exact(twice, quality, (2, 3)))
    with torch.no_grad():
        coder.code((z - whole) * sign, row, prior, "z")
    assert coder.bits["z"] < 0.25 * before


def test_every_weight_learns():
    history, prior = loud(), shifted()
    history.requires_grad_(True)
    prior.requires_grad_(True)
    z = torch.randint(-6, 7, (2, 3, 2, 3)).float()
    hypers = remembered(history, *torch.randint(-6, 7, (2, 2, 3, 2, 3)).float())
    coder = RateModel()
    expected = history(hypers, torch.tensor([3.0, 50.0]), (2, 3))
    whole, sign, index = prior.about(*expected)
    coder.code((z - whole) * sign, index, prior, "z")
    coder.bits["z"].sum().backward()
    for name, parameter in (*history.named_parameters(), *prior.named_parameters()):
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_no_gradient_goes_back_in_time():
    history = HyperHistory(2)
    z = torch.randn(1, 2, 2, 2, requires_grad=True)
    assert not history.joined(z, None).requires_grad


def test_an_i_frame_has_no_history():
    with pytest.raises(Exception, match=r"hyper_history is of inter\.entropy alone"):
        load_experiment(CONFIGS / "debug.yaml", ["model.intra.entropy.hyper_history=true"])


def test_a_sample_that_begins_has_no_history():
    """Zeros, ones included, are what nothing is."""
    history = loud()
    hypers = remembered(history, *torch.randint(-6, 7, (2, 1, 3, 2, 3)).float())
    nothing = history.exact(None, QUALITY, (2, 3))
    for a, b in zip(history.exact(0 * hypers, QUALITY, (2, 3)), nothing, strict=True):
        assert torch.equal(a, b)
    assert Past().hypers is None
