"""What the hyper latents z of former frames say of the next z: middle and scale of its density.

    z of the last two P frames --1x1, 3x3, 1x1--+--> scale's level
              |                                 +--> middle
              +--weights, channel by channel----+

All of it is integer arithmetic on decoded symbols, as in scale_path.py and in its fixed point, so
that both sides of a stream agree. Side information is much of a stream of low rate, and z of one
frame is much like that of the last: this takes a third of z's bits away (docs/decisions.md).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.entropy.gains import QUALITIES, interpolate_knots
from codec.entropy.scale_path import (
    IntegerConv,
    activate,
    activate_exact,
    fixed,
    integer_weight,
    nearest,
)

_FRAMES = 2
_NEAR = 24.0  # symbols beyond it say no more to the layers
_FAR = 127.0  # nor beyond this to the weights
_SUM_BITS = 18  # after the point, of a convolution's sums
_LEAST = -(1 << 15)


class Expected(NamedTuple):
    """Of every element of z, [B, N, h, w]: the middle of its density, and its scale's level.

    Both are real numbers in training, else integers: the middle in eighths. ShiftedPrior takes
    them from here.
    """

    middle: Tensor
    level: Tensor


class HyperHistory(nn.Module):
    """Expects z of the next frame.

    Args:
        channels: N of z.
        width: hidden channels.
    """

    def __init__(self, channels: int, width: int = 48):
        super().__init__()
        self.channels = channels
        self.mix = IntegerConv(_FRAMES * (channels + 1), width, 1)
        self.hidden = IntegerConv(width, width, 3)
        self.last = IntegerConv(width, 2 * channels, 1)
        nn.init.zeros_(self.last.weight)
        weights = torch.zeros(_FRAMES, channels)
        weights[0] = 0.5
        self.weights = nn.Parameter(weights)
        start = torch.cat((torch.zeros(channels), torch.full((channels,), 10.0)))
        self.offset = nn.Parameter(start.repeat(8, 1))  # [knots, 2 N], by quality
        self.register_buffer(
            "offset_table", torch.zeros(QUALITIES, 2 * channels, dtype=torch.int32)
        )

    @torch.no_grad()
    def update(self) -> None:
        """Freeze the offsets of each quality as integers (units of 2^-18) into the checkpoint."""
        every = torch.arange(QUALITIES, device=self.offset.device)
        rows = interpolate_knots(self.offset.double(), every)
        self.offset_table.copy_(torch.round(rows * (1 << _SUM_BITS)).to(torch.int32))

    def forward(self, hypers: Tensor | None, quality: Tensor, size: tuple[int, int]) -> Expected:
        """For training: real numbers.

        Args:
            hypers: of :meth:`joined`, of the frame before; None after an I frame.
            quality: [B] indices 0..63.
            size: z's (h, w).
        """
        hypers = self._known(hypers, quality.shape[0], size).to(self.offset.dtype)
        x = activate(self.mix(hypers.clamp(-_NEAR, _NEAR)))
        x = self.last(activate(self.hidden(x)))
        x = x + interpolate_knots(self.offset, quality)[:, :, None, None]
        middle, level = x.chunk(2, 1)
        return Expected(middle + self._weighted(hypers, self.weights), level)

    @torch.no_grad()
    def exact(self, hypers: Tensor | None, quality: Tensor, size: tuple[int, int]) -> Expected:
        """The same in integers, as float64: the middle in eighths. Alike on every machine."""
        hypers = self._known(hypers, quality.shape[0], size).double()
        x = activate_exact(self.mix.exact(fixed(hypers.clamp(-_NEAR, _NEAR))))
        x = self.last.exact(activate_exact(self.hidden.exact(x)))
        x = x + self.offset_table[quality.long()].double()[:, :, None, None]
        middle, level = x.chunk(2, 1)
        middle = middle + fixed(self._weighted(hypers, integer_weight(self.weights)))
        eighths = nearest(middle, _SUM_BITS - 3, _LEAST)
        return Expected(eighths, nearest(level, _SUM_BITS, _LEAST))

    def joined(self, z: Tensor, hypers: Tensor | None) -> Tensor:
        """What the next frame's z is expected from: symbols, a channel of ones, those before it.

        Args:
            z: [B, N, h, w], this frame's symbols. hypers: of the frame before, None after an I
                frame, and zeros mean the same.
        """
        batch, _, *size = z.shape
        before = self._known(hypers, batch, size).to(z.dtype)
        z = z.detach()
        return torch.cat((z, torch.ones_like(z[:, :1]), before[:, : self.channels + 1]), 1)

    def _known(self, hypers: Tensor | None, batch: int, size: tuple[int, int]) -> Tensor:
        if hypers is not None:
            return hypers
        return self.offset.new_zeros(batch, _FRAMES * (self.channels + 1), *size)

    def _weighted(self, hypers: Tensor, weights: Tensor) -> Tensor:
        """Of each channel's former symbols [B, N, h, w]."""
        frames = hypers.unflatten(1, (_FRAMES, self.channels + 1))[:, :, :-1].clamp(-_FAR, _FAR)
        return (frames * weights[:, :, None, None]).sum(1)
