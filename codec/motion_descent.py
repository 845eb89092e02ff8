"""Cheaper motion by gradient descent on its latent.

    flow --encoder--> y --descent--> y --code--> decoded flow

The price is that by which the encoder chooses among flows: the motion's bits and, about, those that
the warped frame leaves to the residual (docs/decisions.md).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from codec.entropy.coders import RateEstimate
from codec.entropy.latent import Past
from codec.entropy.priors import ConditionalPrior
from codec.latent_descent import Pace, descended
from codec.motion import MotionCodec

PACE = Pace(round=3, rate=0.004, certain=0.03)


@torch.no_grad()
def descended_motion(
    motion: MotionCodec,
    y: Tensor,
    left_over: Callable[[Tensor], Tensor],
    prior: ConditionalPrior,
    quality: Tensor,
    size: tuple[int, int],
    past: Past,
    steps: int,
) -> Tensor:
    """A latent of the motion that costs no more than ``y``.

    Args:
        y: where to begin, the latent of a flow.
        left_over: of a decoded flow, the bits that it leaves to the residual: a scalar with a
            gradient.
        prior, quality, size, past: as ``MotionCodec.forward`` has them.
        steps: at least 1.
    """

    def cost(y: Tensor) -> float:
        trial = RateEstimate()
        decoded, _ = motion.code(y, trial, prior, quality, size, past)
        return sum(trial.bits.values()) + float(left_over(decoded))

    def price(y_hat: Tensor, _: Past) -> Tensor:
        return left_over(motion.flow_of(y_hat))

    known = quality, size, None, past
    return descended(motion.latent, y, prior, known, price, cost, steps, PACE)
