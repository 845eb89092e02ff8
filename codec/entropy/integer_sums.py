"""Convolutions of integers on a CPU, exact in any order, by the inputs that are not zero.

    out[i, j] = bias + the sum over taps and channels of x * weight

Most symbols are zero, so most products are. The others of a row of pixels are listed once, place
and value; each output pixel goes through its neighbours' lists and adds a row of weights for each
entry. What is held of the input beside itself are the lists of as many rows as the kernel has.
"""

import numpy as np
import torch
from torch import Tensor

from kernels import jit
from kernels.vector_doubles import DOUBLES, add_rows


# An operator of torch, so that its operations can be counted (eval/complexity.py).
@torch.library.custom_op("lgmc::integer_conv", mutates_args=())
def convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The convolution that keeps the image's size, zeros around it.

    Args:
        x: [B, C, H, W] of integers as float64, any strides.
        weight: [O, C, k, k], k odd, of integers up to 2^24 as float64; bias: [O], likewise up to
            2^53. No sum may leave 2^53.

    Returns:
        [B, O, H, W] float64, in memory pixel by pixel.
    """
    batch, channels, height, width = x.shape
    outputs, _, size, _ = weight.shape
    rows = x.permute(0, 2, 3, 1).contiguous().view(batch * height, width, channels)
    vectors = -(-outputs // DOUBLES)
    # Tap by tap a row of weights for each channel; what fills up its last vector is never read.
    taps = torch.zeros(size, size, channels, vectors * DOUBLES)
    taps[..., :outputs] = weight.permute(2, 3, 1, 0)
    sums = torch.zeros(batch * height, width, vectors * DOUBLES, dtype=torch.float64)
    sums[..., :outputs] = bias
    # A piece begins by listing the rows above its first one: pieces of one row list all thrice.
    chunk = max(size, jit.pieces(batch * height))
    arrays = rows.numpy(), taps.numpy(), sums.numpy()
    jit.run(_convolve, batch * height, *arrays, height, chunk=chunk)
    out = sums.view(batch, height, width, -1)[..., :outputs]
    return out.permute(0, 3, 1, 2)


@jit.compiled
def _convolve(
    start: int, stop: int, x: np.ndarray, taps: np.ndarray, sums: np.ndarray, height: int
) -> None:
    """Rows ``start`` to ``stop`` of ``sums`` [rows, W, O]; images of ``height`` follow each other.

    x: [rows, W, C]; taps: float32 [k, k, C, O].
    """
    _, width, channels = x.shape
    size, outputs = taps.shape[0], taps.shape[3]
    reach, vectors = size // 2, outputs // DOUBLES
    # Of the last ``size`` rows, each at its number modulo ``size``.
    begins = np.empty((size, width + 1), np.int64)
    table = np.empty((size, width * channels + 1), np.int64)
    values = np.empty((size, width * channels + 1), np.float64)
    for row in range(start, stop):
        line = row % height
        first = line + reach
        if row == start or line == 0:
            first = max(0, line - reach)
        for near in range(first, min(height, line + reach + 1)):
            slot = near % size
            _list(x[row - line + near], begins[slot], table[slot], values[slot], 4 * outputs)
        for column in range(width):
            out = sums[row, column].ctypes.data
            for a in range(max(0, reach - line), min(size, height + reach - line)):
                slot = (line + a - reach) % size
                for b in range(max(0, reach - column), min(size, width + reach - column)):
                    begin = begins[slot, column + b - reach]
                    count = begins[slot, column + b - reach + 1] - begin
                    where, what = table[slot, begin:].ctypes.data, values[slot, begin:].ctypes.data
                    add_rows(where, what, count, taps[a, b].ctypes.data, out, vectors)


@jit.part
def _list(
    x: np.ndarray, begins: np.ndarray, table: np.ndarray, values: np.ndarray, step: int
) -> None:
    """What of a row [W, C] is not zero: its channel's place, ``step`` bytes each, and itself.

    Those of pixel j stand from begins[j] to begins[j + 1].
    """
    width, channels = x.shape
    count = 0
    for column in range(width):
        begins[column] = count
        for channel in range(channels):
            # Written in any case, then kept or not: branches would be guessed wrongly too often.
            table[count] = channel * step
            values[count] = x[column, channel]
            count += x[column, channel] != 0
    begins[width] = count
