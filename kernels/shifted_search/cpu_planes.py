"""The search on the CPU where the flow is smooth: LANES neighbouring queries at a time.

Windows of neighbours mostly begin at the same displacement or one pixel beside it. So the products
of a tile of queries (ROWS rows of LANES) are taken at all displacements that any of them needs, a
query a lane: vector_planes.row_products reads the key's planes as they lie, and lanes pick their
own ones afterwards. A sixth to a third of the products is for nothing, but there is no transposing
of images, no sum across lanes, and a key pixel that is loaded serves ROWS rows. Where queries of a
tile are too far apart they are worked on group by group; if that is common, the search of
cpu_search.py, which takes each query by itself, is quicker: see ``groups_of_tiles``.

A product is the sum of the channels in their order, whatever tile the query is in.
"""

from typing import NamedTuple

import numpy as np

from kernels.jit import LANES, compiled, part, stage
from kernels.packing import NO_PLANES, NOTHING
from kernels.shifted_search.cpu_search import (
    PLACES,
    lay_out,
    reflect,
    whole_lines,
    write_offsets,
    write_scores,
)
from kernels.vector_lists import copy, fill, get_float, get_int, put_float, put_int
from kernels.vector_planes import (
    PLACED,
    ROWS,
    bound_windows,
    copy_row,
    fetch,
    mix_windows,
    place_windows,
    row_products,
    widen_row,
)
from kernels.vector_scores import keep_best

_VECTOR = 4 * LANES
_PLACED = len(PLACED) * _VECTOR
_LEFT, _TOP, _USED = (PLACED.index(name) * _VECTOR for name in ("left", "top", "used"))
REACH = 7  # the most that displacements of a group differ: see vector_planes.mix_windows
_NEAR = REACH // 2
_MANY = 4  # groups of a tile; how many more there are makes no difference


class KeyPlanes(NamedTuple):
    """A key image as [H][C][W and one pixel, padded] float32; the pixel at W is reflected."""

    address: int
    row: int  # steps in bytes
    channel: int


class Tile(NamedTuple):
    """Addresses of what one thread works in besides cpu_search.Scratch."""

    placed: int  # [ROWS][len(PLACED)][LANES]
    boxes: int  # int32 [ROWS][4]: least and largest displacement x, y of a group's queries
    waiting: int  # int32 [ROWS][LANES]: 1 for queries that no group has had
    queries: int  # [depth][ROWS][LANES]
    sums: int  # [ROWS][..][LANES]
    sums_step: int  # not an address: from one row's sums to the next
    ranks: int  # [ROWS][window^2][LANES]
    ranks_step: int


@part
def lay_out_tile(start, s):
    """(Tile from an address on, where it ends)."""
    placed = whole_lines(start)
    boxes = placed + ROWS * _PLACED
    waiting = boxes + 16 * ROWS
    queries = whole_lines(waiting + ROWS * _VECTOR)
    sums = queries + s.depth * ROWS * _VECTOR
    wide = s.span + REACH
    # Mixing reads a row and a column more than it uses.
    sums_step = ((wide + ROWS) * wide + wide + LANES) * _VECTOR
    ranks = sums + ROWS * sums_step
    ranks_step = s.window * s.window * _VECTOR
    t = Tile(placed, boxes, waiting, queries, sums, sums_step, ranks, ranks_step)
    return t, ranks + ROWS * ranks_step


@part
def pack_line(source, half, width, target):
    """A row of a plane, in float32, and the pixel beyond its end."""
    if half:
        widen_row(source, target, width)
    else:
        copy_row(source, target, width)
    put_float(target + 4 * width, get_float(target + 4 * reflect(width, width)))


@compiled
def pack_planes(start, stop, planes, width, channels, key):
    """Copy rows of an image [C, H, W] (packing.Planes) to KeyPlanes."""
    for y in range(start, stop):
        for c in range(channels):
            source = planes.address + c * planes.channel + y * planes.row
            pack_line(source, planes.half, width, key.address + y * key.row + c * key.channel)


@stage
def place_tile(y, x, rows, count, flow, plane, t, s):
    """Place the windows of a tile's queries; their extent: (least, largest) x, (..) y."""
    left, right, top, bottom = 1 << 30, -(1 << 30), 1 << 30, -(1 << 30)
    for r in range(rows):
        at = flow + 4 * ((y + r) * s.width + x)
        placed, box = t.placed + r * _PLACED, t.boxes + 16 * r
        place_windows(at, plane, count, x, y + r, s.width, s.height, s.window, s.integer, placed)
        bound_windows(placed, box)
        left, right = min(left, get_int(box)), max(right, get_int(box + 4))
        top, bottom = min(top, get_int(box + 8)), max(bottom, get_int(box + 12))
    return left, right, top, bottom


