"""Bilinear sums on the CPU: what gather, scatter, the attention and all backward passes are made
of.

Each query has K positions p_k in an image V, and beside it stands an image U (the query, or a
gradient). Three kinds of sums, over the pixels of the patch where there is one:

    measure   <u, V(p_k)> and its derivative by p_k          U, V -> numbers [heads, nH, nW, K]
    collect   out(u's pixel) += sum_k c_k V(p_k)             V -> an image like U
    spread    out(corners of p_k) += c_k w_corner u          U -> an image like V

Whoever writes to an image owns the rows it writes to, and adds in the order of the queries: no
atomic operations, and the same result for any number of threads. With ``difference`` (l2), V(p) - u
takes the place of V(p), so that each sum is the derivative of half the squared distance.
"""

from typing import NamedTuple

import numpy as np

from kernels.jit import LANES, compiled, part
from kernels.packing import unpack_row
from kernels.shifted_search.cpu_search import reflect
from kernels.vectors import dots, get_float, put_float, put_word, spread, weighted_sum

_CORNERS = 4


class Sums(NamedTuple):
    """Sizes and switches as compiled code takes them: whole numbers only."""

    height: int  # of V
    width: int
    own_height: int  # of U
    own_width: int
    references: int
    heads: int
    depth: int
    rows: int  # nH
    columns: int  # nW
    kept: int  # K
    components: int  # D
    query_stride: int
    dilation: int
    middle: int  # patch // 2
    first_row: int  # the patch's pixels: rows first_row .. last_row - 1 of it, likewise columns
    last_row: int
    first_column: int
    last_column: int
    fold: int  # 1: a patch pixel's u lies beside the query's; 0: u is the query's own, on U = grid
    drop: int  # pixels of u outside the image: 1 left out, 0 reflected
    clamp: int  # positions are clamped into the image before the patch offset is added
    difference: int


class Lists(NamedTuple):
    """Addresses of an image's offsets [heads, nH, nW, K, D], coefficients [heads, nH, nW, K]."""

    offsets: int
    coefficients: int


@part
def turn(position, size):
    """(position reflected once and clamped, its derivative: 1, -1 or 0); NaN counts as 0."""
    last, sign = np.float32(size - 1), np.float32(1)
    if not position == position:
        return np.float32(0), np.float32(0)
    if position < 0:
        position, sign = -position, np.float32(-1)
    elif position > last:
        position, sign = np.float32(2) * last - position, np.float32(-1)
    if position < 0:
        return np.float32(0), np.float32(0)
    if position > last:
        return last, np.float32(0)
    return position, sign


@part
def along(own, offset, step, size, clamp):
    """One axis of a position: (pixel, the next one, fraction, sign of the derivative)."""
    position = np.float32(own) + offset
    if clamp:
        if not position == position:
            position = np.float32(0)
        position = min(max(position, np.float32(0)), np.float32(size - 1))
    position, sign = turn(position + np.float32(step), size)
    low = int(position)
    return low, min(low + 1, size - 1), position - np.float32(low), sign


@part
def own_pixel(y, x, dy, dx, s):
    """(row, column) of u for query (y, x), patch offset (dy, dx); row -1 where it is left out."""
    if not s.fold:
        return y, x
    row, column = y * s.query_stride + dy, x * s.query_stride + dx
    if s.drop and not (0 <= row < s.own_height and 0 <= column < s.own_width):
        return -1, 0
    return reflect(row, s.own_height), reflect(column, s.own_width)


@part
def list_index(h, y, x, s):
    """Where the K numbers of a query begin."""
    return ((h * s.rows + y) * s.columns + x) * s.kept


@part
def position_of(offset, y, x, dy, dx, s):
    """The corners of the position whose offset is at an address: ``along`` twice, reference."""
    r = 0
    if s.components == 3:
        r = min(max(int(get_float(offset)), 0), s.references - 1)
        offset += 4
    own_x, own_y = x * s.query_stride, y * s.query_stride
    left, right, fx, sign_x = along(own_x, get_float(offset), dx, s.width, s.clamp)
    top, bottom, fy, sign_y = along(own_y, get_float(offset + 4), dy, s.height, s.clamp)
    return left, right, fx, sign_x, top, bottom, fy, sign_y, r


