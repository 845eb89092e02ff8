"""The exact scale path: decoded integers -> table indices, the same on every machine.

Float convolutions round differently under other instruction sets, thread counts and devices, and
one table index that differs between encoder and decoder destroys the rest of a rANS stream. So
whatever decides a table index here is integer arithmetic: symbols of z and symbols of the previous
frame go through convolutions with integer weights and activations, carried in float64. Every
product and every partial sum is an integer below 2^53 and therefore exact in any order of
summation; rescaling is by powers of two and rounding by floor(x + 1/2).

Fixed point: activations have 6 fractional bits and lie in [0, 2^14]; weights have 12 and lie in
[-2^15, 2^15]. With at most 2^12 products a sum (checked), |sum| < 2^41.

In training the same numbers are emulated in float32 with straight-through rounding.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.entropy.gains import QUALITIES, interpolate_knots
from codec.layers import round_straight_through

_ACTIVATION_BITS = 6
_WEIGHT_BITS = 12
_ACTIVATION_LIMIT = float(1 << 14)
_WEIGHT_LIMIT = float(1 << 15)
_HYPER_LIMIT = 127.0
_PREVIOUS_LIMIT = 63.0
_MAX_TERMS = 1 << 12


class IntegerConv(nn.Module):
    """A convolution whose weights and inputs are fixed-point integers.

    ``forward`` is the float32 emulation on real values; ``exact`` works on integers in float64:
    activations in units of 2^-6 in, sums in units of 2^-18 out.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int):
        super().__init__()
        if in_channels * kernel**2 > _MAX_TERMS:
            raise ValueError(f"an exact convolution may add at most {_MAX_TERMS} products")
        reference = nn.Conv2d(in_channels, out_channels, kernel)
        self.padding = kernel // 2
        self.weight = nn.Parameter(reference.weight.detach().clone())
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def integer_weight(self) -> Tensor:
        return integer_weight(self.weight)

    def integer_bias(self) -> Tensor:
        unit = float(1 << (_WEIGHT_BITS + _ACTIVATION_BITS))
        return torch.floor(self.bias.detach().double().clamp(-1024, 1024) * unit + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        unit = float(1 << _WEIGHT_BITS)
        limited = (self.weight * unit).clamp(-_WEIGHT_LIMIT, _WEIGHT_LIMIT)
        weight = round_straight_through(limited) / unit
        return F.conv2d(x, weight, self.bias, padding=self.padding)

    def exact(self, x: Tensor) -> Tensor:
        weight, bias = self.integer_weight(), self.integer_bias()
        if self.padding and x.device.type == "cpu":
            # torch's would write every neighbourhood out first: 193 MB for a 1080p frame.
            from codec.entropy.integer_sums import convolved

            return convolved(x, weight, bias)
        # An algorithm that transforms its input (Winograd, FFT) would not be exact: outside cuDNN,
        # float64 convolutions are plain sums of products on every device.
        with torch.backends.cudnn.flags(enabled=False):
            return F.conv2d(x, weight, bias, padding=self.padding)


def integer_weight(weight: Tensor) -> Tensor:
    """Weights in units of 2^-12."""
    scaled = torch.floor(weight.detach().double() * (1 << _WEIGHT_BITS) + 0.5)
    return scaled.clamp(-_WEIGHT_LIMIT, _WEIGHT_LIMIT)


def fixed(x: Tensor) -> Tensor:
    """Whole numbers in units of 2^-6, as an exact convolution takes them."""
    return x.double() * (1 << _ACTIVATION_BITS)


def activate(x: Tensor) -> Tensor:
    """ReLU and rounding to activation precision, emulated."""
    unit = float(1 << _ACTIVATION_BITS)
    x = F.relu(x).clamp(max=_ACTIVATION_LIMIT / unit)
    return round_straight_through(x * unit) / unit


def nearest(sums: Tensor, bits: int, least: int) -> Tensor:
    """The nearest whole numbers to sums in units of 2^-bits, from ``least`` to 2^15."""
    return torch.floor(sums * 2.0**-bits + 0.5).clamp(least, 1 << 15)


def activate_exact(sums: Tensor) -> Tensor:
    """Sums in units of 2^-18 -> activations in units of 2^-6."""
    return torch.floor(sums * 2.0**-_WEIGHT_BITS + 0.5).clamp(0.0, _ACTIVATION_LIMIT)


class ExactScalePath(nn.Module):
    """Table indices of a latent from z's symbols and the previous frame's symbols.

    Args:
        hyper: channels of z (at a quarter of the latent's size).
        latent: channels of the latent.
        width: hidden channels.
        temporal: whether magnitudes of the previous frame's symbols are an input.
        start: table index that a fresh network gives.
    """

    def __init__(self, hyper: int, latent: int, width: int, temporal: bool, start: float = 24.0):
        super().__init__()
        self.temporal = temporal
        self.up1 = IntegerConv(hyper, 4 * width, 3)
        self.up2 = IntegerConv(width, 4 * width, 3)
        self.previous = IntegerConv(latent, width // 2, 1) if temporal else None
        self.joined = width + (width // 2 if temporal else 0)
        self.hidden = IntegerConv(self.joined, width, 3)
        self.last = IntegerConv(width, latent, 1)
        self.offset = nn.Parameter(torch.full((8, latent), start))  # [knots, C], by quality
        self.register_buffer("offset_table", torch.zeros(QUALITIES, latent, dtype=torch.int32))

    @torch.no_grad()
    def update(self) -> None:
        """Freeze the per-quality offsets as integers (units of 2^-18) into the checkpoint."""
        every = torch.arange(QUALITIES, device=self.offset.device)
        rows = interpolate_knots(self.offset.double(), every)
        self.offset_table.copy_(torch.round(rows * (1 << 18)).to(torch.int32))

    def forward(self, z: Tensor, previous: Tensor | None, quality: Tensor) -> Tensor:
        """Real-valued indices [B, C, h, w] for training; z [B, N, h/4, w/4] are symbols."""
        return self.inputs(z, previous, quality).index

    @torch.no_grad()
    def exact(self, z: Tensor, previous: Tensor | None, quality: Tensor) -> Tensor:
        """Integer indices (not clamped to the table) [B, C, h, w], int32. Inputs hold integers."""
        return self.rounded(self.exact_inputs(z, previous, quality))

    @staticmethod
    def rounded(inputs: "ScaleInputs") -> Tensor:
        """Integer indices of what :meth:`exact_inputs` gave."""
        return _rounded(inputs.index)

    def inputs(self, z: Tensor, previous: Tensor | None, quality: Tensor) -> "ScaleInputs":
        """The emulated path up to its indices, for a second pass."""
        x = z.clamp(-_HYPER_LIMIT, _HYPER_LIMIT)
        x = activate(F.pixel_shuffle(self.up1(x), 2))
        x = activate(F.pixel_shuffle(self.up2(x), 2))
        if self.temporal:
            magnitude = _previous_magnitude(previous, x, self.previous.weight.shape[1])
            x = torch.cat((x, activate(self.previous(magnitude))), 1)
        index = self.last(activate(self.hidden(x)))
        return ScaleInputs(x, index + interpolate_knots(self.offset, quality)[:, :, None, None])

    @torch.no_grad()
    def exact_inputs(self, z: Tensor, previous: Tensor | None, quality: Tensor) -> "ScaleInputs":
        """The same in integers: activations in units of 2^-6, indices in units of 2^-18."""
        x = fixed(z.clamp(-_HYPER_LIMIT, _HYPER_LIMIT))
        x = activate_exact(F.pixel_shuffle(self.up1.exact(x), 2))
        x = activate_exact(F.pixel_shuffle(self.up2.exact(x), 2))
        if self.temporal:
            magnitude = _previous_magnitude(previous, x, self.previous.weight.shape[1])
            x = torch.cat((x, activate_exact(self.previous.exact(fixed(magnitude)))), 1)
        sums = self.last.exact(activate_exact(self.hidden.exact(x)))
        return ScaleInputs(x, sums + self.offset_table[quality.long()].double()[:, :, None, None])


class ScaleInputs(NamedTuple):
    """What a second pass goes on from.

    Attributes:
        joined: activations of z and of the previous frame's symbols.
        index: of every element, not yet rounded.
    """

    joined: Tensor
    index: Tensor

    def cut(self, height: int, width: int) -> "ScaleInputs":
        return ScaleInputs(*(part[..., :height, :width] for part in self))


class SecondScalePath(nn.Module):
    """Moves the indices of a second pass by the magnitudes of the first one's symbols.

    Args:
        latent: channels of the latent.
        joined: channels of ``ScaleInputs.joined``.
        width: hidden channels.
    """

    def __init__(self, latent: int, joined: int, width: int):
        super().__init__()
        self.hidden = IntegerConv(latent + joined, width, 3)
        self.last = IntegerConv(width, latent, 1)
        nn.init.zeros_(self.last.weight)

    def forward(self, symbols: Tensor, inputs: ScaleInputs) -> Tensor:
        """Real-valued indices; symbols of the first pass [B, C, h, w], zero elsewhere."""
        magnitude = symbols.detach().abs().clamp(max=_PREVIOUS_LIMIT)
        x = activate(self.hidden(torch.cat((magnitude, inputs.joined), 1)))
        return inputs.index + self.last(x)

    @torch.no_grad()
    def exact(self, symbols: Tensor, inputs: ScaleInputs) -> Tensor:
        """Integer indices, int32, of inputs that ``exact_inputs`` gave."""
        magnitude = fixed(symbols.abs().clamp(max=_PREVIOUS_LIMIT))
        x = activate_exact(self.hidden.exact(torch.cat((magnitude, inputs.joined), 1)))
        return _rounded(inputs.index + self.last.exact(x))


def _rounded(sums: Tensor) -> Tensor:
    """The nearest index to a sum in units of 2^-18."""
    return nearest(sums, 18, -1).to(torch.int32)


def _previous_magnitude(previous: Tensor | None, like: Tensor, channels: int) -> Tensor:
    """|symbols| of the previous frame in ``like``'s type and size; zeros where there is none."""
    batch, _, height, width = like.shape
    magnitude = like.new_zeros(batch, channels, height, width)
    if previous is not None:
        h, w = previous.shape[-2:]
        magnitude[:, :, :h, :w] = previous.detach().to(like.dtype).abs().clamp(max=_PREVIOUS_LIMIT)
    return magnitude