@stage
def await_all(rows, t):
    """Make all queries of a tile wait for a group."""
    for r in range(rows):
        for n in range(0, _VECTOR, 4):
            used = get_int(t.placed + r * _PLACED + _USED + n)
            put_int(t.waiting + r * _VECTOR + n, np.int32(1) if used else np.int32(0))


@stage
def next_group(rows, t):
    """Mark as used the waiting queries whose displacement is near that of the first one.

    Returns:
        how many there are, 0 when none waits.
    """
    size, left, top = 0, 0, 0
    for r in range(rows):
        placed, waiting = t.placed + r * _PLACED, t.waiting + r * _VECTOR
        for n in range(0, _VECTOR, 4):
            taken = np.int32(0)
            if get_int(waiting + n):
                x, y = get_int(placed + _LEFT + n), get_int(placed + _TOP + n)
                if size == 0:
                    left, top = x, y
                if abs(x - left) <= _NEAR and abs(y - top) <= _NEAR:
                    put_int(waiting + n, np.int32(0))
                    taken = np.int32(-1)
                    size += 1
            put_int(placed + _USED + n, taken)
        bound_windows(placed, t.boxes + 16 * r)
    return size


@compiled
def groups_of_tiles(start, stop, flow, plane, every, s):
    """(groups, tiles) in every ``every``-th row of tiles start .. stop - 1; groups up to a few."""
    memory = np.zeros(lay_out_tile(64, s)[1], np.uint8)
    t, _ = lay_out_tile(memory.ctypes.data, s)
    groups = tiles = 0
    for block in range(start, stop, every):
        y = block * ROWS
        rows = min(ROWS, s.height - y)
        for x in range(0, s.width, LANES):
            count = min(LANES, s.width - x)
            left, right, top, bottom = place_tile(y, x, rows, count, flow, plane, t, s)
            tiles += 1
            if right - left <= REACH and bottom - top <= REACH:
                groups += 1
                continue
            await_all(rows, t)
            found = 0
            while found < _MANY and next_group(rows, t) > 0:
                found += 1
            groups += found
    memory[0] = 0  # the last use: numba frees an array after it
    return groups, tiles


@part
def query_place(query, y, x, h, s):
    """Where a query's channels of a head begin in its planes."""
    size = 2 if query.half else 4
    return query.address + h * s.depth * query.channel + y * query.row + size * x


@stage
def load_tile(query, y, x, rows, count, h, t, s):
    """Copy a tile of the query's planes."""
    for c in range(s.depth):
        source = query_place(query, y, x, h, s) + c * query.channel
        target = t.queries + c * ROWS * _VECTOR
        for _ in range(rows):
            if query.half:
                widen_row(source, target, count)
            else:
                copy_row(source, target, count)
            source += query.row
            target += _VECTOR


