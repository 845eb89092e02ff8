"""Correcting the estimated motion before it is coded: the encoder's part of Shifted-NLS.

    coarsest level: search round no motion and round the estimate, patch against patch
    each finer one: the flow so far --search--> vectors --median--> --variational--> flow

The flow net sees a few pixels at each of its levels and misses what moves far between two frames
without much context; a search finds it. What is found is made as smooth as the pictures allow, for
ragged vectors are dear to code; how smooth is a choice, so there are several. Which pays is asked
frame by frame: the estimate and all of them are coded for trial, priced with what they leave over
(:func:`left_over`), and the cheapest is kept. Decoders know nothing of it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.config import RefineConfig
from codec.layers import resize_flow
from codec.motion_variational import smoothed
from kernels import shifted_search

_FINEST = 2  # the finest level is 1 / _FINEST of the frame
_LEAST_SIDE = 16  # a level with a shorter side has no coarser one
_CHOICES = 9  # best matches of a search among which a nearer one may win
_BLOCK = 16
_PRICE = 0.2  # see left_over()


@torch.no_grad()
def refined(
    current: Tensor, reference: Tensor, flow: Tensor, top: int, config: RefineConfig
) -> list[Tensor]:
    """Flows found by search, with an estimated one as a hint.

    Args:
        current, reference: [B, 3, H, W] in [0, 1]; H and W divide by 4.
        flow: [B, 2, H / top, W / top] in pixels of that grid.
        top: of the flow net, 1 or 2.
        config: windows, patch, smoothness.

    Returns:
        A flow like ``flow`` for each of ``config.stiffness``.
    """
    pictures = torch.cat((current, reference)).float().contiguous()
    levels = [F.avg_pool2d(pictures, _FINEST)]
    while min(levels[-1].shape[-2:]) >= _LEAST_SIDE:
        levels.append(F.avg_pool2d(levels[-1], 2, ceil_mode=True))
    finest, *coarser = levels
    found = _sized(flow.float(), levels[-1])
    for number, level in enumerate(reversed(coarser)):
        here, there = level.chunk(2)
        if number == 0:
            found = _begin(here, there, found, config)
        else:
            query, key = patches(here, config.patch), patches(there, config.patch)
            found = _sized(found, here)
            found, _ = _search(query, key, found, config.window, config.penalty)
        found = _smoothed(level, _median(found, config.median), config.stiffness[0], config)
    # At the finest level whole pixels say nothing that the smoothing does not.
    found = _median(_sized(found, finest), config.median)
    fine = [_smoothed(finest, found, stiffness, config) for stiffness in config.stiffness]
    return [resize_flow(each, _FINEST / top).to(flow.dtype) for each in fine]


def _begin(here: Tensor, there: Tensor, hint: Tensor, config: RefineConfig) -> Tensor:
    """Round no motion and round the hint, each pixel what matches better."""
    query, key = patches(here, config.patch), patches(there, config.patch)
    near, nothing = (
        _search(query, key, centre, config.reach, config.penalty)
        for centre in (hint, torch.zeros_like(hint))
    )
    return torch.where(near[1] < nothing[1], near[0], nothing[0])


def _search(
    query: Tensor, key: Tensor, flow: Tensor, window: int, penalty: float
) -> tuple[Tensor, Tensor]:
    """The vectors [B, 2, h, w] of the best matches and what they cost [B, 1, h, w].

    A match costs the mean squared difference of its patch (:func:`patches`), and ``penalty`` for
    each squared pixel that it is away from where the search began.
    """
    choices = min(_CHOICES, window**2)
    distances, offsets = shifted_search(query, key, flow, window=window, topk=choices, metric="l2")
    away = offsets[:, 0] - flow.permute(0, 2, 3, 1)[..., None, :]  # [B, h, w, choices, 2]
    costs = distances[:, 0] / query.shape[1] + penalty * away.square().sum(-1)
    cost, choice = costs.min(-1, keepdim=True)
    index = choice[..., None].expand(*choice.shape, 2)
    vectors = offsets[:, 0].gather(3, index)[..., 0, :]
    return vectors.permute(0, 3, 1, 2).contiguous(), cost.permute(0, 3, 1, 2)


def _smoothed(level: Tensor, flow: Tensor, stiffness: float, config: RefineConfig) -> Tensor:
    return smoothed(
        *level.chunk(2),
        flow,
        stiffness=stiffness,
        edge=config.edge,
        rounds=config.rounds,
        sweeps=config.sweeps,
    )


def _sized(flow: Tensor, like: Tensor) -> Tensor:
    """The flow at a level's size, in pixels of its grid."""
    height, width = like.shape[-2:]
    x, y = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False).split(1, 1)
    # Not by a tensor of both factors: it would have to be copied to the device.
    return torch.cat((x * (width / flow.shape[-1]), y * (height / flow.shape[-2])), 1)


def left_over(warped: Tensor, frame: Tensor, rate_lambda: Tensor) -> Tensor:
    """Bits that the difference of a warped frame from the true one will cost, about: a scalar.

    Each halving of a block's error saves some share of a bit a pixel, until the error is what the
    quality allows anyway, about 0.25 / lambda: ``_PRICE * log2(1 + error / (0.25 / lambda))``.
    ``_PRICE`` is low, so that a motion that only looks better is left alone (docs/decisions.md).

    Args:
        warped, frame: [1, 3, H, W].
        rate_lambda: lambda of mean squared error in [0, 1] against bits a pixel.
    """
    error = F.avg_pool2d((warped - frame).float().square().mean(1, keepdim=True), _BLOCK)
    return _PRICE * _BLOCK**2 * torch.log2(1 + error * rate_lambda / 0.25).sum()


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
