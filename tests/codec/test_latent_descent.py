"""Gradient descent on a latent, whatever it is priced by."""

import pytest
import torch

from codec.entropy.coders import RateEstimate
from codec.latent_descent import Pace, _settled, descended

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


@pytest.mark.parametrize(("steps", "round_"), [(1, 5), (4, 5), (7, 3)])
@torch.no_grad()
def test_steps_begin_unrounded_and_end_rounded(codec, steps, round_):
    """By the latents that the price is asked for: the share of whole symbols never falls."""
    intra = codec.intra
    y = torch.randn(1, intra.latent.latent, *SIZE, generator=torch.Generator().manual_seed(3))
    given = intra.latent.given(y, RateEstimate(), intra.prior, QUALITY, SIZE)
    coded = given.index.round() >= intra.prior.first_coded
    whole = []

    def price(y_hat, left):
        symbols = ((y_hat - given.means) * given.gain)[coded]
        whole.append(float(((symbols - symbols.round()).abs() < 1e-4).float().mean()))
        assert torch.equal(left.symbols, left.symbols.round())
        return 0 * y_hat.sum()

    def cost(y):
        return 0.0  # nothing is ever cheaper, so what is given comes back

    # Steps of nothing: z, and with it the means, stay as they are.
    found = descended(
        intra.latent, y, intra.prior, (QUALITY, SIZE), price, cost, steps, Pace(round_, 0.0)
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
    found = descended(intra.latent, y, intra.prior, known, price, cost, 4, Pace(2, 0.01))
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
    descended(intra.latent, y, intra.prior, known, price, cost, 3, Pace(1, 1e-6))
    moved = [float((a - b).sum()) for a, b in zip(asked, asked[1:], strict=False)]
    assert moved[0] > 0
    assert [one / moved[0] for one in moved] == pytest.approx([1.0, 0.65, 0.3], rel=0.02)
