"""The correlation volume and its gradients over pairs of rows, compiled by numba.

Images come packed: [B, rows, channels, columns] float32 with a border of zeros wide enough for
every displacement, so that no loop asks where the image ends. A pair is two rows ``stride`` apart,
which meet the same rows of the other image; pair i begins at row
``2 * stride * (i // stride) + i % stride``.
"""

import numpy as np

from kernels.correlation.cpu_rows import (
    CHANNELS,
    DISPLACEMENTS,
    correlate3,
    correlate5,
    correlate7,
    correlate9,
    gather_products,
)
from kernels.jit import LANES, compiled

_BYTES = 4


@compiled
def _sums(
    upper, lower, key, key_step, channel_step, channels, scale, count, up, step_up, low, step_low
):
    """The smallest of the compiled numbers of displacements that holds ``count``."""
    if count <= 3:
        correlate3(
            upper, lower, key, key_step, channel_step, channels, scale, up, step_up, low, step_low
        )
    elif count <= 5:
        correlate5(
            upper, lower, key, key_step, channel_step, channels, scale, up, step_up, low, step_low
        )
    elif count <= 7:
        correlate7(
            upper, lower, key, key_step, channel_step, channels, scale, up, step_up, low, step_low
        )
    else:
        correlate9(
            upper, lower, key, key_step, channel_step, channels, scale, up, step_up, low, step_low
        )


@compiled
def correlate(start, stop, query, key, channels, radius, stride, scale, out):
    """out[b, dy * side + dx, y, x] = scale * sum over channels of query * key.

    Args:
        start, stop: of the pairs of all images of the batch.
        query, key: packed.
        channels: that count, the others are zero.
        out: [B, side^2, H, W] float32, contiguous, written.
    """
    side = 2 * radius + 1
    border = radius * stride
    height, width = out.shape[2], out.shape[3]
    pairs = (height + 2 * stride - 1) // (2 * stride) * stride
    channel_step = key.shape[3] * _BYTES
    row_step = key.shape[2] * channel_step
    plane = height * width * _BYTES
    query_at, key_at, out_at = query.ctypes.data, key.ctypes.data, out.ctypes.data
    spare = np.empty((2, DISPLACEMENTS, LANES), np.float32)
    spare_up, spare_low = spare[0].ctypes.data, spare[1].ctypes.data
    for item in range(start, stop):
        batch, pair = item // pairs, item % pairs
        first = 2 * stride * (pair // stride) + pair % stride
        image = batch * key.shape[1] * row_step
        own = query_at + image + (first + border) * row_step + border * _BYTES
        for x in range(0, width, LANES):
            inside = min(LANES, width - x)
            upper = own + x * _BYTES
            for t in range(side + 1):
                match = key_at + image + (first + t * stride) * row_step + x * _BYTES
                # Rows that exist and whose window holds this key row.
                use_up = t < side and first < height
                use_low = t > 0 and first + stride < height
                for d in range(0, side, DISPLACEMENTS):
                    count = min(DISPLACEMENTS, side - d)
                    whole = inside == LANES and count % 2 == 1 and count > 1
                    up, step_up, low, step_low = spare_up, LANES * _BYTES, spare_low, LANES * _BYTES
                    plane_up = (batch * side + t) * side + d
                    if whole and use_up:
                        up = out_at + plane_up * plane + (first * width + x) * _BYTES
                        step_up = plane
                    if whole and use_low:
                        low = out_at + (plane_up - side) * plane
                        low += ((first + stride) * width + x) * _BYTES
                        step_low = plane
                    _sums(
                        upper, upper + stride * row_step, match + d * stride * _BYTES,
                        stride * _BYTES, channel_step, channels, scale, count,
                        up, step_up, low, step_low,
                    )  # fmt: skip
                    if not whole:
                        for i in range(count):
                            for lane in range(inside):
                                plane_of = t * side + d + i
                                if use_up:
                                    out[batch, plane_of, first, x + lane] = spare[0, i, lane]
                                if use_low:
                                    out[batch, plane_of - side, first + stride, x + lane] = spare[
                                        1, i, lane
                                    ]


@compiled
def gradient(start, stop, grad, source, radius, stride, scale, mirrored, out):
    """out[b, c, y, x] = scale * sum over displacements of grad * source.

    Not ``mirrored``, the query's gradient: grad at (y, x), source, the key, at (y + dy, x + dx).
    ``mirrored``, the key's: grad at (y - dy, x - dx), source, the query, there too.

    Args:
        start, stop: of the pairs of all images of the batch.
        grad: [B, side^2, H, W] float32.
        source: packed.
        out: [B, C, H, W] float32, written.
    """
    side = 2 * radius + 1
    channels, height, width = out.shape[1], out.shape[2], out.shape[3]
    columns = (width + LANES - 1) // LANES * LANES
    pairs = (height + 2 * stride - 1) // (2 * stride) * stride
    channel_step = source.shape[3] * _BYTES
    row_step = source.shape[2] * channel_step
    source_at = source.ctypes.data
    weights = np.zeros((side + 1, 2, side, columns), np.float32)
    sums = np.empty((2, CHANNELS, columns), np.float32)
    for item in range(start, stop):
        batch, pair = item // pairs, item % pairs
        first = 2 * stride * (pair // stride) + pair % stride
        _fill_weights(grad[batch], first, radius, stride, scale, mirrored, weights)
        image = source_at + batch * source.shape[1] * row_step
        for channel in range(0, channels, CHANNELS):
            sums[:] = np.float32(0.0)
            for x in range(0, columns, LANES):
                for t in range(side + 1):
                    match = image + (first + t * stride) * row_step + channel * channel_step
                    gather_products(
                        weights[t, 0].ctypes.data + x * _BYTES,
                        weights[t, 1].ctypes.data + x * _BYTES, columns * _BYTES,
                        match + x * _BYTES, stride * _BYTES, channel_step, side,
                        sums[0].ctypes.data + x * _BYTES, sums[1].ctypes.data + x * _BYTES,
                        columns * _BYTES,
                    )  # fmt: skip
            for row in range(2):
                y = first + row * stride
                if y < height:
                    for c in range(min(CHANNELS, channels - channel)):
                        out[batch, channel + c, y, :] = sums[row, c, :width]


@compiled
def _fill_weights(grad, first, radius, stride, scale, mirrored, weights):
    """weights[t, row, i, x]: what the pixel ``i`` displacements along in key row t counts for.

    Zero where there is no such row or pixel.
    """
    side = 2 * radius + 1
    height, width = grad.shape[1], grad.shape[2]
    for t in range(side + 1):
        for row in range(2):
            dy = t - row  # this row's displacement that leads to row t of the pair's window
            y = first + row * stride
            if mirrored:
                y = first + (t - radius) * stride
                dy = side - 1 - dy
            for i in range(side):
                line = weights[t, row, i]
                line[:] = np.float32(0.0)
                exists = first + row * stride < height and 0 <= y < height
                if not exists or dy < 0 or dy >= side:
                    continue
                if not mirrored:
                    values = grad[dy * side + i, y]
                    for x in range(width):
                        line[x] = values[x] * scale
                else:
                    values = grad[dy * side + side - 1 - i, y]
                    shift = (i - radius) * stride  # of the source pixel
                    low, high = max(0, -shift), min(width, width - shift)
                    if low < high:
                        into, values = line[low:high], values[low + shift : high + shift]
                        for x in range(high - low):
                            into[x] = values[x] * scale
