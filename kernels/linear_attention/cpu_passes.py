"""The passes of the CPU path over keys and queries, forward and backward, compiled by numba.

Each pass walks over units from ``start`` to ``stop``; a unit is one part of the pixels of one head,
number ``(batch * heads + head) * parts + part``. Units share nothing that they write, so threads
take ranges of them. Arrays: features [B, C, pixels] (float32, or int16 holding bfloat16), mask
[B, pixels] uint8 or [B, 0] for none, context [B * heads, channels of K, channels of V].
"""

import numba
import numpy as np

from kernels.linear_attention.cpu_tiles import (
    INNER,
    LOWEST,
    add_products,
    cached,
    channel_softmax,
    empty_tile,
    exclude,
    exponentials,
    load,
    mix,
    raise_maximum,
    scale_columns,
    store,
)

_EXCLUDED = np.float32(-np.inf)
_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@numba.njit(**INNER)
def _bounds(part, parts, pixels):
    return pixels * part // parts, pixels * (part + 1) // parts


@numba.njit(**INNER)
def _padded(matrix, rows, columns, transposed):
    """A head's matrix, padded with zeros to the size of the tiles it is multiplied with."""
    out = np.zeros((rows, columns), np.float32)
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            if transposed:
                out[j, i] = matrix[i, j]
            else:
                out[i, j] = matrix[i, j]
    return out


@cached
def key_forward(start, stop, key, value, mask, heads, parts, tile, maximum, total, context):
    """One pass over a unit's pixels: exp(K) relative to its running maximum, its sum, its K^T V.

    Args:
        tile: pixels taken at a time.
        maximum, total: [units, channels of K], written.
        context: [units, channels of K, channels of V], written: not yet divided by ``total``.
    """
    pixels = key.shape[2]
    width, value_width = key.shape[1] // heads, value.shape[1] // heads
    k, v = empty_tile(width, tile), empty_tile(value_width, tile)
    products = np.empty((k.shape[0], v.shape[0]), np.float32)
    ones = np.ones(width, np.float32)
    for unit in range(start, stop):
        batch, head = unit // parts // heads, unit // parts % heads
        first, last = _bounds(unit % parts, parts, pixels)
        maximum[unit] = LOWEST
        total[unit] = _ZERO
        products[:] = _ZERO
        for pixel in range(first, last, tile):
            n = min(tile, last - pixel)
            load(key[batch], head * width, pixel, width, n, k)
            load(value[batch], head * value_width, pixel, value_width, n, v)
            if mask.shape[1]:
                exclude(mask[batch], pixel, width, n, k, _EXCLUDED)
                exclude(mask[batch], pixel, value_width, n, v, _ZERO)
            raise_maximum(k, width, n, maximum[unit], total[unit], products)
            exponentials(k, width, n, maximum[unit], ones, total[unit])
            add_products(k, v, n, products)
        context[unit] = products[:width, :value_width]


@cached
def merge_parts(maximum, total, context, parts):
    """Join the parts of each head into the first one: the softmax over all pixels.

    Afterwards ``total`` holds 1 / the sum, or 0 where no pixel counts, and ``context`` K^T V.
    """
    for first in range(0, maximum.shape[0], parts):
        for i in range(maximum.shape[1]):
            largest = LOWEST
            for unit in range(first, first + parts):
                largest = max(largest, maximum[unit, i])
            summed = _ZERO
            for unit in range(first, first + parts):
                shrink = np.float32(np.exp(maximum[unit, i] - largest))
                summed += total[unit, i] * shrink
                for j in range(context.shape[2]):
                    before = context[first, i, j] if unit > first else _ZERO
                    context[first, i, j] = before + context[unit, i, j] * shrink
            inverse = _ZERO if summed == _ZERO else _ONE / summed
            maximum[first, i] = largest
            total[first, i] = inverse
            for j in range(context.shape[2]):
                context[first, i, j] *= inverse


