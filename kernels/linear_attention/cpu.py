"""Linear cross-attention on the CPU: one pass over the keys, one over the queries, tile by tile.

Nothing of the images' size is stored but the result: a tile of pixels is read, turned to float32,
exponentiated and multiplied while it is in the core's own cache. The softmax over pixels is the
online one: each channel keeps a running maximum and sum and rescales what it has when the maximum
rises (Milakov and Gimelshein 2018). The backward pass recomputes the exponentials in the same way.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from kernels import jit, pages
from kernels.linear_attention import cpu_passes

# Numbers in a tile, 128 KiB: the backward pass holds four of them in a core's second-level cache.
TILE_NUMBERS = 2**15
# Numbers in a piece of work: to hand over a smaller one costs more than a second thread saves.
LEAST_NUMBERS = 2**16
LEAST_PIXELS = 4096  # of a part of a head
MOST_PARTS = 16


def forward(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, and what the backward pass needs: context, maximum and 1 / sum of the pixel softmax.

    Args:
        query, key, value, heads, mask: as in :func:`kernels.linear_attention`; float32 or bfloat16.

    Returns:
        The output [B, Cv, Hq, Wq], context [B * heads, channels of K, channels of V], maximum and
        inverse [B * heads, channels of K], all three float32.
    """
    batch, _, height, width = query.shape
    rows_q, rows_k, rows_v = _rows(query), _rows(key), _rows(value)
    channels, value_channels = key.shape[1] // heads, value.shape[1] // heads

    parts = _parts(rows_k)
    tile = _tile(rows_k, parts, channels, value_channels)
    units = batch * heads * parts
    maximum = np.empty((units, channels), np.float32)
    total = np.empty_like(maximum)
    context = np.empty((units, channels, value_channels), np.float32)
    sums = (maximum, total, context)
    used = _used(mask, batch)
    _run(cpu_passes.key_forward, units, rows_k, rows_v, used, heads, parts, tile, *sums)
    cpu_passes.merge_parts(*sums, parts)
    if parts > 1:
        sums = tuple(array[::parts].copy() for array in sums)

    out = pages.empty(batch, value.shape[1], height, width, dtype=query.dtype)
    parts = _parts(rows_q)
    tile = _tile(rows_q, parts, channels, value_channels)
    units = batch * heads * parts
    _run(cpu_passes.query_forward, units, rows_q, sums[2], heads, parts, tile, _rows(out))
    maximum, inverse, context = (torch.from_numpy(array) for array in sums)
    return out, context, maximum, inverse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    mask: Tensor | None,
    context: Tensor,
    maximum: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, given the output's and what ``forward`` returned."""
    batch = query.shape[0]
    rows_q, rows_k, rows_v = _rows(query), _rows(key), _rows(value)
    grads = tuple(pages.empty(*x.shape, dtype=x.dtype) for x in (query, key, value))
    grad_q, grad_k, grad_v = (_rows(x) for x in grads)
    summary = context.numpy()
    groups, channels, value_channels = summary.shape

    parts = _parts(rows_q)
    tile = _tile(rows_q, parts, channels, value_channels)
    shares = np.empty((groups * parts, channels, value_channels), np.float32)
    _run(
        cpu_passes.query_backward, groups * parts,
        rows_q, _rows(grad), summary, heads, parts, tile, grad_q, shares,
    )  # fmt: skip
    grad_summary = shares.reshape(groups, parts, channels, value_channels).sum(axis=1)
    parts = _parts(rows_k)
    tile = _tile(rows_k, parts, channels, value_channels)
    _run(
        cpu_passes.key_backward, groups * parts,
        rows_k, rows_v, _used(mask, batch), maximum.numpy(), inverse.numpy(), summary,
        grad_summary, heads, parts, tile, grad_k, grad_v,
    )  # fmt: skip
    return grads


def _run(kernel: Callable, units: int, rows: np.ndarray, *arguments) -> None:
    """One of the passes over all units; several small ones make a piece of work."""
    chunk = max(LEAST_NUMBERS * units // rows.size, 1)
    jit.run(kernel, units, rows, *arguments, chunk=chunk)


def _rows(x: Tensor) -> np.ndarray:
    """[B, C, H, W] as an array [B, C, pixels], without a copy where the strides allow it.

    A layout that is neither contiguous nor channels-last is copied.
    """
    rows = x.detach().flatten(2)
    return (rows.view(torch.int16) if x.dtype == torch.bfloat16 else rows).numpy()


def _used(mask: Tensor | None, batch: int) -> np.ndarray:
    if mask is None:
        return np.empty((batch, 0), np.uint8)
    return mask.detach().reshape(batch, -1).contiguous().view(torch.uint8).numpy()


def _tile(rows: np.ndarray, parts: int, *channels: int) -> int:
    """Pixels of a tile: not more than a part has, in whole lines of the cache."""
    pixels = -(-rows.shape[2] // parts)
    return min(max(TILE_NUMBERS // max(channels), 64), 1024, -(-pixels // 16) * 16)


def _parts(rows: np.ndarray) -> int:
    """Into how many parts each head's pixels are divided.

    It depends on the size alone, so that the result is the same on any number of threads.
    """
    return min(max(rows.shape[2] // LEAST_PIXELS, 1), MOST_PARTS)
