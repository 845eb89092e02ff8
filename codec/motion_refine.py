"""Correcting the estimated motion before it is coded: the encoder's part of Shifted-NLS.

    flow --search round it at 1/4 of the frame, patch against patch--> vectors --median--> flow

The flow net sees a few pixels at each of its levels and misses what moves far between two frames
without much context; a search finds it. What it finds is smoothed by a median, for single vectors
are dear to code. Whether it pays is asked frame by frame: both flows are coded for trial
(:func:`price`) and the cheaper one is kept. Decoders know nothing of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.config import RefineConfig
from codec.layers import resize_flow
from kernels import shifted_search

_GRID = 4  # the search's grid is 1 / _GRID of the frame
_BLOCK = 16
_PRICE = 0.2  # see price()


@torch.no_grad()
def refined(
    current: Tensor, reference: Tensor, flow: Tensor, top: int, config: RefineConfig
) -> Tensor:
    """A flow found by search round an estimated one.

    Args:
        current, reference: [B, 3, H, W] in [0, 1]; H and W divide by 4.
        flow: [B, 2, H / top, W / top] in pixels of that grid.
        top: of the flow net, 1 or 2.
        config: window, patch, smoothing.

    Returns:
        A flow like ``flow``.
    """
    factor = _GRID // top
    query, key = (
        patches(F.avg_pool2d(x.float(), _GRID), config.patch) for x in (current, reference)
    )
    coarse = F.avg_pool2d(flow.float(), factor) / factor
    there, _ = shifted_search(query, key, coarse, window=1, topk=1, metric="l2")
    best, offsets = shifted_search(query, key, coarse, window=config.window, topk=1, metric="l2")
    # Mean squared difference; a vector is exchanged only for a clearly better match.
    gain = (there - best)[:, 0, :, :, 0] / query.shape[1]
    found = offsets[:, 0, :, :, 0].permute(0, 3, 1, 2)
    coarse = torch.where(gain[:, None] > config.least_gain, found, coarse)
    return resize_flow(_median(coarse, config.smooth), float(factor)).to(flow.dtype)


def price(bits: Tensor | float, warped: Tensor, frame: Tensor, rate_lambda: Tensor) -> float:
    """What a motion costs: its own bits, and those that what it leaves over will cost, about.

    Each halving of a block's error saves some share of a bit a pixel, until the error is what the
    quality allows anyway, about 0.25 / lambda: ``_PRICE * log2(1 + error / (0.25 / lambda))``.
    ``_PRICE`` is low, so that a search that only looks better is left alone (docs/decisions.md).

    Args:
        bits: of the motion.
        warped, frame: [1, 3, H, W].
        rate_lambda: lambda of mean squared error in [0, 1] against bits a pixel.
    """
    error = F.avg_pool2d((warped - frame).float().square().mean(1, keepdim=True), _BLOCK)
    left = _PRICE * _BLOCK**2 * torch.log2(1 + error * rate_lambda / 0.25)
    return float(bits) + float(left.sum())


def patches(frame: Tensor, size: int, border: str = "replicate") -> Tensor:
    """Each pixel's patch as channels: [B, 3, h, w] -> [B, 3 size^2, h, w]; border: F.pad's mode."""
    padded = F.pad(frame, (size // 2,) * 4, mode=border)
    return F.unfold(padded, size).unflatten(2, frame.shape[2:])


def _median(flow: Tensor, size: int) -> Tensor:
    """Each component's median over size x size vectors, borders repeated."""
    padded = F.pad(flow, (size // 2,) * 4, mode="replicate")
    windows = padded.unfold(2, size, 1).unfold(3, size, 1)
    # Side by side in memory: a median of numbers far apart takes half as long again.
    return windows.reshape(*flow.shape, size**2).median(-1).values
