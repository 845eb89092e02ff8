"""Shifted non-local search and fused attention on a GPU: the forward kernels.

How the search uses the memory system. Keys lie channels last, so a key pixel is one run of ``C``
numbers. A program owns a small tile of queries whose windows overlap in the first-level cache; a
few neighbouring lanes share a query, 16 bytes a load, so the gather stays efficient however wild
the flow is. With a search stride of 1 all candidates of a query share one fractional part, so the
program takes ``(window + 1)^2`` products with whole pixels and interpolates the scores as they
come; each finished row of candidates is merged into a list of the ``topk`` best in registers. No
score but the chosen ones reaches memory.

Interpolating scores is exact for the dot product, which is linear in the key. For the squared
distance, with h the interpolated key and weights w that sum to 1,

    |q - h|^2 = sum_i w_i |q - k_i|^2 - sum_{i<j} w_i w_j |k_i - k_j|^2,

and the second sum comes from three maps over the key (``neighbour_kernel``). It does not cancel
like |q|^2 - 2 q k + |k|^2 does: an exact copy scores exactly 0.

Other strides and patches take the general path of the same kernel: each candidate's bilinear key,
patch pixel by patch pixel.

Inside the kernels the score is larger-is-better for both metrics (the distance is negated),
``OUTSIDE`` marks candidates outside the image, minus infinity the absence of a candidate. Ids count
candidates in scan order: ``1 + (reference * window + row) * window + column``; 0 is the query
itself as an anchor.
"""

import triton
import triton.language as tl

from kernels.shifted_search.triton_tiles import (
    SIZES,
    channel_block,
    load_bilinear,
    load_pixels,
    load_strided,
    reflect,
    sum_channels,
    tile_of_queries,
)

OUTSIDE = tl.constexpr(-3.4028234663852886e38)  # the least finite float32
NO_ID = tl.constexpr(2**30)  # above any id

ANCHOR_NONE = tl.constexpr(0)
ANCHOR_QUERY = tl.constexpr(1)
ANCHOR_FLOW = tl.constexpr(2)
EXCLUDE_QUERY = tl.constexpr(3)


@triton.jit
def window_of(flow, starts, at, position, exists, size, half, KEEP: tl.constexpr):
    """A window on one axis: its centre, and its first candidate in search strides from there."""
    centre = reflect(position + tl.load(flow + at, mask=exists, other=0.0), size)
    start = tl.zeros(centre.shape, tl.float32) - half
    if KEEP:
        start = tl.load(starts + at, mask=exists, other=0.0)
    return centre, start


@triton.jit
def insert_row(values, ids, row, first_id, WIDTH: tl.constexpr):
    """Merge a row of candidates [Q, WIDTH] into the unsorted lists of the best [Q, K].

    Rows come in scan order, so an equal score never displaces one that is listed already, and of
    equal listed ones the last in scan order gives way first.
    """
    columns = tl.arange(0, WIDTH)[None, :]
    least = tl.min(values, 1)
    # No query of the tile takes more of the row than beat its present least.
    takes = tl.max(tl.sum((row > least[:, None]).to(tl.int32), 1), 0)
    for _ in range(takes):
        best = tl.max(row, 1)
        column = tl.min(tl.where(row == best[:, None], columns, WIDTH), 1)
        at_least = values == least[:, None]
        leaves = tl.max(tl.where(at_least, ids, -1), 1)
        replaced = at_least & (ids == leaves[:, None]) & (best > least)[:, None]
        values = tl.where(replaced, best[:, None], values)
        ids = tl.where(replaced, (first_id + column)[:, None], ids)
        row = tl.where(columns == column[:, None], float("-inf"), row)
        least = tl.min(values, 1)
    return values, ids


