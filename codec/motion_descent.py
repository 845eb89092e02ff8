"""Cheaper motion by gradient descent on its latent: what an encoder can do with more time.

    flow --encoder--> y --(z coded)--> means, scales --+
                      ^                                | a round
                      +---- steps down the price's gradient, z as it is ----+

The price is that by which the encoder chooses among flows: the motion's bits and, about, those that
the warped frame leaves to the residual. In a step noise stands for rounding, in the likelihood the
latent stands as it is. After each round z is made anew from what y has become, and the whole
is priced with real rounding; the cheapest y is kept, the first one included. Decoders know nothing
of it. The method is that of content-adaptive encoding (Campos et al., CVPR workshops 2019), on the
motion alone: descent on the residual's latent serves a frame at the cost of those that refer to
it (docs/decisions.md).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from codec.entropy.coders import RateEstimate
from codec.entropy.priors import ConditionalPrior
from codec.motion import MotionCodec

ROUND = 10
"""Most steps that z stays as it is."""

_RATE = 0.004  # symbols a step for each bit a symbol
_LAST_RATE = 0.3  # of the rate, at the end of a round
_MOMENTUM = 0.9


@torch.no_grad()
def descended(
    motion: MotionCodec,
    flow: Tensor,
    left_over: Callable[[Tensor], Tensor],
    prior: ConditionalPrior,
    quality: Tensor,
    size: tuple[int, int],
    previous: Tensor | None,
    steps: int,
) -> Tensor:
    """A latent of the motion that costs no more than the flow's own.

    Args:
        flow: where to begin, [1, 2, h, w].
        left_over: of a decoded flow, the bits that it leaves to the residual: a scalar with a
            gradient.
        prior, quality, size, previous: as ``MotionCodec.forward`` has them.
        steps: at least 1. The same steps on the same machine give the same latent.
    """
    known = quality, size, None, previous

    def cost(y: Tensor) -> float:
        trial = RateEstimate()
        decoded, _ = motion.code(y, trial, prior, quality, size, previous)
        return sum(trial.bits.values()) + float(left_over(decoded))

    y = best = motion.encoder(flow).float()
    least = cost(y)
    noise = torch.Generator().manual_seed(0)
    for done in range(0, steps, ROUND):
        given = motion.latent.given(y, RateEstimate(), prior, *known)
        coded = prior.clamp(given.index.float()).round() >= prior.first_coded
        symbols = (y - given.means) * given.gain
        speed = torch.zeros_like(symbols)
        for rate in _rates(min(ROUND, steps - done)):
            unsure = torch.rand(symbols.shape, generator=noise).to(symbols) - 0.5
            with torch.enable_grad():
                symbols.requires_grad_(True)
                likelihood = prior.bounded_likelihood(symbols, given.index.float())
                bits = -(torch.log2(likelihood) * coded).sum()
                y_hat = given.means + (symbols + unsure) * coded / given.gain
                price = bits + left_over(motion.flow_of(y_hat))
                (slope,) = torch.autograd.grad(price, symbols)
            speed = _MOMENTUM * speed + slope
            symbols = symbols.detach() - rate * speed
        y = given.means + symbols / given.gain
        now = cost(y)
        if now < least:
            best, least = y, now
    return best


def _rates(steps: int) -> list[float]:
    """The steps' rates, falling evenly."""
    return [_RATE * (1 - (1 - _LAST_RATE) * i / max(1, steps - 1)) for i in range(steps)]
