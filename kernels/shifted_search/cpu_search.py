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

from kernels.jit import LANES, compiled, part, stage
from kernels.packing import own_row, row_bytes
from kernels.vector_lists import (
    copy,
    exponentials,
    fill,
    get_float,
    get_int,
    get_word,
    put_float,
    put_int,
    put_word,
    softmax_lists,
)
from kernels.vector_scores import apart_row, keep_best, mix_distances, mix_dots, offsets_of
from kernels.vectors import distances, dots, transpose

ANCHOR_NONE, ANCHOR_QUERY, ANCHOR_FLOW, ANCHOR_EXCLUDE = range(4)
PLACES = 4  # numbers that say where a window lies


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
    softmax: int  # 1: the results are weights, not scores


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
    """Addresses of what one thread works in. LANES queries are worked on together.

    Numbers are float32 where nothing else is said.
    """

    shared: int  # int64 [span^2]: byte offsets of a rectangle's pixels, the same for all inside
    table: int  # int64 [span^2]: those of a rectangle that sticks out
    part: int  # [span^2]: products of one pixel of the patch
    grids: int  # [LANES][pixels]: products with the pixels of the rectangle
    across: int  # [pixels][LANES], then [room][LANES]: ranks, larger is better
    candidates: int  # [LANES][room]: ranks, or what the corners lie apart
    apart: int  # [room][LANES]
    best: int  # [topk][LANES]
    indices: int  # int32 [topk][LANES]
    columns: int  # [3 topk][LANES]: offsets
    rows: int  # [LANES][3 topk]: results on the way out
    places: int  # [R][4][LANES]: centre x, y, first step x, y
    forced: int  # [R][LANES]: ranks of candidates that an anchor puts first
    fractions: int  # [2][LANES]: of x and y
    bounds: int  # int32 [4][LANES]: columns, then rows low .. high - 1 are inside
    own: int  # [2][LANES]: the queries' x and y
    row: int  # a packed row of the query
    pixels: int  # not an address: span^2 in whole vectors
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
        start = min(max(start, np.float32(1 - s.window)), zero)
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
    for j in range(columns):
        put_word(table + 8 * j, reflect(left + j, s.width) * key.pixel)
    # The first row is what the others are made from, so it comes last.
    for i in range(rows - 1, -1, -1):
        y, line = reflect(top + i, s.height) * key.row, table + 8 * i * columns
        for j in range(0, 8 * columns, 8):
            put_word(line + j, y + get_word(table + j))


@part
def products(own, base, table, out, count, vectors, l2):
    """Dot products or squared distances with ``count`` pixels."""
    if l2:
        distances(own, base, table, out, count, vectors)
    else:
        dots(own, base, table, out, count, vectors)


