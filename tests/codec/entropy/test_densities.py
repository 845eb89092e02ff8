"""The mixture of two Gaussians: its density, its tables, and that its shape is learned."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.entropy.coders import RateEstimate, RateModel, StreamDecoder, StreamEncoder
from codec.entropy.priors import TAIL_MASS, ConditionalPrior

SHAPES = st.lists(st.floats(-1.5, 1.5), min_size=9, max_size=9)


def mixture(shape: list[float] | None = None) -> ConditionalPrior:
    prior = ConditionalPrior("mixture")
    if shape is not None:
        prior.model.shape.data = torch.tensor(shape).reshape(3, 3)
    prior.requires_grad_(False).update()
    return prior


def density(prior: ConditionalPrior, symbols: torch.Tensor, index: float) -> torch.Tensor:
    """The definition, by torch's own normal distribution in float64."""
    scale = 0.11 * (64 / 0.11) ** (index / 63)
    place = 2 * index / 63 - 1
    powers = torch.tensor([1.0, place, place**2], dtype=torch.float64)
    logit, narrow, wide = (prior.model.shape.detach().double() * powers).sum(1)
    weight = torch.sigmoid(logit)
    total = torch.zeros_like(symbols)
    for part, spread in ((1 - weight, narrow), (weight, wide)):
        law = torch.distributions.Normal(0.0, scale * spread.exp())
        total += part * (law.cdf(symbols + 0.5) - law.cdf(symbols - 0.5))
    return total


@settings(max_examples=30, deadline=None)
@given(SHAPES, st.floats(0, 63))
def test_the_density_is_the_defined_one(shape, index):
    prior = mixture(shape)
    symbols = torch.arange(-40, 41, dtype=torch.float64) / 4
    found = prior.likelihood(symbols.float(), torch.full((81,), index)).double()
    assert torch.allclose(found, density(prior, symbols, index), rtol=1e-4, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(SHAPES)
def test_rows_end_where_the_tail_is_light_and_no_later(shape):
    prior = mixture(shape)
    _, lengths, offsets = prior.tables()
    for index in range(0, 64, 9):
        center = -offsets[index]
        assert lengths[index] == 2 * center + 3  # the escape and the leading zero
        symbols = torch.arange(-center, center + 1, dtype=torch.float64)
        beyond = 1 - float(density(prior, symbols, index).sum())
        assert beyond < TAIL_MASS * 1.02
        if center:
            shorter = 1 - float(density(prior, symbols[1:-1], index).sum())
            assert shorter > TAIL_MASS * 0.98


@settings(max_examples=15, deadline=None)
@given(SHAPES, st.integers(0, 2**31))
def test_a_stream_takes_what_the_density_says(shape, seed):
    prior = mixture(shape)
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(1, 64, (1, 3, 17, 19), generator=generator)
    weight, narrow, wide = prior.model.components(prior.scale(index))
    spread = torch.where(torch.rand(index.shape, generator=generator) < weight, wide, narrow)
    residual = torch.randn(index.shape, generator=generator) * spread
    encoder, estimate = StreamEncoder(), RateEstimate()
    symbols = encoder.code(residual, index, prior, "y")
    estimate.code(residual, index, prior, "y")
    stream = encoder.finish()
    assert torch.equal(StreamDecoder(stream).code(None, index, prior, "y"), symbols)
    assert 8 * len(stream) == pytest.approx(estimate.bits["y"], rel=0.03, abs=150)


def test_the_shape_learns_what_the_symbols_are():
    """Symbols half of which are three times as loud: the Gaussian of their mean costs more."""
    torch.manual_seed(0)
    index = torch.full((1, 1, 100, 200), 40.0)
    prior, gaussian = mixture(), ConditionalPrior()
    loud = 1 + 2 * (torch.rand(index.shape) < 0.5)
    residual = torch.randn(index.shape) * prior.scale(index) * loud / 5**0.5
    prior.model.shape.requires_grad_(True)
    optimizer = torch.optim.Adam([prior.model.shape], 0.05)

    def bits(of: ConditionalPrior) -> torch.Tensor:
        coder = RateModel(lambda like: torch.full_like(like, 0.5))
        coder.code(residual.round(), index, of, "y")
        return coder.bits["y"].sum()

    for _ in range(60):
        optimizer.zero_grad()
        bits(prior).backward()
        optimizer.step()
    saved = 1 - float(bits(prior).detach() / bits(gaussian))
    # What the true density would save on these very symbols.
    law = density_of_halves(residual.round(), float(prior.scale(index)[0, 0, 0, 0]))
    possible = 1 + float(torch.log2(law).sum() / bits(gaussian))
    assert possible > 0.015
    assert saved > 0.9 * possible


def density_of_halves(symbols: torch.Tensor, scale: float) -> torch.Tensor:
    total = torch.zeros_like(symbols)
    for spread in (1.0, 3.0):
        law = torch.distributions.Normal(0.0, scale * spread / 5**0.5)
        total += 0.5 * (law.cdf(symbols + 0.5) - law.cdf(symbols - 0.5))
    return total


def test_gradients_are_those_of_the_definition():
    prior = ConditionalPrior("mixture")
    symbols = torch.tensor([0.3, -2.0, 5.0], requires_grad=True)
    index = torch.tensor([20.0, 33.3, 50.0], requires_grad=True)
    prior.likelihood(symbols, index).log().sum().backward()

    def log_density(moved: float, by: float) -> float:
        pairs = zip(symbols.detach().double() + moved, index.detach().tolist(), strict=True)
        return sum(float(density(prior, x[None], i + by).log()) for x, i in pairs)

    step = 1e-4
    by_symbols = (log_density(step, 0) - log_density(-step, 0)) / (2 * step)
    by_index = (log_density(0, step) - log_density(0, -step)) / (2 * step)
    assert float(symbols.grad.sum()) == pytest.approx(by_symbols, rel=1e-3)
    assert float(index.grad.sum()) == pytest.approx(by_index, rel=1e-3)
    for row in range(3):
        for power in range(3):
            found = float(prior.model.shape.grad[row, power])
            change = 0.0
            for sign in (1, -1):
                moved = ConditionalPrior("mixture")
                moved.model.shape.data[row, power] += sign * 1e-3
                pairs = zip(symbols.detach().double(), index.detach().tolist(), strict=True)
                logs = [float(density(moved, x[None], i).log()) for x, i in pairs]
                change += sign * sum(logs) / 2e-3
            assert found == pytest.approx(change, rel=2e-3, abs=1e-4)
