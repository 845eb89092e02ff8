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

from kernels.jit import LANES, compiled, part, stage
from kernels.packing import own_row, row_bytes, unpack_row
from kernels.shifted_search.cpu_search import reflect, whole
from kernels.vector_lists import (
    clear,
    get_float,
    get_int,
    get_word,
    pad_list,
    put_float,
    put_int,
    put_word,
)
from kernels.vector_scores import PLACES, list_corners, positions
from kernels.vectors import dots, spread, weighted_sum

_CORNERS = 4
TOGETHER = 4  # queries, worked on step by step
_ROWS = 4  # of a result, summed up at a time
_STEP = 4 * LANES  # from one of a position's numbers to the next
_GROUP = _STEP * len(PLACES)  # from LANES positions to the next
_CORNER, _FX, _FY, _SIGN_X, _SIGN_Y = (
    _STEP * PLACES.index(name) for name in ("a", "fx", "fy", "sign_x", "sign_y")
)


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


class Work(NamedTuple):
    """Addresses of what one thread works in: a list of pixels with their weights, and more."""

    table: int  # int64: where the pixels are, in bytes from the image's beginning
    weights: int
    results: int  # their products
    kept: int  # [groups of LANES][len(PLACES)][LANES]: see vectors.positions
    sizes: int  # int64 [8]: likewise; then how long the list is
    box: int  # int32 [2]: likewise
    pixel: int  # a pixel's channels
    size: int  # not an address: bytes from one of the queries worked on together to the next


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
    moved, last = position + np.float32(step), np.float32(size - 1)
    if position >= 0 and position <= last and moved >= 0 and moved < last:  # nearly all
        low = int(moved)
        return low, low + 1, moved - np.float32(low), np.float32(1)
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
def lay_out_lists(start, s):
    """(Work from an address on, where it ends); the memory must be zeros."""
    entries = _CORNERS * s.kept + 2 * LANES
    table = -(-start // 64) * 64
    weights = table + 8 * entries
    results = weights + 4 * entries
    kept = -(-(results + 4 * entries) // 64) * 64
    groups = -(-s.kept // LANES)
    sizes = kept + groups * _GROUP
    box = sizes + 64
    pixel = box + 64
    size = -(-(pixel + 4 * (s.depth + 2 * LANES) - table) // 64) * 64
    w = Work(table, weights, results, kept, sizes, box, pixel, size)
    return w, table + TOGETHER * size


@part
def beside(w, n):
    """The Work of the n-th of the queries that are worked on together."""
    more = n * w.size
    return Work(
        w.table + more,
        w.weights + more,
        w.results + more,
        w.kept + more,
        w.sizes + more,
        w.box + more,
        w.pixel + more,
        w.size,
    )


@part
def prepare(first, s):
    """Make the memory of ``lay_out_lists`` ready."""
    for n in range(TOGETHER):
        w = beside(first, n)
        put_word(w.sizes, s.kept)
        put_word(w.sizes + 8, s.components)
        put_word(w.sizes + 16, s.width)
        put_word(w.sizes + 24, s.height)
        put_word(w.sizes + 32, s.references)
        put_word(w.sizes + 40, s.clamp)


@part
def place_of(w, k):
    """The address of the numbers of position k, as ``positions`` wrote them."""
    return w.kept + k // LANES * _GROUP + 4 * (k % LANES)


@stage
def list_queries(y, x, number, h, dy, dx, low, high, only, unit, lists, image, first, s):
    """List the corners of the positions of the queries x .. x + number - 1, and what they weigh: a
    step for all of them before the next, since each step waits for the results of the one before.
    The lists' lengths: ``listed``.

    Args:
        low, high: the rows of the image to list.
        only: the reference to list, or -1.
        unit: 1: all coefficients are 1; else positions whose coefficient is 0 are left out.
        image: Layout of the image that the lists are for.
        first: Work of the first query.
    """
    for n in range(number):
        w = beside(first, n)
        index = list_index(h, y, x + n, s)
        offsets = lists.offsets + 4 * index * s.components
        coefficients = 0 if unit else lists.coefficients + 4 * index
        put_word(w.sizes + 48, only)
        own_x, own_y = (x + n) * s.query_stride, y * s.query_stride
        positions(offsets, coefficients, w.sizes, own_x, own_y, dx, dy, w.kept, w.box)
    for n in range(number):
        w = beside(first, n)
        groups = (s.kept + LANES - 1) // LANES
        steps = image.reference, image.row, image.pixel
        count = list_corners(w.kept, groups, *steps, low, high, w.table, w.weights)
        pad_list(w.table, w.weights, count)
        put_word(w.sizes + 56, count)


@part
def listed(w):
    """How long a query's list is."""
    return get_word(w.sizes + 56)


@part
def put_corner(w, count, offset, weight):
    """Append a pixel to the list; its length after it."""
    put_word(w.table + 8 * count, offset)
    put_float(w.weights + 4 * count, weight)
    return count + 1


@part
def put_corners(w, count, corners, low, high, image, coefficient):
    """Append those of a position's corners that lie in the rows low .. high - 1."""
    left, right, fx, _, top, bottom, fy, _, r = corners
    one = np.float32(1)
    start = r * image.reference
    left, right = start + left * image.pixel, start + right * image.pixel
    if low <= top < high:
        weight = coefficient * (one - fy)
        count = put_corner(w, count, top * image.row + left, weight * (one - fx))
        count = put_corner(w, count, top * image.row + right, weight * fx)
    if low <= bottom < high:
        weight = coefficient * fy
        count = put_corner(w, count, bottom * image.row + left, weight * (one - fx))
        count = put_corner(w, count, bottom * image.row + right, weight * fx)
    pad_list(w.table, w.weights, count)
    return count


@part
def subtract(table, weights, count, base, own, pixel, vectors):
    """pixel = u - V(p), the corners of p standing in a list; its weights change their sign."""
    for i in range(0, 4 * LANES * vectors, 4):
        put_float(pixel + i, get_float(own + i))
    for i in range(0, 4 * count, 4):
        put_float(weights + i, -get_float(weights + i))
    weighted_sum(table, weights, count, base, pixel, vectors)


@compiled
def measure_rows(start, stop, own_image, image, lists, values, slopes, s):
    """<u, V(p_k)> and its derivatives for the queries of the rows start .. stop - 1.

    Args:
        own_image, image: Layouts of U and V.
        values: address of [heads, nH, nW, K]; slopes: of [heads, nH, nW, K, 2].
    """
    memory = np.zeros(lay_out_lists(64, s)[1], np.uint8)
    w, _ = lay_out_lists(memory.ctypes.data, s)
    prepare(w, s)
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
                        measure_query(y, x, h, dy, dx, own, base, image, lists, w, s)
                        for k in range(s.kept):
                            i = 4 * (first + k)
                            value, slope_x, slope_y = measured(w, k)
                            put_float(values + i, get_float(values + i) + value)
                            put_float(slopes + 2 * i, get_float(slopes + 2 * i) + slope_x)
                            put_float(slopes + 2 * i + 4, get_float(slopes + 2 * i + 4) + slope_y)
    memory[0] = 0  # the last use: numba frees an array after it


@part
def keep_position(w, k, corners):
    """Note for ``measured`` a position whose products are its own; they are with u - V(p)."""
    _, _, fx, sign_x, _, _, fy, sign_y, _ = corners
    place = place_of(w, k)
    for number in range(_CORNERS):
        put_int(place + _CORNER + _STEP * number, np.int32(_CORNERS * k + number))
    put_float(place + _FX, fx)
    put_float(place + _FY, fy)
    put_float(place + _SIGN_X, -sign_x)
    put_float(place + _SIGN_Y, -sign_y)


@part
def measure_query(y, x, h, dy, dx, own, base, image, lists, w, s):
    """Products of u at the address ``own`` with the corners of a query's positions."""
    if not s.difference:
        list_queries(y, x, 1, h, dy, dx, 0, s.height, -1, 1, lists, image, w, s)
        dots(own, base, w.table, w.results, whole(listed(w)), image.vectors)
        return
    first = list_index(h, y, x, s)
    one = np.float32(1)
    for k in range(s.kept):  # their own for each position: u - V(p) takes the place of u
        offset = lists.offsets + 4 * (first + k) * s.components
        corners = position_of(offset, y, x, dy, dx, s)
        put_corners(w, 0, corners, 0, s.height, image, one)
        subtract(w.table, w.weights, _CORNERS, base, own, w.pixel, image.vectors)
        results = w.results + 4 * _CORNERS * k
        dots(w.pixel, base, w.table, results, _CORNERS, image.vectors)
        keep_position(w, k, corners)


@part
def result(w, place, number):
    """The product of a corner of a position whose numbers are at an address."""
    return get_float(w.results + 4 * np.int64(get_int(place + _CORNER + _STEP * number)))


@part
def measured(w, k):
    """The mixture of the products of position k's corners, and its derivatives by x and y."""
    place = place_of(w, k)
    a, b, c, d = result(w, place, 0), result(w, place, 1), result(w, place, 2), result(w, place, 3)
    fx, fy = get_float(place + _FX), get_float(place + _FY)
    gx, gy = np.float32(1) - fx, np.float32(1) - fy
    value = (a * gx + b * fx) * gy + (c * gx + d * fx) * fy
    slope_x = get_float(place + _SIGN_X) * ((b - a) * gy + (d - c) * fy)
    slope_y = get_float(place + _SIGN_Y) * ((c - a) * gx + (d - b) * fx)
    return value, slope_x, slope_y


@compiled
def collect_rows(start, stop, own_image, image, lists, out, channel, s):
    """out(u's pixel) += sum_k c_k V(p_k) for the rows start .. stop - 1 of an image like U.

    Args:
        own_image: Layout of U, used where ``difference`` is set.
        out: address of [C, own_height, own_width] float32, channels ``channel`` bytes apart.
    """
    head = 4 * LANES * image.vectors
    step = s.heads * head
    line = s.own_width * step
    band = np.zeros(_ROWS * line + 64, np.uint8)
    target = -(-band.ctypes.data // 64) * 64
    memory = np.zeros(lay_out_lists(64, s)[1], np.uint8)
    w, _ = lay_out_lists(memory.ctypes.data, s)
    prepare(w, s)
    stride = s.query_stride if s.fold else 1
    reach = s.dilation * max(s.middle, s.last_row - 1 - s.middle) if s.fold else 0
    for low in range(start, stop, _ROWS):
        high = min(low + _ROWS, stop)
        if low > start:
            band[:] = 0
        lowest = max(-((reach - low) // stride), 0)
        for y in range(lowest, min((high - 1 + reach) // stride + 1, s.rows)):
            collect_row(y, low, high, target, step, head, own_image, image, lists, w, s)
        for row in range(low, high):
            source = target + (row - low) * line
            place = out + 4 * row * s.own_width
            unpack_row(source, step, head, s.heads, s.depth, s.own_width, place, channel)
    memory[0] = band[0] = 0  # the last use: numba frees an array after it


@stage
def collect_row(y, low, high, target, step, head, own_image, image, lists, first, s):
    """The sums of the queries of row y that belong to the rows low .. high - 1 of a band."""
    for h, a, b in np.ndindex(s.heads, s.last_row - s.first_row, s.last_column - s.first_column):
        dy = s.dilation * (s.first_row + a - s.middle)
        dx = s.dilation * (s.first_column + b - s.middle)
        base = image.address + h * image.head
        for x in range(0, s.columns, TOGETHER):
            number = min(TOGETHER, s.columns - x)
            list_queries(y, x, number, h, dy, dx, 0, s.height, -1, 0, lists, image, first, s)
            for n in range(number):
                row, column = own_pixel(y, x + n, dy, dx, s)
                if not low <= row < high:
                    continue
                w = beside(first, n)
                place = target + ((row - low) * s.own_width + column) * step + h * head
                weighted_sum(w.table, w.weights, listed(w), base, place, image.vectors)
                if s.difference:
                    own = own_image.address + row * own_image.row
                    own += column * own_image.pixel + h * own_image.head
                    total, index = np.float32(0), list_index(h, y, x + n, s)
                    for k in range(index, index + s.kept):
                        total -= get_float(lists.coefficients + 4 * k)
                    put_word(w.table, 0)
                    put_float(w.weights, total)
                    pad_list(w.table, w.weights, 1)
                    weighted_sum(w.table, w.weights, 1, own, place, image.vectors)


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
def spread_rows(start, stop, own_image, planes, image, lists, reaches, packed, out, rows, s):
    """out(corners of p_k) += c_k w_corner u: bands of ``rows`` rows of an image [R, C, H, W] like
    V.

    Args:
        start, stop: bands; a reference has ceil(H / rows) of them.
        own_image, planes: how to read U (packing.rows_of); a whole Layout where rows are not read
            one by one. image: Layout of V, used where ``difference`` is set.
        packed: Layout of memory to sum up in, of any content.
        out: (address of float32 numbers, bytes between references, between channels).
    """
    head = packed.head
    memory = np.zeros(lay_out_lists(64, s)[1] + row_bytes(own_image, planes) + 64, np.uint8)
    w, buffer = lay_out_lists(memory.ctypes.data, s)
    prepare(w, s)
    bands = -(-s.height // rows)
    furthest = max(s.middle, s.last_row - 1 - s.middle)
    reach = s.dilation * furthest
    for item in range(start, stop):
        r, low = item // bands, item % bands * rows
        high = min(low + rows, s.height)
        band = packed.address + r * packed.reference
        clear(band + low * packed.row, (high - low) * packed.row)
        for y in range(s.rows):
            if reaches[y, 0] - reach >= high or reaches[y, 1] + reach < low:
                continue
            line = 0
            if planes.address:
                line = own_row(
                    own_image, planes, y * s.query_stride, s.own_width, s.heads, s.depth, buffer
                )
            spread_row(line, y, r, low, high, own_image, packed, image, lists, w, s)
        for row in range(low, high):
            source = band + row * packed.row
            place = out[0] + r * out[1] + 4 * row * s.width
            unpack_row(source, packed.pixel, head, s.heads, s.depth, s.width, place, out[2])
    memory[0] = 0  # the last use: numba frees an array after it


@stage
def spread_row(line, y, r, low, high, own_image, packed, image, lists, first, s):
    """Spread what the queries of row y send to the rows low .. high - 1 of reference r.

    Args:
        line: the address of the row of U, or 0 to read it where it is.
    """
    for h, a, b in np.ndindex(s.heads, s.last_row - s.first_row, s.last_column - s.first_column):
        dy = s.dilation * (s.first_row + a - s.middle)
        dx = s.dilation * (s.first_column + b - s.middle)
        place = packed.address + h * packed.head
        for x in range(0, s.columns, TOGETHER):
            number = min(TOGETHER, s.columns - x)
            if not s.difference:
                list_queries(y, x, number, h, dy, dx, low, high, r, 0, lists, packed, first, s)
            for n in range(number):
                w = beside(first, n)
                row, column = own_pixel(y, x + n, dy, dx, s)
                if row < 0:
                    continue
                own = line if line else own_image.address + row * own_image.row
                own += column * own_image.pixel + h * own_image.head
                if s.difference:
                    base = image.address + h * image.head
                    images, band = (image, packed), (r, low, high)
                    at = (y, x + n, h, dy, dx)
                    spread_differences(at, band, place, base, own, images, lists, w, s)
                else:
                    spread(w.table, w.weights, listed(w), place, own, packed.vectors)


@stage
def spread_differences(at, band, place, base, own, images, lists, w, s):
    """The same for c_k (V(p_k) - u), one position at a time."""
    y, x, h, dy, dx = at
    image, packed = images
    r, low, high = band
    first = list_index(h, y, x, s)
    for k in range(first, first + s.kept):
        c = get_float(lists.coefficients + 4 * k)
        if c == 0:
            continue
        corners = position_of(lists.offsets + 4 * k * s.components, y, x, dy, dx, s)
        if corners[8] != r:
            continue
        put_corners(w, 0, corners, 0, s.height, image, np.float32(1))
        subtract(w.table, w.weights, _CORNERS, base, own, w.pixel, image.vectors)
        count = put_corners(w, 0, corners, low, high, packed, -c)
        spread(w.table, w.weights, count, place, w.pixel, packed.vectors)