@triton.jit
def sort_list(values, ids, topk, K: tl.constexpr):
    """Best first, of equal ones the first in scan order first."""
    slots = tl.arange(0, K)[None, :]
    values = tl.where(slots < topk, values, float("-inf"))
    ids = tl.where(slots < topk, ids, NO_ID + K)
    sorted_values = tl.full(values.shape, float("-inf"), tl.float32)
    sorted_ids = tl.zeros(ids.shape, tl.int32)
    for i in range(topk):
        best = tl.max(values, 1)
        first = tl.min(tl.where(values == best[:, None], ids, NO_ID + K), 1)
        sorted_values = tl.where(slots == i, best[:, None], sorted_values)
        sorted_ids = tl.where(slots == i, first[:, None], sorted_ids)
        taken = ids == first[:, None]
        values = tl.where(taken, float("-inf"), values)
        ids = tl.where(taken, NO_ID + K, ids)
    return sorted_values, sorted_ids


@triton.jit
def product(q, k, L2: tl.constexpr):
    """Score [Q] of two blocks of channels: the dot product, or minus the squared distance."""
    if L2:
        terms = -(q - k) * (q - k)
    else:
        terms = q * k
    return sum_channels(terms)


@triton.jit
def row_of_interpolated_scores(
    q, key, neighbours, above, x0, y, fx, fy, exists, stride, channel, height, width, window,
    D: tl.constexpr, EVEN: tl.constexpr, L2: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Products with row ``y`` of the key: interpolated along x, and then with the row ``above``.

    Returns:
        This row interpolated along x, and the scores of the candidates between it and ``above``,
        both [Q, WIDTH].
    """
    columns = tl.arange(0, WIDTH)[None, :]
    row_exists = exists & (y >= 0) & (y < height)
    row = tl.zeros(above.shape, tl.float32)
    left = tl.zeros(x0.shape, tl.float32)
    # Pixels outside have no weight in any candidate inside, so a clamped address serves as well as
    # a mask and takes fewer instructions.
    line = tl.minimum(tl.maximum(y, 0), height - 1) * width
    always = tl.full(x0.shape, True, tl.int1)
    for i in range(window + 1):
        x = tl.minimum(tl.maximum(x0 + i, 0), width - 1)
        k = load_pixels(key, line + x, always, stride, channel, D, EVEN)
        score = product(q, k, L2)
        between = left + fx * (score - left)
        row = tl.where(columns == i - 1, between[:, None], row)
        left = score
    fx = fx[:, None]
    fy = fy[:, None]
    if L2:  # the second sum of the identity above, separable like the interpolation itself
        x = x0[:, None] + columns
        plane = height * width
        here = row_exists[:, None] & (x >= 0) & (x < width) & (columns < window)
        at = neighbours + y[:, None] * width + x
        row += fx * (1 - fx) * tl.load(at, mask=here, other=0.0)
        here = here & (y > 0)[:, None]
        at += plane - width
        down = tl.load(at, mask=here, other=0.0)
        down += fx * (tl.load(at + 1, mask=here & (x + 1 < width), other=0.0) - down)
        down -= fx * (1 - fx) * tl.load(at + plane, mask=here, other=0.0)
        return row, above + fy * (row - above) + fy * (1 - fy) * down
    else:
        return row, above + fy * (row - above)


@triton.jit
def row_of_patch_scores(
    query, key, x, y, first_x, step_x, at_y, exists, query_stride_c, query_stride_y,
    query_stride_x, stride, channel, height, width, window, search_stride, patch, dilation,
    D: tl.constexpr, EVEN: tl.constexpr, L2: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Scores [Q, WIDTH] of ``window`` candidates of a row, every patch pixel's key interpolated.

    Candidate i stands at ``first_x + search_stride * (step_x + i)``, ``at_y``; those outside the
    image get any finite score.
    """
    columns = tl.arange(0, WIDTH)[None, :]
    row = tl.zeros([exists.shape[0], WIDTH], tl.float32)
    inside_y = exists & (at_y >= 0) & (at_y <= height - 1)
    start = tl.zeros(x.shape, tl.int64)
    for i in range(window):
        at_x = first_x + search_stride * (step_x + i)
        inside = inside_y & (at_x >= 0) & (at_x <= width - 1)
        score = tl.zeros(at_y.shape, tl.float32)
        for p in range(patch * patch):
            dx = (p % patch - patch // 2) * dilation
            dy = (p // patch - patch // 2) * dilation
            q_x = reflect(x + dx, width).to(tl.int32)
            q_y = reflect(y + dy, height).to(tl.int32)
            at = q_y * query_stride_y + q_x * query_stride_x
            q = load_strided(query, at, inside, query_stride_c, channel, D, EVEN)
            k = load_bilinear(
                key, start, reflect(at_x + dx, width), reflect(at_y + dy, height), inside,
                stride, channel, height, width, D, EVEN,
            )  # fmt: skip
            score += product(q, k, L2)
        row = tl.where(columns == i, score[:, None], row)
    return row


@triton.jit
def best_candidates(
    query, key, flow, starts, neighbours, x, y, at_query, exists, query_stride_c, query_stride_y,
    query_stride_x, key_stride, channel, heads, first_reference, references, height, width,
    queries, window, topk, search_stride, patch, dilation,
    D: tl.constexpr, EVEN: tl.constexpr, L2: tl.constexpr, SHARED: tl.constexpr,
    ANCHOR: tl.constexpr, KEEP: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr,
):  # fmt: skip
    """The best candidates of a tile of queries among ``references`` images, sorted.

    ``key``, ``flow``, ``starts`` and ``neighbours`` point to the first of these images, and to this
    head.

    Returns:
        Scores (larger is better, minus infinity outside), references, x and y, all [Q, K].
    """
    columns = tl.arange(0, WIDTH)[None, :]
    slots = tl.arange(0, K)[None, :]
    half = (window // 2).to(tl.float32)
    values = tl.zeros([exists.shape[0], K], tl.float32)
    values += tl.where(slots < topk, float("-inf"), float("inf"))
    ids = tl.zeros([exists.shape[0], K], tl.int32) + (NO_ID + slots)
    pinned = tl.zeros([exists.shape[0], K], tl.float32)  # scores of forced candidates
    n_pinned = tl.zeros(exists.shape, tl.int32)
    if SHARED:
        own = y * query_stride_y + x * query_stride_x
        q = load_strided(query, own, exists, query_stride_c, channel, D, EVEN)
    if ANCHOR == ANCHOR_QUERY:
        if first_reference == 0:
            scores = row_of_patch_scores(
                query, key, x, y, x.to(tl.float32), tl.zeros(x.shape, tl.float32),
                y.to(tl.float32), exists, query_stride_c, query_stride_y, query_stride_x,
                key_stride, channel, height, width, 1, search_stride, patch, dilation,
                D, EVEN, L2, WIDTH,
            )  # fmt: skip
            score = tl.sum(tl.where(columns == 0, scores, 0.0), 1)
            pinned = tl.where(slots == 0, score[:, None], pinned)
            values = tl.where(slots == 0, float("inf"), values)
            ids = tl.where(slots == 0, 0, ids)
    for r in range(references):
        at = r * 2 * queries + at_query
        centre_x, start_x = window_of(flow, starts, at, x, exists, width, half, KEEP)
        at += queries
        centre_y, start_y = window_of(flow, starts, at, y, exists, height, half, KEEP)
        step_x = start_x[:, None] + columns
        at_x = centre_x[:, None] + search_stride * step_x
        inside_x = (at_x >= 0) & (at_x <= width - 1) & exists[:, None]
        x0 = tl.floor(centre_x)
        y0 = tl.floor(centre_y)
        fx = centre_x - x0
        fy = centre_y - y0
        first_x = (x0 + start_x).to(tl.int32)
        first_y = (y0 + start_y).to(tl.int32)
        above = tl.zeros([exists.shape[0], WIDTH], tl.float32)
        # With shared fractions, row i of the window lies between rows i and i + 1 of the key.
        for t in range(window + 1 if SHARED else window):
            i = t
            if SHARED:
                i = t - 1
            step_y = start_y + i
            at_y = centre_y + search_stride * step_y
            if SHARED:
                above, scores = row_of_interpolated_scores(
                    q, key, neighbours, above, first_x, first_y + t, fx, fy, exists, key_stride,
                    channel, height, width, window, D, EVEN, L2, WIDTH,
                )  # fmt: skip
            else:
                scores = row_of_patch_scores(
                    query, key, x, y, centre_x, start_x, at_y, exists, query_stride_c,
                    query_stride_y, query_stride_x, key_stride, channel, height, width, window,
                    search_stride, patch, dilation, D, EVEN, L2, WIDTH,
                )  # fmt: skip
            inside = inside_x & ((at_y >= 0) & (at_y <= height - 1))[:, None]
            if ANCHOR == ANCHOR_QUERY or ANCHOR == EXCLUDE_QUERY:
                is_query = (at_x == x[:, None]) & (at_y == y)[:, None]
                inside = inside & (~is_query | (first_reference + r != 0))
            scores = tl.where(inside, tl.maximum(scores, OUTSIDE), OUTSIDE)
            there = (columns < window) & (i >= 0)
            if ANCHOR == ANCHOR_FLOW:
                forced = there & (step_x == 0) & (step_y == 0)[:, None]
                score = tl.sum(tl.where(forced, scores, 0.0), 1)
                here = tl.sum(forced.to(tl.int32), 1)
                pin = (slots == n_pinned[:, None]) & (here > 0)[:, None]
                pinned = tl.where(pin, score[:, None], pinned)
                n_pinned += here
                scores = tl.where(forced, float("inf"), scores)
            scores = tl.where(there, scores, float("-inf"))
            values, ids = insert_row(
                values, ids, scores, 1 + ((first_reference + r) * window + i) * window, WIDTH
            )
        key += height.to(tl.int64) * width * key_stride
        if L2 and SHARED:
            neighbours += heads.to(tl.int64) * 3 * height * width
    values, ids = sort_list(values, ids, topk, K)
    if ANCHOR == ANCHOR_QUERY or ANCHOR == ANCHOR_FLOW:
        values = tl.where(values == float("inf"), pinned, values)
    values = tl.where(values <= OUTSIDE, float("-inf"), values)

    index = tl.maximum(ids - 1, 0)
    reference = index // (window * window)
    listed = exists[:, None] & (slots < topk)
    at = (reference - first_reference) * 2 * queries + at_query[:, None]
    centre_x, start_x = window_of(flow, starts, at, x[:, None], listed, width, half, KEEP)
    at += queries
    centre_y, start_y = window_of(flow, starts, at, y[:, None], listed, height, half, KEEP)
    at_x = centre_x + search_stride * (start_x + index % window)
    at_y = centre_y + search_stride * (start_y + (index // window) % window)
    if ANCHOR == ANCHOR_QUERY:
        at_x = tl.where(ids == 0, x[:, None].to(tl.float32), at_x)
        at_y = tl.where(ids == 0, y[:, None].to(tl.float32), at_y)
    return values, reference, at_x, at_y


@triton.jit
def store_offsets(offsets, at, reference, dx, dy, stored, components):
    """Write [Q, K] offsets as (dx, dy) or (reference, dx, dy)."""
    at = offsets + at * components
    if components == 3:
        tl.store(at, reference.to(tl.float32), mask=stored)
        at += 1
    tl.store(at, dx, mask=stored)
    tl.store(at + 1, dy, mask=stored)


@triton.jit(do_not_specialize=SIZES)
def search_kernel(
    query, key, flow, starts, neighbours, scores, offsets, query_stride_b, query_stride_c,
    query_stride_y, query_stride_x, key_stride, heads, references, groups, height, width, rows,
    columns, query_stride, window, topk, search_stride, patch, dilation, components,
    D: tl.constexpr, N: tl.constexpr, L: tl.constexpr, L2: tl.constexpr, SHARED: tl.constexpr,
    ANCHOR: tl.constexpr, KEEP: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Grid (tiles of queries, B * groups * heads); a group of references has its own topk.

    query [B, C, H, W] of any strides; key [B, R, H, W, heads * D], pixels ``key_stride`` apart;
    flow [B, R, 2, rows, columns]; starts likewise (with KEEP): first candidates in strides from the
    centre; neighbours [B, R, heads, 3, H, W] (for L2 and SHARED);
    scores [B, heads, rows * columns, groups * topk]; offsets likewise with components.
    """
    x, y, at_query, exists = tile_of_queries(rows, columns, query_stride, TILE_Y, TILE_X)
    head = tl.program_id(1) % heads
    group = (tl.program_id(1) // heads) % groups
    b = (tl.program_id(1) // (heads * groups)).to(tl.int64)
    per_group = references // groups
    first = b * references + group * per_group
    plane = height * width
    queries = rows * columns
    values, reference, at_x, at_y = best_candidates(
        query + b * query_stride_b + head * D * query_stride_c,
        key + first * plane * key_stride + head * D,
        flow + first * 2 * queries,
        starts + first * 2 * queries,
        neighbours + (first * heads + head) * 3 * plane,
        x, y, at_query, exists, query_stride_c, query_stride_y, query_stride_x, key_stride,
        channel_block(N, L), heads, group * per_group, per_group, height, width, queries, window,
        topk, search_stride, patch, dilation,
        D, N * L == D, L2, SHARED, ANCHOR, KEEP, WIDTH, K,
    )  # fmt: skip
    if L2:
        values = -values
    slots = tl.arange(0, K)[None, :]
    at = ((b * heads + head) * queries + at_query[:, None]) * (groups * topk) + group * topk + slots
    stored = exists[:, None] & (slots < topk)
    tl.store(scores + at, values, mask=stored)
    store_offsets(offsets, at, reference, at_x - x[:, None], at_y - y[:, None], stored, components)


@triton.jit(do_not_specialize=SIZES)
def attention_kernel(
    query, key, value, flow, starts, neighbours, out, weights, offsets, query_stride_b,
    query_stride_c, query_stride_y, query_stride_x, key_stride, value_stride, heads, references,
    height, width, rows, columns, query_stride, window, topk, search_stride, components, scale,
    D: tl.constexpr, N: tl.constexpr, L: tl.constexpr, DV: tl.constexpr, NV: tl.constexpr,
    LV: tl.constexpr, L2: tl.constexpr, SHARED: tl.constexpr, ANCHOR: tl.constexpr,
    KEEP: tl.constexpr, WIDTH: tl.constexpr, K: tl.constexpr, TILE_Y: tl.constexpr,
    TILE_X: tl.constexpr,
):  # fmt: skip
    """Search, softmax and aggregation of one pixel per candidate. Grid (tiles, B * heads).

    As ``search_kernel``, with value [B, R, H, W, heads * DV], out [B, heads * DV, H, W] contiguous
    and weights like scores. ``scale`` carries the metric's sign already.
    """
    x, y, at_query, exists = tile_of_queries(rows, columns, query_stride, TILE_Y, TILE_X)
    head = tl.program_id(1) % heads
    b = (tl.program_id(1) // heads).to(tl.int64)
    first = b * references
    plane = height * width
    queries = rows * columns
    values, reference, at_x, at_y = best_candidates(
        query + b * query_stride_b + head * D * query_stride_c,
        key + first * plane * key_stride + head * D,
        flow + first * 2 * queries,
        starts + first * 2 * queries,
        neighbours + (first * heads + head) * 3 * plane,
        x, y, at_query, exists, query_stride_c, query_stride_y, query_stride_x, key_stride,
        channel_block(N, L), heads, 0, references, height, width, queries, window, topk,
        search_stride, 1, 1, D, N * L == D, L2, SHARED, ANCHOR, KEEP, WIDTH, K,
    )  # fmt: skip
    slots = tl.arange(0, K)[None, :]
    chosen = (slots < topk) & (values > float("-inf"))
    logits = tl.where(chosen, values * scale, float("-inf"))
    peak = tl.max(logits, 1)
    peak = tl.where(peak > float("-inf"), peak, 0.0)
    weight = tl.where(chosen, tl.exp(logits - peak[:, None]), 0.0)
    total = tl.sum(weight, 1)
    weight = weight / tl.where(total > 0, total, 1.0)[:, None]

    at = ((b * heads + head) * queries + at_query[:, None]) * topk + slots
    stored = exists[:, None] & (slots < topk)
    tl.store(weights + at, weight, mask=stored)
    store_offsets(offsets, at, reference, at_x - x[:, None], at_y - y[:, None], stored, components)

    channel = channel_block(NV, LV)
    value += first * plane * value_stride + head * DV
    mixed = tl.zeros([exists.shape[0], NV, LV], tl.float32)
    for i in range(topk):
        this = slots == i
        w = tl.sum(tl.where(this, weight, 0.0), 1)
        r = tl.sum(tl.where(this, reference, 0), 1)
        # A position outside the image has no weight; clamped, it is harmless.
        p_x = tl.minimum(tl.maximum(tl.sum(tl.where(this, at_x, 0.0), 1), 0.0), width - 1.0)
        p_y = tl.minimum(tl.maximum(tl.sum(tl.where(this, at_y, 0.0), 1), 0.0), height - 1.0)
        v = load_bilinear(
            value, r.to(tl.int64) * plane, p_x, p_y, exists & (w > 0), value_stride, channel,
            height, width, DV, NV * LV == DV,
        )  # fmt: skip
        mixed += w[:, None, None] * v
    at = out + (b * heads + head) * DV * plane + (y * width + x)[:, None, None] + channel * plane
    tl.store(at, mixed.to(out.dtype.element_ty), mask=exists[:, None, None] & (channel < DV))


@triton.jit(do_not_specialize=SIZES)
def neighbour_kernel(
    key, neighbours, key_stride, heads, height, width,
    D: tl.constexpr, N: tl.constexpr, L: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Squared distances between neighbouring key pixels. Grid (blocks of pixels, B * R * heads).

    Into neighbours [B * R, heads, 3, H, W]: to the right |k(x + 1) - k(x)|^2, down
    |k(y + 1) - k(y)|^2, and the mixed difference
    |k(x, y) - k(x + 1, y) - k(x, y + 1) + k(x + 1, y + 1)|^2; 0 where a neighbour is outside.
    """
    pixel = tl.program_id(0) * TILE_Y * TILE_X + tl.arange(0, TILE_Y * TILE_X)
    exists = pixel < height * width
    head = tl.program_id(1) % heads
    image = (tl.program_id(1) // heads).to(tl.int64)
    plane = height * width
    right = exists & (pixel % width < width - 1)
    below = exists & (pixel // width < height - 1)
    both = right & below
    channel = channel_block(N, L)
    key += image * plane * key_stride + head * D
    k00 = load_pixels(key, pixel, exists, key_stride, channel, D, N * L == D)
    k01 = load_pixels(key, pixel + 1, right, key_stride, channel, D, N * L == D)
    k10 = load_pixels(key, pixel + width, below, key_stride, channel, D, N * L == D)
    k11 = load_pixels(key, pixel + width + 1, both, key_stride, channel, D, N * L == D)
    at = neighbours + tl.program_id(1).to(tl.int64) * 3 * plane + pixel
    step = sum_channels((k01 - k00) * (k01 - k00))
    tl.store(at, tl.where(right, step, 0.0), mask=exists)
    step = sum_channels((k10 - k00) * (k10 - k00))
    tl.store(at + plane, tl.where(below, step, 0.0), mask=exists)
    step = k00 - k01 - k10 + k11
    step = sum_channels(step * step)
    tl.store(at + 2 * plane, tl.where(both, step, 0.0), mask=exists)
