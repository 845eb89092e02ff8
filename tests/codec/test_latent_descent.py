"""Gradient descent on a latent, whatever it is priced by."""

import pytest
import torch

from codec.entropy.coders import RateEstimate
from codec.latent_descent import Pace, _certain, _settled, descended

from .conftest import debug_config, loud_codec

QUALITY = torch.tensor([40.0])
SIZE = (4, 6)


def test_what_is_near_a_whole_number_is_rounded_and_has_a_gradient():
    symbols = torch.tensor([-1.25, -0.5, 0.0, 0.125, 0.375, 1.75, 2.5], requires_grad=True)
    assert torch.equal(_settled(symbols, 0.0), symbols)
    some = torch.tensor([-1.25, -0.5, 0.0, 0.0, 0.375, 1.75, 2.5])
    assert torch.equal(_settled(symbols, 0.25), some)
    near = torch.tensor([-1.0, -0.5, 0.0, 0.0, 0.0, 2.0, 2.5])
    assert torch.equal(_settled(symbols, 0.5), near)
    (slope,) = torch.autograd.grad(_settled(symbols, 0.25).sum(), symbols)
    assert torch.equal(slope, torch.ones(7))


@torch.no_grad()
def test_only_zeros_that_were_to_be_expected_are_certain(codec):
    """By what the prior asks for a zero at each scale, at a tenth of a bit."""
    prior = codec.intra.prior
    index = torch.arange(prior.levels, dtype=torch.float32)
    zero = torch.full_like(index, 0.4)
    cost = -torch.log2(prior.likelihood(torch.zeros_like(index), index))
    assert 0 < int((cost < 0.1).sum()) < prior.levels
    assert torch.equal(_certain(zero, index, prior, 0.1), cost < 0.1)
    assert torch.equal(_certain(-zero, index + 0.3, prior, 0.1), cost < 0.1)
    assert not _certain(zero + 0.2, index, prior, 0.1).any()


@torch.no_grad()
def test_certain_zeros_stay_zero_and_others_move():
    """However much a price asks for all of them to move."""
    codec = loud_codec(debug_config("two passes"))
    intra = codec.intra
    intra.latent.scale_path.offset[:, ::2] -= 22.0  # half of the channels are quiet
    codec.update()
    y = torch.randn(1, intra.latent.latent, *SIZE, generator=torch.Generator().manual_seed(3))
    y = y / intra.latent.gain(QUALITY)
    given = intra.latent.given(y, RateEstimate(), intra.prior, QUALITY, SIZE)
    index = intra.prior.clamp(given.index.float())
    certain = _certain((y - given.means) * given.gain, index, intra.prior, 0.1)
    free = (index.round() >= intra.prior.first_coded) & ~certain
    assert certain.any() and free.any()
    seen = []

    def price(y_hat, left):
        seen.append(((y_hat - given.means) * given.gain, left.symbols))
        return -1e6 * y_hat.sum()

    known = (QUALITY, SIZE)
    # One round, so that z and with it what is certain stay as they are.
    pace = Pace(3, 1e-6, 0.1)
    costs = iter([1.0, 0.0])
    found = descended(intra.latent, y, intra.prior, known, price, lambda _: next(costs), 3, pace)
    torch.testing.assert_close(found[~free], y[~free])
    assert (found[free] > y[free]).all()
    for symbols, left in seen:
        assert torch.equal(symbols[certain], torch.zeros_like(symbols[certain]))
        assert torch.equal(left[certain], torch.zeros_like(left[certain]))


@pytest.mark.parametrize(("steps", "round_"), [(1, 5), (4, 5), (7, 3)])
@torch.no_grad()
def test_steps_begin_unrounded_and_end_rounded(codec, steps, round_):
    """By the latents that the price is asked for: the share of whole symbols never falls."""
    intra = codec.intra
    y = torch.randn(1, intra.latent.latent, *SIZE, generator=torch.Generator().manual_seed(3))
    given = intra.latent.given(y, RateEstimate(), intra.prior, QUALITY, SIZE)
    index = intra.prior.clamp(given.index.float())
    free = index.round() >= intra.prior.first_coded
    free &= ~_certain((y - given.means) * given.gain, index, intra.prior, 0.1)
    whole = []

    def price(y_hat, left):
        symbols = ((y_hat - given.means) * given.gain)[free]
        whole.append(float(((symbols - symbols.round()).abs() < 1e-4).float().mean()))
        assert torch.equal(left.symbols, left.symbols.round())
        return 0 * y_hat.sum()

    def cost(y):
        return 0.0  # nothing is ever cheaper, so what is given comes back

    # Steps of nothing: z, and with it the means, stay as they are.
    found = descended(
        intra.latent, y, intra.prior, (QUALITY, SIZE), price, cost, steps, Pace(round_, 0.0, 0.1)
    )
    assert torch.equal(found, y)
    assert len(whole) == steps
    assert whole[0] < 0.01
    assert whole == sorted(whole)
    if steps > 1:
        assert whole[-1] == 1.0


@torch.no_grad()
def test_the_cheapest_of_all_rounds_is_kept(codec):
    """Rounds whose cost rises again are not what comes back."""
    intra = codec.intra
    y = torch.zeros(1, intra.latent.latent, *SIZE)
    asked = []

    def cost(y):
        asked.append(y)
        return [3.0, 1.0, 2.0][len(asked) - 1]

    def price(y_hat, _):
        return 100 * y_hat.sum()

    known = (QUALITY, SIZE)
    found = descended(intra.latent, y, intra.prior, known, price, cost, 4, Pace(2, 0.01, 0.0))
    assert len(asked) == 3
    assert torch.equal(found, asked[1])
    assert not torch.equal(found, asked[2])
    assert not torch.equal(found, y)


@torch.no_grad()
def test_the_rate_falls_evenly_over_all_steps(codec):
    """Down one even slope, steep enough that bits do not count, in rounds of one step."""
    intra = codec.intra
    y = torch.zeros(1, intra.latent.latent, *SIZE)
    asked = []

    def cost(y):
        asked.append(y)
        return float(len(asked))

    def price(y_hat, _):
        return 1e5 * y_hat.sum()

    known = (QUALITY, SIZE)
    descended(intra.latent, y, intra.prior, known, price, cost, 3, Pace(1, 1e-6, 0.0))
    moved = [float((a - b).sum()) for a, b in zip(asked, asked[1:], strict=False)]
    assert moved[0] > 0
    assert [one / moved[0] for one in moved] == pytest.approx([1.0, 0.65, 0.3], rel=0.02)
