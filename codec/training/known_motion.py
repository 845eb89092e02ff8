"""Pairs of frames whose motion is known, made of photographs or of the training frames themselves.

:func:`move_frames` works on its frames' device. A frame is the reference. The current frame is the
same picture seen through a smooth random field, with a piece of another picture moving before it on
a path of its own; so the flow is exact, and where the background comes out from behind that piece
it is marked as not visible.
"""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.layers import warp
from codec.training.data import Batch


def move_frames(frames: Tensor, generator: torch.Generator, max_motion: float = 40.0) -> Batch:
    """Pairs with known motion.

    Args:
        frames: [B, 3, H, W] RGB in [0, 1]; the piece in front of each is cut from the next one.
        generator: of the CPU; the pairs are a function of it and of the frames.
        max_motion: the longest vector, in pixels; small motion is drawn as often as large.
    """
    draw = _Draw(frames.shape[0], generator, frames.device)
    height, width = frames.shape[-2:]
    behind = _field(draw, height, width, max_motion)
    before = _field(draw, height, width, max_motion)
    # Normal noise above this bar covers a share of 2 % to 60 % of the frame.
    bar = draw.uniform(1, 1, 1) * 2.25 - 0.25
    cover = _smooth(draw, 1, height, width, 6) - bar  # [B, 1, H, W], > 0 in front

    piece = frames.roll(1, 0)
    reference = torch.where(cover > 0, piece, frames)
    front = warp(cover, before) > 0
    current = torch.where(front, warp(piece, before), warp(frames, behind))
    flow = torch.where(front, before, behind)
    hidden = ~front & (warp(cover, behind) > 0)
    visible = _inside(flow) & ~hidden[:, 0]
    return Batch(torch.stack((reference, current), 1), flow, visible.float())


def move_photographs(
    seed: int, step: int, batch: int, crop: int, max_motion: float = 24.0
) -> Batch:
    """Pairs of synthetic frames that move by up to ``max_motion`` pixels, with their flow.

    A function of (seed, step).
    """
    from codec.video.synthetic import random_pair

    random = np.random.default_rng([seed, step, 1])
    clips, flows, masks = [], [], []
    for _ in range(batch):
        previous, current, flow, visible = random_pair(random, crop, crop, max_motion)
        clips.append(torch.from_numpy(np.stack((previous, current))).float() / 255)
        flows.append(torch.from_numpy(flow).float())
        masks.append(torch.from_numpy(visible).float())
    return Batch(torch.stack(clips), torch.stack(flows), torch.stack(masks))


class _Draw:
    """Random numbers for a batch, drawn on the CPU and brought to the device."""

    def __init__(self, batch: int, generator: torch.Generator, device: torch.device):
        self.batch, self.generator, self.device = batch, generator, device

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(self.batch, *shape, generator=self.generator).to(self.device)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(self.batch, *shape, generator=self.generator).to(self.device)


def _field(draw: _Draw, height: int, width: int, max_motion: float) -> Tensor:
    """Smooth fields [B, 2, H, W]: shift, turn, zoom and a soft deformation together."""
    y = torch.linspace(-1, 1, height, device=draw.device).view(1, height, 1)
    x = torch.linspace(-1, 1, width, device=draw.device).view(1, 1, width)
    shift, turn, zoom = draw.normal(2, 1, 1), draw.normal(1, 1), draw.normal(1, 1)
    columns = 0.4 * (zoom * x - turn * y)
    rows = 0.4 * (turn * x + zoom * y)
    field = shift + torch.stack((columns, rows), 1) + 0.3 * _smooth(draw, 2, height, width, 4)
    longest = field.square().sum(1).sqrt().flatten(1).amax(1)
    octaves = math.log2(max_motion * 4)  # down to a quarter of a pixel
    length = max_motion * 2 ** (-octaves * draw.uniform())
    return field * (length / longest).view(-1, 1, 1, 1)


def _smooth(draw: _Draw, channels: int, height: int, width: int, cells: int) -> Tensor:
    """Smooth noise [B, C, H, W] with about ``cells`` bumps on a side."""
    coarse = draw.normal(channels, cells, cells)
    return F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)


def _inside(flow: Tensor) -> Tensor:
    """Whether a pixel's match lies in the picture, [B, H, W] bool."""
    _, _, height, width = flow.shape
    x = torch.arange(width, device=flow.device) + flow[:, 0]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