@cached
def query_forward(start, stop, query, context, heads, parts, tile, out):
    """out = context^T softmax_channels(Q) for the pixels of each unit."""
    pixels = query.shape[2]
    width, value_width = context.shape[1], context.shape[2]
    q, g = empty_tile(width, tile), empty_tile(value_width, tile)
    largest, inverse = np.empty(tile, np.float32), np.empty(tile, np.float32)
    for unit in range(start, stop):
        batch, head = unit // parts // heads, unit // parts % heads
        first, last = _bounds(unit % parts, parts, pixels)
        weights = _padded(context[unit // parts], q.shape[0], g.shape[0], False)
        for pixel in range(first, last, tile):
            n = min(tile, last - pixel)
            load(query[batch], head * width, pixel, width, n, q)
            channel_softmax(q, width, n, largest, inverse)
            mix(weights, q, n, g)
            scale_columns(g, value_width, n, inverse)
            store(g, head * value_width, pixel, value_width, n, out[batch])


@cached
def query_backward(start, stop, query, grad, context, heads, parts, tile, grad_query, grad_context):
    """The gradient of Q, and each unit's share of the context's.

    Args:
        grad: of the output [B, C of V, pixels].
        grad_query: like query, written.
        grad_context: [units, channels of K, channels of V], written.
    """
    pixels = query.shape[2]
    width, value_width = context.shape[1], context.shape[2]
    q, g, back = empty_tile(width, tile), empty_tile(value_width, tile), empty_tile(width, tile)
    largest, inverse = np.empty(tile, np.float32), np.empty(tile, np.float32)
    products = np.empty((q.shape[0], g.shape[0]), np.float32)
    for unit in range(start, stop):
        batch, head = unit // parts // heads, unit // parts % heads
        first, last = _bounds(unit % parts, parts, pixels)
        weights = _padded(context[unit // parts], g.shape[0], q.shape[0], True)
        products[:] = _ZERO
        for pixel in range(first, last, tile):
            n = min(tile, last - pixel)
            load(query[batch], head * width, pixel, width, n, q)
            load(grad[batch], head * value_width, pixel, value_width, n, g)
            channel_softmax(q, width, n, largest, inverse)
            scale_columns(q, width, n, inverse)
            add_products(q, g, n, products)
            mix(weights, g, n, back)
            _softmax_backward(q, back, width, n, largest)
            store(q, head * width, pixel, width, n, grad_query[batch])
        grad_context[unit] = products[:width, :value_width]


@numba.njit(**INNER)
def _softmax_backward(softmax, grad, channels, n, mean):
    """softmax = softmax * (grad - sum over channels of softmax * grad), in place."""
    for x in range(n):
        mean[x] = _ZERO
    for i in range(channels):
        for x in range(n):
            mean[x] += softmax[i, x] * grad[i, x]
    for i in range(channels):
        for x in range(n):
            softmax[i, x] *= grad[i, x] - mean[x]


@cached
def key_backward(start, stop,
    key, value, mask, maximum, inverse, context, grad_context, heads, parts, tile,
    grad_key, grad_value):  # fmt: skip
    """The gradients of K and V.

    The softmax over pixels needs ``sum over pixels of P dP`` per channel. It is the sum over j of
    context * grad_context, so no pass over the pixels is spent on it.

    Args:
        maximum, inverse: [B * heads, channels of K], from ``merge_parts``.
        grad_context: [B * heads, channels of K, channels of V], the sum over the parts.
        grad_key, grad_value: like key and value, written.
    """
    pixels = key.shape[2]
    width, value_width = context.shape[1], context.shape[2]
    k, v = empty_tile(width, tile), empty_tile(value_width, tile)
    grad_k, grad_v = empty_tile(width, tile), empty_tile(value_width, tile)
    mean, unused = np.empty(width, np.float32), np.zeros(width, np.float32)
    for unit in range(start, stop):
        whole = unit // parts
        batch, head = whole // heads, whole % heads
        first, last = _bounds(unit % parts, parts, pixels)
        to_key = _padded(grad_context[whole], v.shape[0], k.shape[0], True)
        to_value = _padded(grad_context[whole], k.shape[0], v.shape[0], False)
        for i in range(width):
            mean[i] = np.sum(context[whole, i] * grad_context[whole, i])
        for pixel in range(first, last, tile):
            n = min(tile, last - pixel)
            load(key[batch], head * width, pixel, width, n, k)
            load(value[batch], head * value_width, pixel, value_width, n, v)
            if mask.shape[1]:
                exclude(mask[batch], pixel, width, n, k, _EXCLUDED)
                exclude(mask[batch], pixel, value_width, n, v, _ZERO)
            exponentials(k, width, n, maximum[whole], inverse[whole], unused)
            mix(to_key, v, n, grad_k)
            mix(to_value, k, n, grad_v)
            for i in range(width):
                centre = mean[i]
                for x in range(n):
                    grad_k[i, x] = k[i, x] * (grad_k[i, x] - centre)
            if mask.shape[1]:
                exclude(mask[batch], pixel, value_width, n, grad_v, _ZERO)
            store(grad_k, head * width, pixel, width, n, grad_key[batch])
            store(grad_v, head * value_width, pixel, value_width, n, grad_value[batch])
