"""The pair of filters between 4:2:0 and 4:4:4 chroma, chosen so that down(up(c)) == c.

Siting is that of MPEG-2 ("left", H.264's and HEVC's default): on the even luma columns, half way
between two luma rows. Both directions are biorthogonal pairs of wavelet theory, so that going up
and down again loses nothing:

  columns  up: linear interpolation;  down: [-1 2 6 2 -1] / 8    (the 5/3 pair, Le Gall 1988)
  rows     up: c +- (c[i-1] - c[i+1]) / 8;  down: mean of two    (average interpolation, the 1/3
                                                                 pair of Cohen-Daubechies-Feauveau)

Borders mirror; an odd last row is its own mean.
"""

from __future__ import annotations

import torch
from torch import Tensor


def upsample(chroma: Tensor, height: int, width: int) -> Tensor:
    """[C, ceil(height / 2), ceil(width / 2)] -> [C, height, width], float."""
    return _columns_up(_rows_up(chroma, height), width)


def _rows_up(chroma: Tensor, height: int) -> Tensor:
    channels, rows, columns = chroma.shape
    out = chroma.new_empty((channels, rows, 2, columns))
    tilt = torch.zeros_like(chroma)
    if rows > 1:
        torch.sub(chroma[:, :-2], chroma[:, 2:], out=tilt[:, 1:-1])
        torch.sub(chroma[:, 0], chroma[:, 1], out=tilt[:, 0])
        if height % 2 == 0:  # the odd last row stands alone: it has no tilt
            torch.sub(chroma[:, -2], chroma[:, -1], out=tilt[:, -1])
    torch.add(chroma, tilt, alpha=0.125, out=out[:, :, 0])
    torch.sub(chroma, tilt, alpha=0.125, out=out[:, :, 1])
    return out.view(channels, 2 * rows, columns)[:, :height]


def rows_down(chroma: Tensor) -> Tensor:
    """[..., H, W] -> [..., ceil(H / 2), W]; then `columns_down`: the inverse of `upsample`."""
    even, odd = chroma[..., 0::2, :], chroma[..., 1::2, :]
    if chroma.shape[-2] % 2 == 0:
        return torch.add(even, odd).mul_(0.5)
    out = even.clone()
    out[..., :-1, :].add_(odd).mul_(0.5)
    return out


def _columns_up(chroma: Tensor, width: int) -> Tensor:
    channels, rows, columns = chroma.shape
    out = chroma.new_empty((channels, rows, columns, 2))
    out[..., 0] = chroma
    torch.add(chroma[..., :-1], chroma[..., 1:], out=out[..., :-1, 1]).mul_(0.5)
    out[..., -1, 1] = chroma[..., -1]
    return out.view(channels, rows, 2 * columns)[..., :width]


def columns_down(chroma: Tensor) -> Tensor:
    """[..., H, W] -> [..., H, ceil(W / 2)]."""
    width = chroma.shape[-1]
    if width == 1:
        return chroma
    even = chroma[..., 0::2]
    odd = chroma[..., 1::2]
    detail = odd.clone()  # what linear interpolation between the even columns misses
    inner = even.shape[-1] - 1
    detail[..., :inner].sub_(even[..., :-1], alpha=0.5).sub_(even[..., 1:], alpha=0.5)
    if width % 2 == 0:
        detail[..., -1].sub_(even[..., -1])
    out = even.clone()
    out[..., : detail.shape[-1]].add_(detail, alpha=0.25)
    out[..., 1:].add_(detail[..., :inner], alpha=0.25)
    out[..., 0].add_(detail[..., 0], alpha=0.25)  # mirrored at the left border
    if width % 2 == 1:
        out[..., -1].add_(detail[..., -1], alpha=0.25)  # and at the right one
    return out
