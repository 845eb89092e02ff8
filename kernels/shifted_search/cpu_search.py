"""The search on the CPU: compiled code for the rows of one image.

All candidates of a query share one fraction where the search stride is whole, and the dot product
is
linear in the key: so (window + 1)^2 dot products at whole pixels are taken (vectors.dots) and the
*scores* are interpolated. For l2, with d_i = q - k_i at the four corners and weights w_i,

    |q - k(p)|^2 = sum_i w_i |d_i|^2 - sum_{i<j} w_i w_j |k_i - k_j|^2,

whose second part only needs the squared differences of neighbouring key pixels, computed once per
image. Neighbours beyond the border are those of the reflected image, so patches interpolate just
the same.

Compiled code passes addresses instead of arrays: handing an array to a function, or slicing it,
costs numba two atomic operations, more than a query's dot products if done a dozen times.

LANES queries then stand side by side, one per lane, while keep_best runs their candidates through
lists of the best. A query's scores live in a few kilobytes; no window volume is ever stored.
"""

from typing import NamedTuple

import numpy as np

from kernels.jit import LANES, compiled, part
from kernels.packing import own_row, row_bytes
from kernels.vectors import (
    distances,
    dots,
    exponentials,
    get_float,
    get_int,
    keep_best,
    mix_distances,
    mix_dots,
    put_float,
    put_word,
    transpose,
)

ANCHOR_NONE, ANCHOR_QUERY, ANCHOR_FLOW, ANCHOR_EXCLUDE = range(4)


class Search(NamedTuple):
    """SearchOptions and sizes as compiled code takes them: whole numbers only."""

    height: int
    width: int
    references: int
    heads: int
    depth: int
    window: int
    topk: int
    patch: int
    dilation: int
    query_stride: int
    l2: int
    integer: int
    keep_in_image: int
    per_reference: int
    anchor: int
    span: int  # whole pixels a window touches per axis


class Results(NamedTuple):
    """Addresses of one image's flow [R, 2, nH, nW], scores [heads, nH, nW, K] and offsets [heads,
    nH, nW, K, D], all contiguous float32, and their sizes."""

    flow: int
    scores: int
    offsets: int
    rows: int
    columns: int
    kept: int  # K
    components: int  # D


class Scratch(NamedTuple):
    """Addresses of what one thread works in."""

    shared: (
        int  # int64 [span^2]: byte offsets of the pixels of a rectangle, the same for all inside
    )
    table: int  # int64 [span^2]: those of a rectangle that sticks out
    grid: int  # [span^2]: products with the pixels of the rectangle
    part: int  # [span^2]: those of one pixel of the patch
    candidates: int  # [LANES][room]: ranks, larger is better
    across: int  # [room][LANES]: the same, transposed
    best: int  # [topk][LANES]
    indices: int  # int32 [topk][LANES]
    places: int  # [R][LANES][4]: centre x, y, first step x, y
    forced: int  # [R][LANES]: ranks of candidates that an anchor puts first
    steps: int  # [window^2][2]: column and row of each candidate
    row: int  # a packed row of the query
    room: int  # not an address: what a query's candidates take


class Differences(NamedTuple):
    """Maps of squared differences of neighbours, [heads, 3, R, H, W]; see ``differences_rows``."""

    address: int
    head: int  # steps in bytes
    map: int
    reference: int
    row: int


@part
def reflect(position, size):
    """A whole position reflected once at the border, then clamped into the image."""
    if position < 0:
        position = -position
    elif position > size - 1:
        position = 2 * (size - 1) - position
    return min(max(position, 0), size - 1)


@part
def reflect_float(position, size):
    """The same for float32; NaN counts as 0."""
    last = np.float32(size - 1)
    if not position == position:
        return np.float32(0)
    if position < 0:
        position = -position
    elif position > last:
        position = np.float32(2) * last - position
    return min(max(position, np.float32(0)), last)


@part
def place(own, flow, size, stride, s):
    """(centre, first step) of a window along one axis; naive.centres and naive.first_step."""
    if s.integer:
        flow = np.float32(np.rint(flow))
    centre = reflect_float(np.float32(own) + flow, size)
    half = (s.window - 1) // 2
    start = np.float32(-half)
    if s.keep_in_image:
        reach = stride * np.float32(half)
        low, high = centre - reach, centre + reach
        zero = np.float32(0)
        down = max(np.float32(np.ceil((high - np.float32(size - 1)) / stride)), zero)
        down = min(down, max(np.float32(np.floor(low / stride)), zero))
        start += max(np.float32(np.ceil(-low / stride)), zero) - down
    return centre, start