@part
def grid_products(out, row, x, y, top, left, query, key, base, h, w, s):
    """Products of query (x, y) with the pixels from (left, top) on, summed over the patch."""
    span, count = s.span, s.span * s.span
    if s.patch == 1:
        own = row + x * query.pixel + h * query.head
        if left >= 0 and top >= 0 and left + span <= s.width and top + span <= s.height:
            start = base + top * key.row + left * key.pixel
            products(own, start, w.shared, out, count, key.vectors, s.l2)
        else:
            fill_table(w.table, top, left, span, span, key, s)
            products(own, base, w.table, out, count, key.vectors, s.l2)
        return
    for i in range(count):
        put_float(out + 4 * i, np.float32(0))
    for a in range(s.patch):
        dy = s.dilation * (a - s.patch // 2)
        line = query.address + reflect(y + dy, s.height) * query.row
        for b in range(s.patch):
            dx = s.dilation * (b - s.patch // 2)
            own = line + reflect(x + dx, s.width) * query.pixel + h * query.head
            fill_table(w.table, top + dy, left + dx, span, span, key, s)
            products(own, base, w.table, w.part, count, key.vectors, s.l2)
            for i in range(0, 4 * count, 4):
                put_float(out + i, get_float(out + i) + get_float(w.part + i))


@part
def mix_any(
    grid, out, cx, cy, sx, sy, left, top, low_x, high_x, low_y, high_y, maps, near, stride, s
):
    """The same for any search stride, one candidate at a time."""
    one, span = np.float32(1), s.span
    for i in range(s.window):
        # A position a hair before the last pixel may round up to it: its fraction is then 1.
        py = cy + stride * (sy + np.float32(i))
        iy = min(int(np.floor(py)), top + span - 2)
        fy = py - np.float32(iy)
        for j in range(s.window):
            target = out + 4 * (i * s.window + j)
            if not (low_x <= j < high_x and low_y <= i < high_y):
                put_float(target, np.float32(-np.inf))
                continue
            px = cx + stride * (sx + np.float32(j))
            ix = min(int(np.floor(px)), left + span - 2)
            fx = px - np.float32(ix)
            at = grid + 4 * ((iy - top) * span + ix - left)
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


@stage
def measure_block(row, y, x, count, r, h, query, key, results, maps, stride, w, s):
    """Place the windows of the queries x .. x + count - 1 in reference r and take the products.

    Fills the queries' places, fractions, bounds and grids, one query a lane.
    """
    plane = 4 * results.rows * results.columns
    flow = results.flow + 2 * r * plane + 4 * (y * results.columns + x)
    base = key.address + r * key.reference + h * key.head
    near = maps.address + h * maps.head + r * maps.reference
    places = w.places + 4 * PLACES * LANES * r
    own_y = y * s.query_stride
    for n in range(count):
        own_x = (x + n) * s.query_stride
        cx, sx = place(own_x, get_float(flow + 4 * n), s.width, stride, s)
        cy, sy = place(own_y, get_float(flow + plane + 4 * n), s.height, stride, s)
        low_x, high_x = within(cx, sx, s.width, stride, s.window)
        low_y, high_y = within(cy, sy, s.height, stride, s.window)
        lane = places + 4 * n
        put_float(lane, cx)
        put_float(lane + 4 * LANES, cy)
        put_float(lane + 8 * LANES, sx)
        put_float(lane + 12 * LANES, sy)
        px, py = cx + stride * sx, cy + stride * sy
        left, top = int(np.floor(px)), int(np.floor(py))
        if stride != 1:
            grid_products(w.grids, row, own_x, own_y, top, left, query, key, base, h, w, s)
            bounds = (low_x, high_x, low_y, high_y)
            out = w.candidates + 4 * n * w.room
            mix_any(w.grids, out, cx, cy, sx, sy, left, top, *bounds, maps, near, stride, s)
            continue
        fx, fy = px - np.float32(left), py - np.float32(top)
        lane = w.fractions + 4 * n
        put_float(lane, fx)
        put_float(lane + 4 * LANES, fy)
        lane = w.bounds + 4 * n
        put_int(lane, low_x)
        put_int(lane + 4 * LANES, high_x)
        put_int(lane + 8 * LANES, low_y)
        put_int(lane + 12 * LANES, high_y)
        out = w.grids + 4 * n * w.pixels
        grid_products(out, row, own_x, own_y, top, left, query, key, base, h, w, s)
        if s.l2 and low_x < high_x:
            for i in range(low_y, high_y):
                d = near + (top + i) * maps.row + 4 * left
                out = w.candidates + 4 * (n * w.room + i * s.window)
                for j in range(0, 4 * s.window, 4 * LANES):
                    e, f = d + maps.map + j, d + 2 * maps.map + j
                    apart_row(out + j, fx, fy, d + j, e, f, maps.row)


@stage
def rank_block(stride, w, s):
    """The ranks of all candidates of a block's queries, in w.across, one query a lane."""
    area = s.window * s.window
    if stride != 1:
        turn(w.candidates, w.room, w.across, area)
        return
    turn(w.grids, w.pixels, w.across, s.span * s.span)
    if s.l2:
        turn(w.candidates, w.room, w.apart, area)
        mix_distances(w.across, w.apart, w.fractions, w.bounds, s.window, s.span)
    else:
        mix_dots(w.across, w.across, w.fractions, w.bounds, s.window, s.span)


@part
def turn(source, room, target, count):
    """Transpose [LANES][room] to [count][LANES]; both have room for whole squares."""
    for i in range(0, count, LANES):
        transpose(source + 4 * i, 4 * room, target + 4 * LANES * i, 4 * LANES)


@stage
def anchor_block(row, y, x, count, r, h, query, key, w, stride, s):
    """Take anchors out of the ranks, or put them first; what they rank goes to w.forced."""
    base = key.address + r * key.reference + h * key.head
    own_y = y * s.query_stride
    for n in range(count):
        own_x = (x + n) * s.query_stride
        lane = w.places + 4 * (PLACES * LANES * r + n)
        cx, cy = get_float(lane), get_float(lane + 4 * LANES)
        sx, sy = get_float(lane + 8 * LANES), get_float(lane + 12 * LANES)
        forced = w.forced + 4 * (r * LANES + n)
        if s.anchor == ANCHOR_FLOW:
            centre = int(-sy) * s.window + int(-sx)
            centre = w.across + 4 * (centre * LANES + n)
            put_float(forced, get_float(centre))
            put_float(centre, np.float32(np.inf))
        elif r == 0:
            index = find_query(cx, cy, sx, sy, own_x, own_y, stride, s.window)
            if index >= 0:
                put_float(w.across + 4 * (index * LANES + n), np.float32(-np.inf))
            if s.anchor == ANCHOR_QUERY:
                put_float(forced, own_rank(row, own_x, own_y, query, key, base, h, w, s))


@part
def list_place(results, y, x, h, slot):
    """Where the results of query (x, y) begin, from ``slot`` on: a number of results."""
    return ((h * results.rows + y) * results.columns + x) * results.kept + slot


@stage
def write_offsets(results, y, x, count, h, slot, kept, only, w, stride, s):
    """Candidates' numbers as offsets, where they run over one reference: see ``write_block``."""
    for n in range(count):
        put_float(w.own + 4 * n, np.float32((x + n) * s.query_stride))
        put_float(w.own + 4 * (LANES + n), np.float32(y * s.query_stride))
    places = w.places + 4 * PLACES * LANES * max(only, 0)
    several = results.components == 3
    reference = max(only, 0) if several else -1
    offsets_of(w.indices, places, kept, s.window, stride, w.own, reference, w.columns)
    numbers = kept * results.components
    turn_back(w.columns, numbers, w.rows)
    room = whole(numbers)
    for n in range(count):
        place = list_place(results, y, x + n, h, slot)
        target = results.offsets + 4 * place * results.components
        copy(w.rows + 4 * n * room, target, numbers)


@stage
def write_numbered(results, y, x, count, h, slot, kept, w, stride, s):
    """The same where candidates' numbers run over all references."""
    area = s.window * s.window
    own_y = np.float32(y * s.query_stride)
    for n in range(count):
        own_x = np.float32((x + n) * s.query_stride)
        place = list_place(results, y, x + n, h, slot)
        offsets = results.offsets + 4 * place * results.components
        for k in range(kept):
            index = get_int(w.indices + 4 * (k * LANES + n))
            r = index // area
            row = (index - r * area) // s.window
            column = index - r * area - row * s.window
            lane = w.places + 4 * (PLACES * LANES * r + n)
            px = get_float(lane) + stride * (get_float(lane + 8 * LANES) + np.float32(column))
            py = get_float(lane + 4 * LANES)
            py += stride * (get_float(lane + 12 * LANES) + np.float32(row))
            put_float(offsets, np.float32(r))
            put_float(offsets + 4, px - own_x)
            put_float(offsets + 8, py - own_y)
            offsets += 12


@part
def turn_back(source, count, target):
    """Transpose [count][LANES] to [LANES][whole(count)]; both have room for whole squares."""
    room = whole(count)
    for i in range(0, count, LANES):
        transpose(source + 4 * LANES * i, 4 * LANES, target + 4 * i, 4 * room)


@part
def whole(count):
    """``count`` rounded up to whole vectors."""
    return (count + LANES - 1) // LANES * LANES


@stage
def write_scores(results, y, x, count, h, slot, kept, scale, w, s):
    """The ranks in the lists as scores, or as the softmax's weights."""
    if s.softmax:
        softmax_lists(w.best, kept, scale)
    elif s.l2:
        for i in range(0, 4 * kept * LANES, 4):
            put_float(w.best + i, -get_float(w.best + i))
    turn_back(w.best, kept, w.rows)
    room = whole(kept)
    for n in range(count):
        target = results.scores + 4 * list_place(results, y, x + n, h, slot)
        copy(w.rows + 4 * n * room, target, kept)


@part
def write_forced(results, y, x, n, h, slot, r, is_query, w, s):
    """The score of what an anchor put into ``slot``; for the query itself a zero offset as well."""
    first = list_place(results, y, x, h, slot)
    value = get_float(w.forced + 4 * (r * LANES + n))
    put_float(results.scores + 4 * first, -value if s.l2 else value)
    if is_query:
        for d in range(results.components):
            put_float(results.offsets + 4 * (first * results.components + d), np.float32(0))


@stage
def write_anchors(results, y, x, count, h, slot, only, w, s):
    """The results of anchors; ``slot`` is where the reference ``only`` begins."""
    for n in range(count):
        if s.anchor == ANCHOR_QUERY and only <= 0:
            write_forced(results, y, x + n, n, h, 0, 0, True, w, s)
        elif s.anchor == ANCHOR_FLOW and only >= 0:
            write_forced(results, y, x + n, n, h, slot, only, False, w, s)
        elif s.anchor == ANCHOR_FLOW:
            for r in range(s.references):
                write_forced(results, y, x + n, n, h, r, r, False, w, s)


@stage
def search_block(row, y, x, count, h, query, key, results, maps, stride, scale, w, s):
    """Search for the queries x .. x + count - 1 of row y, count <= LANES."""
    area = s.window * s.window
    for r in range(s.references):
        measure_block(row, y, x, count, r, h, query, key, results, maps, stride, w, s)
        rank_block(stride, w, s)
        if s.anchor != ANCHOR_NONE:
            anchor_block(row, y, x, count, r, h, query, key, w, stride, s)
        skipped = 1 if s.anchor == ANCHOR_QUERY and (r == 0 or not s.per_reference) else 0
        kept = s.topk - skipped
        if s.per_reference or r == 0:
            fill(w.best, np.float32(np.nan), kept)
        if kept > 0:
            first = 0 if s.per_reference else r * area
            keep_best(w.across, area, first, w.best, w.indices, kept)
        if not (s.per_reference or r == s.references - 1):
            continue
        start = r * s.topk if s.per_reference else 0
        only = r if s.per_reference or s.references == 1 else -1
        if kept > 0:
            slot = start + skipped
            if only >= 0:
                write_offsets(results, y, x, count, h, slot, kept, only, w, stride, s)
            else:
                write_numbered(results, y, x, count, h, slot, kept, w, stride, s)
            write_scores(results, y, x, count, h, slot, kept, scale, w, s)
        if s.anchor == ANCHOR_QUERY or s.anchor == ANCHOR_FLOW:
            write_anchors(results, y, x, count, h, start, only, w, s)


@part
def lay_out(start, query, planes, s):
    """(Scratch from the address ``start`` on, where it ends)."""
    pixels = whole(s.span * s.span)
    room = whole(s.window * s.window + LANES)
    vector, listed = 4 * LANES, whole(3 * s.topk)
    shared = start
    table = shared + 8 * pixels
    part = table + 8 * pixels
    # Vectors begin at whole cache lines.
    grids = whole_lines(part + 4 * pixels)
    across = grids + vector * pixels
    candidates = across + vector * max(pixels, room)
    apart = candidates + vector * room
    best = apart + vector * room
    indices = best + vector * listed
    columns = indices + vector * listed
    rows = columns + vector * listed
    places = rows + vector * listed
    forced = places + PLACES * vector * s.references
    fractions = forced + vector * s.references
    bounds = fractions + 2 * vector
    own = bounds + 4 * vector
    row = own + 2 * vector
    end = row + row_bytes(query, planes)
    scratch = Scratch(
        shared,
        table,
        part,
        grids,
        across,
        candidates,
        apart,
        best,
        indices,
        columns,
        rows,
        places,
        forced,
        fractions,
        bounds,
        own,
        row,
        pixels,
        room,
    )
    return scratch, end


@part
def whole_lines(address):
    """An address rounded up to a whole cache line."""
    return (address + 63) // 64 * 64


@part
def fill_inside(table, key, span):
    """Byte offsets of the pixels of a rectangle inside, from its first one on, in scan order."""
    for i in range(span):
        for j in range(span):
            put_word(table + 8 * (i * span + j), i * key.row + j * key.pixel)


@compiled
def search_rows(start, stop, query, planes, key, results, maps, stride, scale, s):
    """Search for the queries of the rows start .. stop - 1 of one image.

    Args:
        query, planes: how to read the query (packing.rows_of); a whole Layout where patch > 1.
        key: Layout of the references. maps: Differences, for l2.
        stride: the search stride, float32. scale: float32, of the ranks in the softmax.
        s: Search.
    """
    memory = np.zeros(lay_out(0, query, planes, s)[1] + 64, np.uint8)
    w, _ = lay_out(whole_lines(memory.ctypes.data), query, planes, s)
    # Slots beyond the rectangle stay zero and read its first pixel.
    fill_inside(w.shared, key, s.span)
    for y in range(start, stop):
        row = own_row(query, planes, y * s.query_stride, s.width, s.heads, s.depth, w.row)
        for h in range(s.heads):
            for x in range(0, results.columns, LANES):
                count = min(LANES, results.columns - x)
                search_block(row, y, x, count, h, query, key, results, maps, stride, scale, w, s)
    # The last use: numba frees an array after it.
    memory[0] = 0


@compiled
def products_rows(start, stop, query, key, windows, span):
    """The products of ``search_rows`` by themselves, for benchmarks.

    Args:
        query, key: Layouts. windows: int64 [nH, nW], byte offset of each query's first key pixel,
            whose span x span pixels are inside.
    """
    count = whole(span * span)
    words, numbers = np.zeros(count, np.int64), np.zeros(count, np.float32)
    table, out = words.ctypes.data, numbers.ctypes.data
    fill_inside(table, key, span)
    for y in range(start, stop):
        for x in range(windows.shape[1]):
            own = query.address + y * query.row + x * query.pixel
            dots(own, key.address + windows[y, x], table, out, span * span, key.vectors)
    words[0] = numbers[0] = 0  # the last use: numba frees an array after it


@compiled
def differences_rows(start, stop, key, maps, s):
    """Squared differences of neighbouring key pixels, summed over the patch, for rows of [heads, R,
    H].

    Args:
        maps: [heads, 3, R, H, W or more]: of a pixel and its right neighbour, of it and the one
            below, and the sum over both diagonals of the square they make; zeros beyond W.
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
        for x in range(s.width, maps.shape[4]):
            maps[h, 0, r, y, x] = maps[h, 1, r, y, x] = maps[h, 2, r, y, x] = 0
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
