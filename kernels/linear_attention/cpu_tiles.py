"""The inner loops of the CPU path: what happens to one tile of pixels of one head.

A tile is a float32 array [channels, pixels] that stays in the core's own cache. Its channels are
padded to a multiple of 8 with rows of zeros, so that the products run in blocks without a rest.
"""

from collections.abc import Callable

import numba
import numpy as np

from kernels import jit
from kernels.linear_attention.cpu_numbers import from_storage, larger, power_of_two, to_storage

BLOCK = 8
LOWEST = np.float32(-3e38)

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)

# Sums may be reordered, which vector code needs; NaN and infinity keep their meaning.
FAST = {
    "nogil": True,
    "error_model": "numpy",
    "fastmath": {"reassoc", "contract", "nsz", "arcp"},
}
# What kernels are made of is compiled into each of them. As functions of their own, those that the
# process has compiled already would be taken the first time, those in the cached file ever after:
# optimised apart, they sum in another order, and a decoder's picture would not be its encoder's.
INNER = {**FAST, "forceinline": True}
# Where the order of the operations matters.
_EXACT = {**INNER, "fastmath": {"contract"}}


def cached(function: Callable) -> Callable:
    """Compile one that Python calls; the result stays in __pycache__ (NUMBA_CACHE_DIR)."""
    dispatcher = numba.njit(cache=True, **FAST)(function)
    jit.forget_outdated(dispatcher, function)
    return dispatcher


@numba.njit(**_EXACT)
def _exp(x):
    """exp(x) for x <= 0 within 2 units in the last place; 0 below -87, NaN stays NaN.

    Cody and Waite's reduction x = n log 2 + r and a polynomial in r: plain arithmetic, which the
    compiler turns into vector code; a call of the library's exp would stay scalar.
    """
    lowest = np.float32(-87.0)
    inside = lowest if x < lowest else x
    n = np.floor(inside * np.float32(1.4426950408889634) + np.float32(0.5))
    r = inside - n * np.float32(0.693359375)
    r = r - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = (p * r * r + r + _ONE) * power_of_two(n)
    return _ZERO if x < lowest else p