@part
def within(centre, start, size, stride, window):
    """(low, high): the steps low <= j < high of a window lie inside the image."""
    low, high = 0, window
    last = np.float32(size - 1)
    while low < high and centre + stride * (start + np.float32(low)) < 0:
        low += 1
    while high > low and centre + stride * (start + np.float32(high - 1)) > last:
        high -= 1
    return low, high


@part
def fill_table(table, top, left, rows, columns, key, s):
    """Byte offsets of the pixels of a rectangle, reflected, in scan order."""
    for i in range(rows):
        y = reflect(top + i, s.height) * key.row
        for j in range(columns):
            offset = y + reflect(left + j, s.width) * key.pixel
            put_word(table + 8 * (i * columns + j), offset)


@part
def products(own, base, table, out, count, vectors, l2):
    """Dot products or squared distances with ``count`` pixels, LANES at a time."""
    for i in range(0, count, LANES):
        if l2:
            distances(own, base, table + 8 * i, out + 4 * i, vectors)
        else:
            dots(own, base, table + 8 * i, out + 4 * i, vectors)


@part
def grid_products(row, x, y, top, left, query, key, base, h, w, s):
    """Products of query (x, y) with the pixels from (left, top) on, summed over the patch."""
    span, count = s.span, s.span * s.span
    if s.patch == 1:
        own = row + x * query.pixel + h * query.head
        if left >= 0 and top >= 0 and left + span <= s.width and top + span <= s.height:
            start = base + top * key.row + left * key.pixel
            products(own, start, w.shared, w.grid, count, key.vectors, s.l2)
        else:
            fill_table(w.table, top, left, span, span, key, s)
            products(own, base, w.table, w.grid, count, key.vectors, s.l2)
        return
    for i in range(count):
        put_float(w.grid + 4 * i, np.float32(0))
    for a in range(s.patch):
        dy = s.dilation * (a - s.patch // 2)
        line = query.address + reflect(y + dy, s.height) * query.row
        for b in range(s.patch):
            dx = s.dilation * (b - s.patch // 2)
            own = line + reflect(x + dx, s.width) * query.pixel + h * query.head
            fill_table(w.table, top + dy, left + dx, span, span, key, s)
            products(own, base, w.table, w.part, count, key.vectors, s.l2)
            for i in range(0, 4 * count, 4):
                put_float(w.grid + i, get_float(w.grid + i) + get_float(w.part + i))


@part
def mix_whole(grid, out, left, top, fx, fy, low_x, high_x, low_y, high_y, maps, near, s):
    """The ranks of all candidates where the search stride is 1: rows of LANES candidates.

    Args:
        near: the address of the first map of differences, of this head and reference.
    """
    for i in range(s.window):
        high = high_x if low_y <= i < high_y else 0
        upper = grid + 4 * i * s.span
        lower = upper + 4 * s.span
        target = out + 4 * i * s.window
        for j in range(0, s.window, LANES):
            a, b, c, low, end = upper + 4 * j, lower + 4 * j, target + 4 * j, low_x - j, high - j
            if s.l2 and high > 0:
                d = near + (top + i) * maps.row + 4 * (left + j)
                e, f = d + maps.map, d + 2 * maps.map
                mix_distances(a, b, fx, fy, c, low, end, d, e, f, maps.row)
            else:
                mix_dots(a, b, fx, fy, c, low, end)


@part
def mix_any(
    grid, out, cx, cy, sx, sy, left, top, low_x, high_x, low_y, high_y, maps, near, stride, s
):
    """The same for any search stride, one candidate at a time."""
    one, span = np.float32(1), s.span
    for i in range(s.window):
        py = cy + stride * (sy + np.float32(i))
        iy = int(np.floor(py))
        fy = py - np.float32(iy)
        for j in range(s.window):
            target = out + 4 * (i * s.window + j)
            if not (low_x <= j < high_x and low_y <= i < high_y):
                put_float(target, np.float32(-np.inf))
                continue
            px = cx + stride * (sx + np.float32(j))
            ix = int(np.floor(px))
            fx = px - np.float32(ix)
            at = grid + 4 * (min(iy - top, span - 2) * span + min(ix - left, span - 2))
            below = at + 4 * span
            upper = get_float(at) * (one - fx) + get_float(at + 4) * fx
            lower = get_float(below) * (one - fx) + get_float(below + 4) * fx
            value = upper * (one - fy) + lower * fy
            if s.l2:
                gx, gy = one - fx, one - fy
                d = near + iy * maps.row + 4 * ix
                e = d + maps.map
                level = gy * gy * get_float(d) + fy * fy * get_float(d + maps.row)
                upright = gx * gx * get_float(e) + fx * fx * get_float(e + 4)
                corners = fx * gx * fy * gy * get_float(e + maps.map)
                value = fx * gx * level + fy * gy * upright + corners - value
            put_float(target, value)


@part
def own_rank(row, x, y, query, key, base, h, w, s):
    """The rank of the query's own place in the first reference, summed over the patch."""
    total = np.float32(0)
    for a in range(s.patch):
        dy = s.dilation * (a - s.patch // 2)
        for b in range(s.patch):
            dx = s.dilation * (b - s.patch // 2)
            px, py = reflect(x + dx, s.width), reflect(y + dy, s.height)
            line = row if s.patch == 1 else query.address + py * query.row
            put_word(w.table, py * key.row + px * key.pixel)
            own = line + px * query.pixel + h * query.head
            products(own, base, w.table, w.part, 1, key.vectors, s.l2)
            total += get_float(w.part)
    return -total if s.l2 else total


@part
def find_query(cx, cy, sx, sy, x, y, stride, window):
    """The candidate that stands exactly on the query, or -1."""
    column = row = -1
    for j in range(window):
        step = np.float32(j)
        if cx + stride * (sx + step) == x:
            column = j
        if cy + stride * (sy + step) == y:
            row = j
    return row * window + column if column >= 0 and row >= 0 else -1


@part
def rank_candidates(row, x, y, n, r, h, query, key, results, maps, stride, w, s):
    """Fill the candidates of query (x, y) of the grid, the block's n-th, in reference r."""
    own_x, own_y = x * s.query_stride, y * s.query_stride
    plane = 4 * results.rows * results.columns
    flow = results.flow + 2 * r * plane + 4 * (y * results.columns + x)
    cx, sx = place(own_x, get_float(flow), s.width, stride, s)
    cy, sy = place(own_y, get_float(flow + plane), s.height, stride, s)
    held = w.places + 16 * (r * LANES + n)
    put_float(held, cx)
    put_float(held + 4, cy)
    put_float(held + 8, sx)
    put_float(held + 12, sy)
    low_x, high_x = within(cx, sx, s.width, stride, s.window)
    low_y, high_y = within(cy, sy, s.height, stride, s.window)
    px, py = cx + stride * sx, cy + stride * sy
    left, top = int(np.floor(px)), int(np.floor(py))
    base = key.address + r * key.reference + h * key.head
    near = maps.address + h * maps.head + r * maps.reference
    grid_products(row, own_x, own_y, top, left, query, key, base, h, w, s)
    out = w.candidates + 4 * n * w.room
    if stride == 1:
        fx, fy = px - np.float32(left), py - np.float32(top)
        mix_whole(w.grid, out, left, top, fx, fy, low_x, high_x, low_y, high_y, maps, near, s)
    else:
        bounds = (low_x, high_x, low_y, high_y)
        mix_any(w.grid, out, cx, cy, sx, sy, left, top, *bounds, maps, near, stride, s)
    forced = w.forced + 4 * (r * LANES + n)
    if s.anchor == ANCHOR_FLOW:
        centre = out + 4 * (int(-sy) * s.window + int(-sx))
        put_float(forced, get_float(centre))
        put_float(centre, np.float32(np.inf))
    elif s.anchor != ANCHOR_NONE and r == 0:
        index = find_query(cx, cy, sx, sy, own_x, own_y, stride, s.window)
        if index >= 0:
            put_float(out + 4 * index, np.float32(-np.inf))
        if s.anchor == ANCHOR_QUERY:
            put_float(forced, own_rank(row, own_x, own_y, query, key, base, h, w, s))


@part
def write(results, y, x, n, h, slot, kept, only, w, stride, s):
    """Copy a query's list into the results from ``slot`` on; candidates' numbers become offsets.

    Args:
        only: the reference searched, or -1 where candidates' numbers run over all of them.
    """
    area = s.window * s.window
    own_x, own_y = np.float32(x * s.query_stride), np.float32(y * s.query_stride)
    first = ((h * results.rows + y) * results.columns + x) * results.kept + slot
    scores, offsets = results.scores + 4 * first, results.offsets + 4 * first * results.components
    for k in range(kept):
        index, r = get_int(w.indices + 4 * (k * LANES + n)), max(only, 0)
        if only < 0 and s.references > 1:
            r = index // area
            index -= r * area
        step = w.steps + 8 * index
        value = get_float(w.best + 4 * (k * LANES + n))
        put_float(scores + 4 * k, -value if s.l2 else value)
        held = w.places + 16 * (r * LANES + n)
        px = get_float(held) + stride * (get_float(held + 8) + get_float(step))
        py = get_float(held + 4) + stride * (get_float(held + 12) + get_float(step + 4))
        if results.components == 3:
            put_float(offsets, np.float32(r))
            offsets += 4
        put_float(offsets, px - own_x)
        put_float(offsets + 4, py - own_y)
        offsets += 8


@part
def write_forced(results, y, x, n, h, slot, r, is_query, w, s):
    """The score of what an anchor put into ``slot``; for the query itself a zero offset as well."""
    first = ((h * results.rows + y) * results.columns + x) * results.kept + slot
    value = get_float(w.forced + 4 * (r * LANES + n))
    put_float(results.scores + 4 * first, -value if s.l2 else value)
    if is_query:
        for d in range(results.components):
            put_float(results.offsets + 4 * (first * results.components + d), np.float32(0))


@part
def write_block(results, y, x, count, h, slot, kept, only, w, stride, s):
    """The results of the block's queries x .. x + count - 1."""
    for n in range(count):
        write(results, y, x + n, n, h, slot, kept, only, w, stride, s)
        if s.anchor == ANCHOR_QUERY and only <= 0:
            write_forced(results, y, x + n, n, h, 0, 0, True, w, s)
        elif s.anchor == ANCHOR_FLOW and only >= 0:
            write_forced(results, y, x + n, n, h, slot, only, False, w, s)
        elif s.anchor == ANCHOR_FLOW:
            for r in range(s.references):
                write_forced(results, y, x + n, n, h, r, r, False, w, s)


@part
def search_block(row, y, x, count, h, query, key, results, maps, stride, w, s):
    """Search for the queries x .. x + count - 1 of row y, count <= LANES."""
    area = s.window * s.window
    for r in range(s.references):
        for n in range(count):
            rank_candidates(row, x + n, y, n, r, h, query, key, results, maps, stride, w, s)
        skipped = 1 if s.anchor == ANCHOR_QUERY and (r == 0 or not s.per_reference) else 0
        kept = s.topk - skipped
        if s.per_reference or r == 0:
            for i in range(0, 4 * kept * LANES, 4):
                put_float(w.best + i, np.float32(np.nan))
        if kept > 0:
            for i in range(0, area, LANES):
                source, target = w.candidates + 4 * i, w.across + 4 * LANES * i
                transpose(source, 4 * w.room, target, 4 * LANES)
            first = 0 if s.per_reference else r * area
            keep_best(w.across, area, first, w.best, w.indices, kept)
        if s.per_reference:
            slot = r * s.topk + skipped
            write_block(results, y, x, count, h, slot, kept, r, w, stride, s)
        elif r == s.references - 1:
            write_block(results, y, x, count, h, skipped, kept, -1, w, stride, s)


@part
def lay_out(start, query, planes, s):
    """(Scratch from the address ``start`` on, where it ends)."""
    pixels = -(-s.span * s.span // LANES) * LANES + 2 * LANES
    room = -(-(s.window * s.window + 2 * LANES) // LANES) * LANES
    shared = start
    table = shared + 8 * pixels
    grid = table + 8 * pixels
    part = grid + 4 * (pixels + s.span)
    # Vectors begin at whole cache lines.
    candidates = -(-(part + 4 * pixels) // 64) * 64
    across = candidates + 4 * LANES * room
    best = across + 4 * LANES * room
    indices = best + 4 * LANES * s.topk
    places = indices + 4 * LANES * s.topk
    forced = places + 16 * LANES * s.references
    steps = forced + 4 * LANES * s.references
    row = -(-(steps + 8 * s.window * s.window) // 64) * 64
    end = row + row_bytes(query, planes)
    scratch = Scratch(
        shared,
        table,
        grid,
        part,
        candidates,
        across,
        best,
        indices,
        places,
        forced,
        steps,
        row,
        room,
    )
    return scratch, end


@compiled
def search_rows(start, stop, query, planes, key, results, maps, stride, s):
    """Search for the queries of the rows start .. stop - 1 of one image.

    Args:
        query, planes: how to read the query (packing.rows_of); a whole Layout where patch > 1.
        key: Layout of the references. maps: Differences, for l2.
        stride: the search stride, float32. s: Search.
    """
    memory = np.zeros(lay_out(0, query, planes, s)[1] + 64, np.uint8)
    w, _ = lay_out(-(-memory.ctypes.data // 64) * 64, query, planes, s)
    # Slots beyond the rectangle stay zero and read its first pixel.
    for i in range(s.span):
        for j in range(s.span):
            put_word(w.shared + 8 * (i * s.span + j), i * key.row + j * key.pixel)
    for index in range(s.window * s.window):
        put_float(w.steps + 8 * index, np.float32(index % s.window))
        put_float(w.steps + 8 * index + 4, np.float32(index // s.window))
    for y in range(start, stop):
        row = own_row(query, planes, y * s.query_stride, s.width, s.heads, s.depth, w.row)
        for h in range(s.heads):
            for x in range(0, results.columns, LANES):
                count = min(LANES, results.columns - x)
                search_block(row, y, x, count, h, query, key, results, maps, stride, w, s)
    # The last use: numba frees an array after it.
    memory[0] = 0


@compiled
def differences_rows(start, stop, key, maps, s):
    """Squared differences of neighbouring key pixels, summed over the patch, for rows of [heads, R,
    H].

    Args:
        maps: [heads, 3, R, H, W]: of a pixel and its right neighbour, of it and the one below, and
            the sum over both diagonals of the square they make.
    """
    words, numbers = np.zeros(LANES, np.int64), np.zeros(LANES, np.float32)
    table, part = words.ctypes.data, numbers.ctypes.data
    for item in range(start, stop):
        y = item % s.height
        r = item // s.height % s.references
        h = item // (s.height * s.references)
        base = key.address + r * key.reference + h * key.head
        for x in range(s.width):
            right = below = diagonal = np.float32(0)
            for a in range(s.patch):
                dy = y + s.dilation * (a - s.patch // 2)
                upper, lower = reflect(dy, s.height) * key.row, reflect(dy + 1, s.height) * key.row
                for b in range(s.patch):
                    dx = x + s.dilation * (b - s.patch // 2)
                    left = reflect(dx, s.width) * key.pixel
                    beside = reflect(dx + 1, s.width) * key.pixel
                    put_word(table, upper + beside)
                    put_word(table + 8, lower + left)
                    put_word(table + 16, lower + beside)
                    own = base + upper + left
                    products(own, base, table, part, 1, key.vectors, 1)
                    right += get_float(part)
                    below += get_float(part + 4)
                    diagonal += get_float(part + 8)
                    put_word(table, lower + left)
                    own = base + upper + beside
                    products(own, base, table, part, 1, key.vectors, 1)
                    diagonal += get_float(part)
            maps[h, 0, r, y, x] = right
            maps[h, 1, r, y, x] = below
            maps[h, 2, r, y, x] = diagonal
    words[0] = numbers[0] = 0  # the last use: numba frees an array after it


@compiled
def softmax_rows(start, stop, scores, weights, kept, scale):
    """softmax over each K of scores [n, K], in [n, K]; infinite scores weigh 0. naive.softmax.

    Args:
        start, stop: items of n. scores, weights: addresses. scale: float32, negative for l2.
    """
    vectors = -(-kept // LANES)
    memory = np.zeros(vectors * LANES, np.float32)
    held = memory.ctypes.data
    for item in range(4 * kept * start, 4 * kept * stop, 4 * kept):
        highest = np.float32(-np.inf)
        for k in range(0, 4 * kept, 4):
            score = get_float(scores + item + k)
            if np.isinf(score):
                score = np.float32(-np.inf)
            else:
                score *= scale
                highest = max(highest, score)
            put_float(held + k, score)
        if highest == -np.inf:
            highest = np.float32(0)
        for k in range(0, 4 * kept, 4):
            put_float(held + k, get_float(held + k) - highest)
        exponentials(held, vectors)
        total = np.float32(0)
        for k in range(0, 4 * kept, 4):
            total += get_float(held + k)
        share = np.float32(1) / total if total > 0 else np.float32(0)
        for k in range(0, 4 * kept, 4):
            put_float(weights + item + k, get_float(held + k) * share)
    memory[0] = 0  # the last use: numba frees an array after it
