"""Cheaper frames by gradient descent on their latents, each step of which codes the frame.

    motion's y --descent--> flow --P codec--> the frame
    residual's y --descent--> picture, feature --P codec--> the next frame

A residual that is optimised for its own frame takes from those that refer to it what it saves: the
network was trained to leave them what they need (docs/decisions.md). So its steps code the next
frame as well, from what the latent would decode to and with that frame's motion held, and add what
it costs. A frame that no other refers to is priced alone, and so is the motion.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from codec.entropy.coders import RateEstimate, RateModel
from codec.entropy.latent import Coder, LatentCodec, Past
from codec.entropy.priors import ConditionalPrior
from codec.latent_descent import Pace, descended

PACE = Pace(round=3, rate=0.0035, certain=0.1)


def weighted_error(decoded: Tensor, frame: Tensor, rate_lambda: Tensor, shown: tuple) -> Tensor:
    """What the error of a decoded frame [1, 3, H, W] is worth in bits, a scalar.

    That is lambda times the mean squared error, in bits a pixel, times the pixels of ``shown``.
    """
    height, width = shown
    error = (decoded - frame)[..., :height, :width].float()
    return rate_lambda.squeeze() * error.square().sum() / frame.shape[1]


@torch.no_grad()
def descended_by_coding(
    latent: LatentCodec,
    y: Tensor,
    prior: ConditionalPrior,
    known: tuple,
    errors: Callable[[Tensor, Past, Coder], Tensor],
    steps: int,
) -> Tensor:
    """A latent that, with what follows from it, costs no more than ``y``.

    Transforms run in bfloat16 where that is fast: so precisely is "no more" meant.

    Args:
        latent, prior: that code it; known: what else its ``forward`` takes, from ``quality`` on.
        y: where to begin.
        errors: of (y_hat, what it leaves to the next frame's latent, coder), what the errors of
            decoded frames are worth in bits, a scalar; all symbols that follow from the latent go
            to the coder.
        steps: at least 1. The same steps on the same machine give the same latent.
    """
    noise = torch.Generator().manual_seed(1)
    device = y.device.type

    def fast() -> torch.autocast:
        # Bits and table indices stay out of it (LatentCodec.forward).
        return torch.autocast(device, torch.bfloat16, enabled=_fast_in_bfloat16(device))

    def drawn(like: Tensor) -> Tensor:
        return torch.rand(like.shape, generator=noise).to(like)

    def price(y_hat: Tensor, left: Past) -> Tensor:
        coder = RateModel(drawn)
        with fast():
            worth = errors(y_hat, left, coder)
        return sum((bits.sum() for bits in coder.bits.values()), worth)

    def cost(y: Tensor) -> float:
        coder = RateEstimate()
        y_hat, left = latent(y, coder, prior, *known)
        with fast():
            worth = float(errors(y_hat, left, coder))
        return sum(coder.bits.values(), worth)

    return descended(latent, y, prior, known, price, cost, steps, PACE)


def _fast_in_bfloat16(device: str) -> bool:
    """Whether the device multiplies in bfloat16; a CPU that does not is slower in it."""
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
