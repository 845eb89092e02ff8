"""The backward of the attention on the CPU, for one pixel against one and dot products.

Two passes over the queries, between the sums of cpu_bilinear.py: the first, over the values, makes
the gradients of the weights into those of the scores; the second, over the keys, collects the
gradient of the query. Both add what moves the windows to the gradient of their centres.
"""

import numpy as np

from kernels.jit import LANES, compiled, part, stage
from kernels.packing import own_row, row_bytes, unpack_row
from kernels.shifted_search.cpu_bilinear import (
    TOGETHER,
    beside,
    lay_out_lists,
    list_index,
    list_queries,
    listed,
    measured,
    prepare,
)
from kernels.shifted_search.cpu_search import whole
from kernels.vector_lists import clear, get_float, get_int, put_float
from kernels.vectors import dots, weighted_sum


@compiled
def through_values(
    start, stop, own, planes, image, lists, coefficients, centre, reaches, scale, anchored, s
):
    """Gradients of the scores, and of the centres through the values' positions.

    Args:
        start, stop: rows of queries.
        own, planes: how to read the gradient of the output (packing.rows_of).
        image: Layout of the values. lists: offsets and weights.
        coefficients: address of [heads, nH, nW, K]: receives the gradients of the scores.
        centre: address of [R, 2, nH, nW]: receives those of the centres.
        reaches: int64 [nH, 2]: receives the lowest and the highest row of V that is touched.
        scale: float32, of the scores in the softmax; negative for l2.
        anchored: 1 where slot 0 does not move with the centre.
    """
    memory = np.zeros(lay_out_lists(64, s)[1] + row_bytes(own, planes) + 64, np.uint8)
    w, buffer = lay_out_lists(memory.ctypes.data, s)
    prepare(w, s)
    for y in range(start, stop):
        start_centres(centre, y, s)
        line = own_row(own, planes, y * s.query_stride, s.own_width, s.heads, s.depth, buffer)
        low, high = s.height, -1
        for h in range(s.heads):
            for x in range(0, s.columns, TOGETHER):
                number = min(TOGETHER, s.columns - x)
                u = line + x * s.query_stride * own.pixel + h * own.head
                step = s.query_stride * own.pixel
                top, bottom = value_queries(
                    y, x, number, h, u, step, image, lists, coefficients, centre, scale, anchored,
                    w, s,
                )  # fmt: skip
                low, high = min(low, top), max(high, bottom)
        # Where rounding moved a position out of the image, the keys' rows are one further.
        reaches[y, 0], reaches[y, 1] = low - 1, high + 1
    memory[0] = 0  # the last use: numba frees an array after it


@stage
def value_queries(
    y, x, number, h, u, step, image, lists, coefficients, centre, scale, anchored, first, s
):
    """Some queries of ``through_values``; (lowest, highest) row."""
    list_queries(y, x, number, h, 0, 0, 0, s.height, -1, 0, lists, image, first, s)
    base = image.address + h * image.head
    low, high = s.height, -1
    for n in range(number):
        w = beside(first, n)
        own = u + n * step
        dots(own, base, w.table, w.results, whole(listed(w)), image.vectors)
        low = min(low, np.int64(get_int(w.box)))
        high = max(high, np.int64(get_int(w.box + 4)))
    for n in range(number):
        w = beside(first, n)
        index = list_index(h, y, x + n, s)
        mean = np.float32(0)
        for k in range(s.kept):
            weight = get_float(lists.coefficients + 4 * (index + k))
            value = np.float32(0)
            if weight != 0:
                value, slope_x, slope_y = measured(w, k)
                mean += weight * value
                if k > 0 or not anchored:
                    x_, y_ = weight * slope_x, weight * slope_y
                    add_slopes(centre, index + k, y, x + n, x_, y_, lists, s)
            put_float(coefficients + 4 * (index + k), value)
        for k in range(index, index + s.kept):
            weight = get_float(lists.coefficients + 4 * k)
            place = coefficients + 4 * k
            if weight != 0:
                put_float(place, scale * weight * (get_float(place) - mean))
            else:
                put_float(place, np.float32(0))
    return low, high


@part
def start_centres(centre, y, s):
    """Zeros in row y of the gradients of the centres."""
    for plane in range(2 * s.references):
        place = centre + 4 * (plane * s.rows + y) * s.columns
        for x in range(0, 4 * s.columns, 4):
            put_float(place + x, np.float32(0))