@numba.njit(**INNER)
def empty_tile(channels, pixels):
    """A tile for that many channels; the rows of padding stay zero for good."""
    return np.zeros(((channels + BLOCK - 1) // BLOCK * BLOCK, pixels), np.float32)


@numba.njit(**INNER)
def load(source, channel, pixel, channels, n, tile):
    """tile[i, x] = source[channel + i, pixel + x] in float32."""
    for i in range(channels):
        # A slice, since an index that might be negative would keep the loop from vectorising.
        row = source[channel + i, pixel : pixel + n]
        for x in range(n):
            tile[i, x] = from_storage(row[x])


@numba.njit(**INNER)
def store(tile, channel, pixel, channels, n, target):
    """The reverse of ``load``, in the target's own type."""
    for i in range(channels):
        row = target[channel + i, pixel : pixel + n]
        for x in range(n):
            row[x] = to_storage(tile[i, x], row[0])


@numba.njit(**INNER)
def exclude(mask, pixel, channels, n, tile, instead):
    """Write ``instead`` where the mask is 0: whatever was there, NaN too, is gone."""
    used = mask[pixel : pixel + n]
    for i in range(channels):
        for x in range(n):
            tile[i, x] = tile[i, x] if used[x] else instead


@numba.njit(**INNER)
def _row_maximum(tile, i, n):
    largest = LOWEST
    for x in range(n):
        largest = larger(tile[i, x], largest)
    return largest


@numba.njit(**INNER)
def raise_maximum(tile, channels, n, maximum, total, context):
    """Take the tile's pixels into each channel's running maximum; rescale what was summed."""
    for i in range(channels):
        largest = _row_maximum(tile, i, n)
        if largest > maximum[i]:
            shrink = _exp(maximum[i] - largest)
            total[i] *= shrink
            for j in range(context.shape[1]):
                context[i, j] *= shrink
            maximum[i] = largest


@numba.njit(**INNER)
def exponentials(tile, channels, n, maximum, scale, total):
    """tile = exp(tile - maximum) * scale by channel; total += its sum over the pixels."""
    for i in range(channels):
        largest, factor = maximum[i], scale[i]
        added = _ZERO
        for x in range(n):
            e = _exp(tile[i, x] - largest) * factor
            tile[i, x] = e
            added += e
        total[i] += added


@numba.njit(**INNER)
def _column_maximum(tile, channels, n, largest):
    for x in range(n):
        largest[x] = tile[0, x]
    for i in range(1, channels):
        for x in range(n):
            largest[x] = larger(tile[i, x], largest[x])


@numba.njit(**INNER)
def channel_softmax(tile, channels, n, largest, inverse):
    """Softmax over the channels of each pixel, but for the factor that ``inverse`` receives."""
    _column_maximum(tile, channels, n, largest)
    for x in range(n):
        inverse[x] = _ZERO
    for i in range(channels):
        for x in range(n):
            e = _exp(tile[i, x] - largest[x])
            tile[i, x] = e
            inverse[x] += e
    for x in range(n):
        inverse[x] = _ONE / inverse[x]


@numba.njit(**INNER)
def scale_columns(tile, channels, n, factor):
    for i in range(channels):
        for x in range(n):
            tile[i, x] *= factor[x]


@numba.njit(**INNER)
def add_products(a, b, n, out):
    """out[i, j] += sum over pixels of a[i] b[j], in blocks of 4 x 4."""
    for i in range(0, out.shape[0], 4):
        for j in range(0, out.shape[1], 4):
            s00, s01, s02, s03 = _ZERO, _ZERO, _ZERO, _ZERO
            s10, s11, s12, s13 = _ZERO, _ZERO, _ZERO, _ZERO
            s20, s21, s22, s23 = _ZERO, _ZERO, _ZERO, _ZERO
            s30, s31, s32, s33 = _ZERO, _ZERO, _ZERO, _ZERO
            for x in range(n):
                a0, a1, a2, a3 = a[i, x], a[i + 1, x], a[i + 2, x], a[i + 3, x]
                b0, b1, b2, b3 = b[j, x], b[j + 1, x], b[j + 2, x], b[j + 3, x]
                s00 += a0 * b0
                s01 += a0 * b1
                s02 += a0 * b2
                s03 += a0 * b3
                s10 += a1 * b0
                s11 += a1 * b1
                s12 += a1 * b2
                s13 += a1 * b3
                s20 += a2 * b0
                s21 += a2 * b1
                s22 += a2 * b2
                s23 += a2 * b3
                s30 += a3 * b0
                s31 += a3 * b1
                s32 += a3 * b2
                s33 += a3 * b3
            _add_row(out, i, j, s00, s01, s02, s03)
            _add_row(out, i + 1, j, s10, s11, s12, s13)
            _add_row(out, i + 2, j, s20, s21, s22, s23)
            _add_row(out, i + 3, j, s30, s31, s32, s33)


@numba.njit(inline="always", **FAST)
def _add_row(out, i, j, s0, s1, s2, s3):
    out[i, j] += s0
    out[i, j + 1] += s1
    out[i, j + 2] += s2
    out[i, j + 3] += s3


@numba.njit(**INNER)
def mix(weights, tile, n, out):
    """out[j] = sum over i of weights[i, j] tile[i] for each pixel, in blocks of 8 x 4."""
    for j in range(0, weights.shape[1], 4):
        _mix_block(weights, tile, n, 0, j, out, _ZERO)
        for i in range(8, weights.shape[0], 8):
            _mix_block(weights, tile, n, i, j, out, _ONE)


@numba.njit(inline="always", **FAST)
def _mix_block(w, tile, n, i, j, out, add):
    """out[j : j + 4] = or += the part of tile[i : i + 8]."""
    w00, w10, w20, w30 = w[i, j], w[i + 1, j], w[i + 2, j], w[i + 3, j]
    w40, w50, w60, w70 = w[i + 4, j], w[i + 5, j], w[i + 6, j], w[i + 7, j]
    j1, j2, j3 = j + 1, j + 2, j + 3
    w01, w11, w21, w31 = w[i, j1], w[i + 1, j1], w[i + 2, j1], w[i + 3, j1]
    w41, w51, w61, w71 = w[i + 4, j1], w[i + 5, j1], w[i + 6, j1], w[i + 7, j1]
    w02, w12, w22, w32 = w[i, j2], w[i + 1, j2], w[i + 2, j2], w[i + 3, j2]
    w42, w52, w62, w72 = w[i + 4, j2], w[i + 5, j2], w[i + 6, j2], w[i + 7, j2]
    w03, w13, w23, w33 = w[i, j3], w[i + 1, j3], w[i + 2, j3], w[i + 3, j3]
    w43, w53, w63, w73 = w[i + 4, j3], w[i + 5, j3], w[i + 6, j3], w[i + 7, j3]
    for x in range(n):
        a, b, c, d = tile[i, x], tile[i + 1, x], tile[i + 2, x], tile[i + 3, x]
        e, f, g, h = tile[i + 4, x], tile[i + 5, x], tile[i + 6, x], tile[i + 7, x]
        p0 = w00 * a + w10 * b + w20 * c + w30 * d + (w40 * e + w50 * f + w60 * g + w70 * h)
        p1 = w01 * a + w11 * b + w21 * c + w31 * d + (w41 * e + w51 * f + w61 * g + w71 * h)
        p2 = w02 * a + w12 * b + w22 * c + w32 * d + (w42 * e + w52 * f + w62 * g + w72 * h)
        p3 = w03 * a + w13 * b + w23 * c + w33 * d + (w43 * e + w53 * f + w63 * g + w73 * h)
        if add != _ZERO:
            p0 += out[j, x]
            p1 += out[j1, x]
            p2 += out[j2, x]
            p3 += out[j3, x]
        out[j, x] = p0
        out[j1, x] = p1
        out[j2, x] = p2
        out[j3, x] = p3