@part
def put_corner(table, weights, count, offset, weight):
    """Append a pixel to a list; the list's length after it."""
    put_word(table + 8 * count, offset)
    put_float(weights + 4 * count, weight)
    return count + 1


@part
def put_corners(table, weights, count, corners, image, coefficient):
    """Append a position's four corners, with their bilinear weights times a coefficient."""
    left, right, fx, _, top, bottom, fy, _, r = corners
    one = np.float32(1)
    plane = r * image.reference
    upper, lower = plane + top * image.row, plane + bottom * image.row
    left, right = left * image.pixel, right * image.pixel
    above, below = coefficient * (one - fy), coefficient * fy
    count = put_corner(table, weights, count, upper + left, above * (one - fx))
    count = put_corner(table, weights, count, upper + right, above * fx)
    count = put_corner(table, weights, count, lower + left, below * (one - fx))
    return put_corner(table, weights, count, lower + right, below * fx)


@part
def lay_out_lists(start, s):
    """Addresses (table, weights, results, a pixel's channels, where they end) from ``start`` on."""
    entries = _CORNERS * s.kept + 2 * LANES
    table = -(-start // 64) * 64
    weights = table + 8 * entries
    results = weights + 4 * entries
    pixel = -(-(results + 4 * entries) // 64) * 64
    return table, weights, results, pixel, pixel + 4 * (s.depth + 2 * LANES)


@part
def subtract(table, weights, first, count, base, own, pixel, vectors):
    """pixel = u - V(p), the corners of p standing in a list; its weights change their sign."""
    for i in range(0, 4 * LANES * vectors, 4):
        put_float(pixel + i, get_float(own + i))
    for i in range(4 * first, 4 * (first + count), 4):
        put_float(weights + i, -get_float(weights + i))
    weighted_sum(table + 8 * first, weights + 4 * first, count, base, pixel, vectors)


@compiled
def measure_rows(start, stop, own_image, image, lists, values, slopes, s):
    """<u, V(p_k)> and its derivatives for the queries of the rows start .. stop - 1.

    Args:
        own_image, image: Layouts of U and V.
        values: address of [heads, nH, nW, K]; slopes: of [heads, nH, nW, K, 2].
    """
    memory = np.zeros(lay_out_lists(64, s)[4], np.uint8)
    table, weights, results, pixel, _ = lay_out_lists(memory.ctypes.data, s)
    one = np.float32(1)
    for y in range(start, stop):
        for h in range(s.heads):
            base = image.address + h * image.head
            for x in range(s.columns):
                first = list_index(h, y, x, s)
                for i in range(4 * first, 4 * (first + s.kept), 4):
                    put_float(values + i, np.float32(0))
                    put_float(slopes + 2 * i, np.float32(0))
                    put_float(slopes + 2 * i + 4, np.float32(0))
                for a in range(s.first_row, s.last_row):
                    dy = s.dilation * (a - s.middle)
                    for b in range(s.first_column, s.last_column):
                        dx = s.dilation * (b - s.middle)
                        row, column = own_pixel(y, x, dy, dx, s)
                        if row < 0:
                            continue
                        own = own_image.address + row * own_image.row + column * own_image.pixel
                        own += h * own_image.head
                        count = 0
                        for k in range(s.kept):
                            offset = lists.offsets + 4 * (first + k) * s.components
                            corners = position_of(offset, y, x, dy, dx, s)
                            begin = count
                            count = put_corners(table, weights, begin, corners, image, one)
                            if s.difference:
                                n = image.vectors
                                subtract(table, weights, begin, _CORNERS, base, own, pixel, n)
                                dots(pixel, base, table + 8 * begin, results + 4 * begin, n)
                        if not s.difference:
                            for i in range(0, count, LANES):
                                dots(own, base, table + 8 * i, results + 4 * i, image.vectors)
                        for k in range(s.kept):
                            offset = lists.offsets + 4 * (first + k) * s.components
                            corners = position_of(offset, y, x, dy, dx, s)
                            add_measured(
                                results + 4 * _CORNERS * k,
                                corners,
                                values + 4 * (first + k),
                                slopes + 8 * (first + k),
                                s,
                            )
    memory[0] = 0  # the last use: numba frees an array after it


@part
def add_measured(products, corners, value, slope, s):
    """Add a position's mixture of its four products, and the mixture's derivatives."""
    _, _, fx, sign_x, _, _, fy, sign_y, _ = corners
    one = np.float32(1)
    gx, gy = one - fx, one - fy
    a, b = get_float(products), get_float(products + 4)
    c, d = get_float(products + 8), get_float(products + 12)
    if s.difference:  # the products are with u - V
        sign_x, sign_y = -sign_x, -sign_y
    put_float(value, get_float(value) + (a * gx + b * fx) * gy + (c * gx + d * fx) * fy)
    put_float(slope, get_float(slope) + sign_x * ((b - a) * gy + (d - c) * fy))
    put_float(slope + 4, get_float(slope + 4) + sign_y * ((c - a) * gx + (d - b) * fx))


@compiled
def collect_rows(start, stop, own_image, image, lists, out, channel, s):
    """out(u's pixel) += sum_k c_k V(p_k) for the rows start .. stop - 1 of an image like U.

    Args:
        own_image: Layout of U, used where ``difference`` is set.
        out: address of [C, own_height, own_width] float32, channels ``channel`` bytes apart.
    """
    head = 4 * LANES * image.vectors
    step = s.heads * head
    band = np.zeros((stop - start) * s.own_width * step + 64, np.uint8)
    target = -(-band.ctypes.data // 64) * 64
    memory = np.zeros(lay_out_lists(64, s)[4], np.uint8)
    table, weights, results, _, _ = lay_out_lists(memory.ctypes.data, s)
    stride = s.query_stride if s.fold else 1
    reach = s.dilation * max(s.middle, s.last_row - 1 - s.middle) if s.fold else 0
    lowest = max(-((reach - start) // stride), 0)
    for y in range(lowest, min((stop - 1 + reach) // stride + 1, s.rows)):
        for a in range(s.first_row, s.last_row):
            dy = s.dilation * (a - s.middle)
            for h in range(s.heads):
                base = image.address + h * image.head
                for x in range(s.columns):
                    for b in range(s.first_column, s.last_column):
                        dx = s.dilation * (b - s.middle)
                        row, column = own_pixel(y, x, dy, dx, s)
                        if not start <= row < stop:
                            continue
                        first, count, total = list_index(h, y, x, s), 0, np.float32(0)
                        for k in range(first, first + s.kept):
                            c = get_float(lists.coefficients + 4 * k)
                            if c == 0:
                                continue
                            offset = lists.offsets + 4 * k * s.components
                            corners = position_of(offset, y, x, dy, dx, s)
                            count = put_corners(table, weights, count, corners, image, c)
                            total -= c
                        place = target + ((row - start) * s.own_width + column) * step + h * head
                        weighted_sum(table, weights, count, base, place, image.vectors)
                        if s.difference:
                            own = own_image.address + row * own_image.row
                            own += column * own_image.pixel + h * own_image.head
                            put_word(table, 0)
                            put_float(results, total)
                            weighted_sum(table, results, 1, own, place, image.vectors)
    for row in range(start, stop):
        source = target + (row - start) * s.own_width * step
        place = out + 4 * row * s.own_width
        unpack_row(source, step, head, s.heads, s.depth, s.own_width, place, channel)
    memory[0] = band[0] = 0  # the last use: numba frees an array after it


@compiled
def reach_rows(start, stop, lists, reaches, s):
    """The lowest and the highest row of V that the positions of each row of queries touch.

    Args:
        reaches: int64 [nH, 2].
    """
    for y in range(start, stop):
        low, high = s.height, -1
        for h in range(s.heads):
            first = list_index(h, y, 0, s)
            for k in range(first, first + s.columns * s.kept):
                offset = lists.offsets + 4 * k * s.components
                if s.components == 3:
                    offset += 4
                own = y * s.query_stride
                top, bottom, _, _ = along(own, get_float(offset + 4), 0, s.height, s.clamp)
                low, high = min(low, top), max(high, bottom)
        reaches[y, 0], reaches[y, 1] = low, high


@compiled
def spread_rows(start, stop, own_image, image, lists, reaches, out, reference, channel, rows, s):
    """out(corners of p_k) += c_k w_corner u: bands of ``rows`` rows of an image [R, C, H, W] like
    V.

    Args:
        start, stop: bands; a reference has ceil(H / rows) of them.
        own_image: Layout of U. image: that of V, used where ``difference`` is set.
        out: address of float32 numbers, ``reference`` and ``channel`` bytes apart.
    """
    vectors = own_image.vectors
    head = 4 * LANES * vectors
    step = s.heads * head
    band = np.zeros(rows * s.width * step + 64, np.uint8)
    target = -(-band.ctypes.data // 64) * 64
    memory = np.zeros(2 * lay_out_lists(64, s)[4], np.uint8)
    table, weights, _, _, end = lay_out_lists(memory.ctypes.data, s)
    bands = -(-s.height // rows)
    furthest = max(s.middle, s.last_row - 1 - s.middle)
    reach = s.dilation * furthest
    for item in range(start, stop):
        r, low = item // bands, item % bands * rows
        high = min(low + rows, s.height)
        if item > start:
            band[:] = 0
        for y in range(s.rows):
            if reaches[y, 0] - reach >= high or reaches[y, 1] + reach < low:
                continue
            for h in range(s.heads):
                for x in range(s.columns):
                    for a in range(s.first_row, s.last_row):
                        dy = s.dilation * (a - s.middle)
                        for b in range(s.first_column, s.last_column):
                            dx = s.dilation * (b - s.middle)
                            row, column = own_pixel(y, x, dy, dx, s)
                            if row < 0:
                                continue
                            own = own_image.address + row * own_image.row
                            own += column * own_image.pixel + h * own_image.head
                            count = list_corners(
                                table, weights, y, x, dy, dx, h, r, low, high, step, lists, s
                            )
                            place = target + h * head
                            if not s.difference:
                                spread(table, weights, count, place, own, vectors)
                            elif count > 0:
                                spread_differences(
                                    y,
                                    x,
                                    dy,
                                    dx,
                                    h,
                                    r,
                                    low,
                                    high,
                                    step,
                                    own,
                                    place,
                                    end,
                                    lists,
                                    image,
                                    s,
                                )
        for row in range(low, high):
            source = target + (row - low) * s.width * step
            place = out + r * reference + 4 * row * s.width
            unpack_row(source, step, head, s.heads, s.depth, s.width, place, channel)
    memory[0] = band[0] = 0  # the last use: numba frees an array after it


@part
def put_band_corners(table, weights, count, corners, low, high, step, c, s):
    """Append those of a position's corners that lie in the rows low .. high - 1 of a band."""
    left, right, fx, _, top, bottom, fy, _, _ = corners
    one = np.float32(1)
    if low <= top < high:
        start, weight = (top - low) * s.width, c * (one - fy)
        count = put_corner(table, weights, count, (start + left) * step, weight * (one - fx))
        count = put_corner(table, weights, count, (start + right) * step, weight * fx)
    if low <= bottom < high:
        start, weight = (bottom - low) * s.width, c * fy
        count = put_corner(table, weights, count, (start + left) * step, weight * (one - fx))
        count = put_corner(table, weights, count, (start + right) * step, weight * fx)
    return count


@part
def list_corners(table, weights, y, x, dy, dx, h, r, low, high, step, lists, s):
    """List the corners of all positions of a query that lie in a band of reference r."""
    first, count = list_index(h, y, x, s), 0
    for k in range(first, first + s.kept):
        c = get_float(lists.coefficients + 4 * k)
        if c == 0:
            continue
        corners = position_of(lists.offsets + 4 * k * s.components, y, x, dy, dx, s)
        if corners[8] == r:
            count = put_band_corners(table, weights, count, corners, low, high, step, c, s)
    return count


@part
def spread_differences(y, x, dy, dx, h, r, low, high, step, own, place, start, lists, image, s):
    """The same for c_k (V(p_k) - u), one position at a time."""
    table, weights, results, pixel, _ = lay_out_lists(start, s)
    first = list_index(h, y, x, s)
    base = image.address + h * image.head
    for k in range(first, first + s.kept):
        c = get_float(lists.coefficients + 4 * k)
        if c == 0:
            continue
        corners = position_of(lists.offsets + 4 * k * s.components, y, x, dy, dx, s)
        if corners[8] != r:
            continue
        count = put_corners(table, results, 0, corners, image, np.float32(1))
        subtract(table, results, 0, count, base, own, pixel, image.vectors)
        count = put_band_corners(table, weights, 0, corners, low, high, step, -c, s)
        spread(table, weights, count, place, pixel, image.vectors)