@part
def add_slopes(centre, index, y, x, slope_x, slope_y, lists, s):
    """Add a position's gradient to that of its window's centre."""
    r = 0
    if s.components == 3:
        r = int(get_float(lists.offsets + 12 * index))
    plane = 4 * s.rows * s.columns
    place = centre + 2 * r * plane + 4 * (y * s.columns + x)
    put_float(place, get_float(place) + slope_x)
    put_float(place + plane, get_float(place + plane) + slope_y)


@compiled
def through_keys(start, stop, own, planes, image, lists, centre, out, channel, moves, anchored, s):
    """Gradients of the query, and of the centres through the keys' positions.

    Args:
        start, stop: rows of the image of queries.
        own, planes: how to read the query. image: Layout of the keys.
        lists: offsets, and gradients of the scores as coefficients.
        centre: address of [R, 2, nH, nW], to add to.
        out: address of [C, H, W] float32, channels ``channel`` bytes apart.
        moves: 0 where the scores do not move with the centre.
    """
    memory = np.zeros(lay_out_lists(64, s)[1] + row_bytes(own, planes) + 64, np.uint8)
    w, buffer = lay_out_lists(memory.ctypes.data, s)
    prepare(w, s)
    head = 4 * LANES * image.vectors
    step = s.heads * head
    size = s.own_width * step
    band = np.zeros(size + 64, np.uint8)
    target = -(-band.ctypes.data // 64) * 64
    for row in range(start, stop):
        clear(target, size)
        if row % s.query_stride == 0:
            y = row // s.query_stride
            line = own_row(own, planes, row, s.own_width, s.heads, s.depth, buffer)
            for h in range(s.heads):
                for x in range(0, s.columns, TOGETHER):
                    number = min(TOGETHER, s.columns - x)
                    u = line + x * s.query_stride * own.pixel + h * own.head
                    place = target + x * s.query_stride * step + h * head
                    steps = s.query_stride * own.pixel, s.query_stride * step
                    key_queries(
                        y, x, number, h, u, place, steps, image, lists, centre, moves, anchored,
                        w, s,
                    )  # fmt: skip
        place = out + 4 * row * s.own_width
        unpack_row(target, step, head, s.heads, s.depth, s.own_width, place, channel)
    memory[0] = band[0] = 0  # the last use: numba frees an array after it


@stage
def key_queries(y, x, number, h, u, place, steps, image, lists, centre, moves, anchored, first, s):
    """Some queries of ``through_keys``."""
    list_queries(y, x, number, h, 0, 0, 0, s.height, -1, 0, lists, image, first, s)
    base = image.address + h * image.head
    for n in range(number):
        w = beside(first, n)
        target = place + n * steps[1]
        weighted_sum(w.table, w.weights, listed(w), base, target, image.vectors)
        if moves:
            own = u + n * steps[0]
            dots(own, base, w.table, w.results, whole(listed(w)), image.vectors)
    if not moves:
        return
    for n in range(number):
        w = beside(first, n)
        index = list_index(h, y, x + n, s)
        for k in range(s.kept):
            c = get_float(lists.coefficients + 4 * (index + k))
            if c != 0 and (k > 0 or not anchored):
                _, slope_x, slope_y = measured(w, k)
                add_slopes(centre, index + k, y, x + n, c * slope_x, c * slope_y, lists, s)


@compiled
def reflect_gradients(start, stop, centre, flow, rows, columns, height, width, stride, integer):
    """Gradients of the centres as those of the flow, in place; core.reflection_sign.

    Args:
        start, stop: rows of [images, 2, rows].
        centre, flow: addresses of [images, 2, rows, columns] float32.
    """
    for item in range(start, stop):
        vertical, row = item // rows % 2, item % rows
        last = np.float32((height if vertical else width) - 1)
        for x in range(columns):
            place = 4 * (item * columns + x)
            offset = get_float(flow + place)
            if integer:
                offset = np.float32(np.rint(offset))
            position = offset + np.float32(stride * (row if vertical else x))
            if not (position >= -last and position <= np.float32(2) * last):
                put_float(centre + place, np.float32(0))
            elif position < 0 or position > last:
                put_float(centre + place, -get_float(centre + place))
