"""Gradient descent on a latent that is about to be coded: what an encoder can do with more time.

    y --(z coded)--> means, scales --+
    ^                                | a round
    +---- steps down the price's gradient, z as it is ----+

The first steps do not round. The later a step, the more symbols it rounds, those that are nearest
to a whole number first, so that the others can make up for it; the last one rounds all. In the
likelihood the latent stands as it is. Zeros where hardly anything else is to be expected stay out
of it: a little of each would cost next to nothing, do much for the picture, and be rounded away at
the end. After each round z is made anew from what y has become, and the whole is priced with real
rounding; the cheapest y is kept, the first one included. Decoders know nothing of it. The method is
that of content-adaptive encoding (Campos et al., CVPR workshops 2019); noise in the place of
rounding, as there, takes 3 to 4 % more rate (docs/decisions.md).
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from codec.entropy.coders import RateEstimate
from codec.entropy.latent import LatentCodec, Past
from codec.entropy.priors import ConditionalPrior
from codec.layers import round_straight_through

_LAST_RATE = 0.3  # of the rate, in the last step; it falls evenly
_MOMENTUM = 0.9


class Pace(NamedTuple):
    """Of a descent.

    Attributes:
        round: most steps that z stays as it is.
        rate: of the first step: symbols for each bit a symbol.
        certain: bits; a zero that costs less stays zero.
    """

    round: int
    rate: float
    certain: float


@torch.no_grad()
def descended(
    latent: LatentCodec,
    y: Tensor,
    prior: ConditionalPrior,
    known: tuple,
    price: Callable[[Tensor, Past], Tensor],
    cost: Callable[[Tensor], float],
    steps: int,
    pace: Pace,
) -> Tensor:
    """A latent that costs no more than ``y``.

    Args:
        latent, prior: that code it; known: what else its ``forward`` takes, from ``quality`` on.
        y: where to begin.
        price: of a decoded latent and what it leaves to the next frame's (symbols, rounded), what
            it costs besides its own bits: a scalar in bits with a gradient.
        cost: of a latent, all that it costs when it is really rounded, in bits.
        steps: at least 1. The same steps on the same machine give the same latent.
    """
    y = best = y.float()
    least = cost(y)
    for done in range(0, steps, pace.round):
        given = latent.given(y, RateEstimate(), prior, *known)
        index = prior.clamp(given.index.float())
        coded = index.round() >= prior.first_coded
        symbols = (y - given.means) * given.gain
        free = coded & ~_certain(symbols, index, prior, pace.certain)
        speed = torch.zeros_like(symbols)
        for step in range(done, min(done + pace.round, steps)):
            gone = step / max(1, steps - 1)
            with torch.enable_grad():
                symbols.requires_grad_(True)
                likelihood = prior.bounded_likelihood(symbols, index)
                bits = -(torch.log2(likelihood) * free).sum()
                y_hat = given.means + _settled(symbols, 0.5 * gone) * free / given.gain
                left = Past(symbols.detach().round() * coded, given.hypers)
                (slope,) = torch.autograd.grad(bits + price(y_hat, left), symbols)
            speed = _MOMENTUM * speed + slope
            symbols = symbols.detach() - pace.rate * (1 - gone * (1 - _LAST_RATE)) * speed
        y = given.means + symbols / given.gain
        now = cost(y)
        if now < least:
            best, least = y, now
    return best


def _certain(symbols: Tensor, index: Tensor, prior: ConditionalPrior, least: float) -> Tensor:
    """Which symbols are rounded to a zero that costs less than so many bits."""
    zeros = symbols.round() == 0
    cost = -torch.log2(prior.bounded_likelihood(torch.zeros_like(symbols), index.round()))
    return zeros & (cost < least)


def _settled(symbols: Tensor, reach: float) -> Tensor:
    """The symbols, those within ``reach`` of a whole number rounded, straight through."""
    near = (symbols - symbols.round()).abs() < reach
    return torch.where(near, round_straight_through(symbols), symbols)