@stage
def group_products(y, x, rows, h, query, key, t, s):
    """All products of a group's queries, to t.sums; (columns, least x, least y) of them.

    Meanwhile the next tile of queries is fetched to the cache.

    The sums' rows begin at the least displacement y of the queries of row y.
    """
    left, right, top, bottom = 1 << 30, -(1 << 30), 1 << 30, -(1 << 30)
    for r in range(rows):
        box = t.boxes + 16 * r
        if get_int(box) > get_int(box + 4):
            continue
        left, right = min(left, get_int(box)), max(right, get_int(box + 4))
        top, bottom = min(top, get_int(box + 8) + r), max(bottom, get_int(box + 12) + r)
    columns = right - left + s.span
    base = key.address + h * s.depth * key.channel + 4 * (x + left)
    line = base + reflect(y + top, s.height) * key.row
    later = query_place(query, y, x + LANES, h, s)
    if x + LANES >= s.width:
        later = query_place(query, y + rows, 0, h, s)
    lines = bottom - top + s.span
    share = -(-s.depth // max(lines // rows, 1))  # of the channels, for each row of the key
    for i in range(lines):
        place = later + i % rows * query.row + i // rows * share * query.channel
        fetch(place, query.channel, share)
        # The rows of queries whose windows have this row of the key.
        first, last = rows, -1
        for r in range(rows):
            box = t.boxes + 16 * r
            begin = get_int(box + 8) + r - top
            end = get_int(box + 12) + r - top + s.span
            if begin <= i < end:
                first, last = min(first, r), r
        following = base + reflect(y + top + i + 1, s.height) * key.row
        if last >= first:
            out = t.sums + first * t.sums_step + i * columns * _VECTOR
            row_products(
                t.queries + first * _VECTOR,
                last - first + 1,
                line,
                key.channel,
                following,
                s.depth,
                columns,
                out,
                t.sums_step,
            )
        line = following
    return columns, left, top


@stage
def rank_group(rows, columns, left, top, t, s):
    """Ranks of a group's candidates, in t.ranks."""
    for r in range(rows):
        box = t.boxes + 16 * r
        low, high = get_int(box + 8), get_int(box + 12)
        if low > high:
            continue
        sums = t.sums + r * t.sums_step + (low + r - top) * columns * _VECTOR
        placed, ranks = t.placed + r * _PLACED, t.ranks + r * t.ranks_step
        mix_windows(sums, placed, left, low, columns, high - low + s.span, s.window, ranks)


@stage
def keep_tile(y, x, rows, count, h, results, scale, t, w, s):
    """The best of the ranks of a tile's queries, to the results."""
    for r in range(rows):
        fill(w.best, np.float32(np.nan), s.topk)
        copy(t.placed + r * _PLACED, w.places, PLACES * LANES)
        keep_best(t.ranks + r * t.ranks_step, s.window * s.window, 0, w.best, w.indices, s.topk)
        one = np.float32(1)
        write_offsets(results, y + r, x, count, h, 0, s.topk, 0, w, one, s)
        write_scores(results, y + r, x, count, h, 0, s.topk, scale, w, s)


@compiled
def search_planes(start, stop, query, key, results, scale, s):
    """Search for the queries of the rows of tiles start .. stop - 1 of one image.

    Args:
        query: packing.Planes. key: KeyPlanes.
        scale: float32, of the ranks in the softmax.
        s: Search, of dot products with single pixels of one reference at whole steps, without
            anchors, queries at every pixel and windows that may stick out of the image.
    """
    size = lay_out(0, NOTHING, NO_PLANES, s)[1]
    memory = np.zeros(size + lay_out_tile(64, s)[1] + 64, np.uint8)
    w, end = lay_out(whole_lines(memory.ctypes.data), NOTHING, NO_PLANES, s)
    t, _ = lay_out_tile(end, s)
    plane = 4 * s.height * s.width
    for block in range(start, stop):
        y = block * ROWS
        rows = min(ROWS, s.height - y)
        for x in range(0, s.width, LANES):
            count = min(LANES, s.width - x)
            left, right, top, bottom = place_tile(y, x, rows, count, results.flow, plane, t, s)
            together = right - left <= REACH and bottom - top <= REACH
            for h in range(s.heads):
                if h and not together:
                    place_tile(y, x, rows, count, results.flow, plane, t, s)
                load_tile(query, y, x, rows, count, h, t, s)
                if not together:
                    await_all(rows, t)
                while together or next_group(rows, t) > 0:
                    columns, least, highest = group_products(y, x, rows, h, query, key, t, s)
                    rank_group(rows, columns, least, highest, t, s)
                    if together:
                        break
                keep_tile(y, x, rows, count, h, results, scale, t, w, s)
    memory[0] = 0  # the last use: numba frees an array after it


@compiled
def products_planes(start, stop, query, key, flow, s):
    """The products of ``search_planes`` by themselves, and what places them, for benchmarks.

    Args:
        flow: address of [2, H, W] float32.
    """
    memory = np.zeros(lay_out_tile(64, s)[1] + 64, np.uint8)
    t, _ = lay_out_tile(memory.ctypes.data, s)
    plane = 4 * s.height * s.width
    for block in range(start, stop):
        y = block * ROWS
        rows = min(ROWS, s.height - y)
        for x in range(0, s.width, LANES):
            count = min(LANES, s.width - x)
            left, right, top, bottom = place_tile(y, x, rows, count, flow, plane, t, s)
            together = right - left <= REACH and bottom - top <= REACH
            load_tile(query, y, x, rows, count, 0, t, s)
            if not together:
                await_all(rows, t)
            while together or next_group(rows, t) > 0:
                group_products(y, x, rows, 0, query, key, t, s)
                if together:
                    break
    memory[0] = 0  # the last use: numba frees an array after it
