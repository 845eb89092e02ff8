"""Gather, scatter and the gradients of both and of the search on a GPU.

Gradients of images are sums over whoever looked at a pixel: float32 atomic additions, 16 bytes wide
on Hopper, in an order that changes from run to run, so that their last bits do too (they are not
deterministic). Everything else is written once by the program that owns the query.
"""

import triton
import triton.language as tl

from kernels.shifted_search.triton_tiles import (
    SIZES,
    add_corners,
    block_mask,
    channel_block,
    corner_pixels,
    load_bilinear,
    load_offsets,
    load_pixels,
    load_strided,
    reflect,
    reflection_sign,
    sum_channels,
    tile_of_queries,
)


@triton.jit
def patch_pixel(x, y, p, patch, dilation, height, width):
    """Pixel ``p`` of the patches round x, y (int): dx, dy, its index, whether in the image."""
    dx = (p % patch - patch // 2) * dilation
    dy = (p // patch - patch // 2) * dilation
    inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
    return dx, dy, (y + dy) * width + x + dx, inside


@triton.jit(do_not_specialize=SIZES)
def gather_kernel(
    value, weights, offsets, out, out_stride_b, out_stride_c, out_stride_p, value_stride, heads,
    references, height, width, rows, columns, query_stride, chosen, patch, dilation, components,
    D: tl.constexpr, N: tl.constexpr, L: tl.constexpr, STACK: tl.constexpr, ADD: tl.constexpr,
    TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Weighted bilinear patches. Grid (tiles of queries, B * heads).

    value [B, R, H, W, heads * D], pixels ``value_stride`` apart. STACK: out
    [B, K, heads * D, patch * patch, nH, nW] contiguous. Otherwise out holds pixels ``out_stride_p``
    and channels ``out_stride_c`` apart; ADD: patches meet, so they are added to it (float32).
    """
    x, y, at_query, exists = tile_of_queries(rows, columns, query_stride, TILE_Y, TILE_X)
    head = tl.program_id(1) % heads
    b = (tl.program_id(1) // heads).to(tl.int64)
    plane = height * width
    queries = rows * columns
    channel = channel_block(N, L)
    value += b * references * plane * value_stride + head * D
    first = ((b * heads + head) * queries + at_query) * chosen
    stored = exists[:, None, None] & (channel < D)
    for p in range(patch * patch if STACK or ADD else 1):
        dx, dy, pixel, inside = patch_pixel(x, y, p, patch, dilation, height, width)
        total = tl.zeros([exists.shape[0], N, L], tl.float32)
        for k in range(chosen):
            r, move_x, move_y = load_offsets(offsets, first + k, exists, references, components)
            w = tl.load(weights + first + k, mask=exists, other=0.0)
            v = load_bilinear(
                value, r.to(tl.int64) * plane, reflect(x + move_x + dx, width),
                reflect(y + move_y + dy, height), exists & (w != 0), value_stride, channel,
                height, width, D, N * L == D,
            )  # fmt: skip
            if STACK:
                at = ((b * chosen + k) * heads + head) * D * patch * patch + p
                at = (at + channel * patch * patch) * queries + at_query[:, None, None]
                v = w[:, None, None] * v
                tl.store(out + at, v.to(out.dtype.element_ty), mask=stored)
            else:
                total += w[:, None, None] * v
        if not STACK:
            at = out + b * out_stride_b + head * D * out_stride_c
            at += (pixel * out_stride_p)[:, None, None] + channel * out_stride_c
            mask = stored & inside[:, None, None]
            if ADD:
                tl.atomic_add(at, total, mask=mask, sem="relaxed")
            else:
                tl.store(at, total.to(out.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=SIZES)
def gather_backward_kernel(
    grad_out, value, weights, offsets, grad_value, grad_weights, grad_offsets, grad_stride_b,
    grad_stride_c, grad_stride_k, grad_stride_p, value_stride, heads, references, height, width,
    rows, columns, query_stride, chosen, patch, dilation, components,
    D: tl.constexpr, N: tl.constexpr, L: tl.constexpr, STACK: tl.constexpr, SINGLE: tl.constexpr,
    PLACES: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Gradients of a gather. Grid (tiles of queries, B * heads).

    grad_out: as the out of ``gather_kernel``: for sums, pixels ``grad_stride_p`` apart; for stacks
    contiguous, channels ``grad_stride_c`` and samples ``grad_stride_k`` apart.
    SINGLE: sums of patches of one pixel, so that grad_out is read once per query.
    Adds to grad_value [B, R, H, W, heads * D] (float32); with grad_out = x this is scatter.
    PLACES: write grad_weights [B, heads, queries, K] and grad_offsets [..., components].
    """
    x, y, at_query, exists = tile_of_queries(rows, columns, query_stride, TILE_Y, TILE_X)
    head = tl.program_id(1) % heads
    b = (tl.program_id(1) // heads).to(tl.int64)
    plane = height * width
    queries = rows * columns
    channel = channel_block(N, L)
    image = b * references * plane * value_stride + head * D
    first = ((b * heads + head) * queries + at_query) * chosen
    grad_out += b * grad_stride_b + head.to(tl.int64) * D * grad_stride_c
    if SINGLE:
        at = (y * width + x).to(tl.int64) * grad_stride_p
        own = load_strided(grad_out, at, exists, grad_stride_c, channel, D, N * L == D)
    for k in range(chosen):
        r, move_x, move_y = load_offsets(offsets, first + k, exists, references, components)
        start = r.to(tl.int64) * plane
        w = tl.load(weights + first + k, mask=exists, other=0.0)
        grad_w = tl.zeros(exists.shape, tl.float32)
        grad_x = tl.zeros(exists.shape, tl.float32)
        grad_y = tl.zeros(exists.shape, tl.float32)
        for p in range(1 if SINGLE else patch * patch):
            dx, dy, pixel, inside = patch_pixel(x, y, p, patch, dilation, height, width)
            inside = exists & (inside | STACK)
            if SINGLE:
                g = own
            else:
                if STACK:
                    from_k = k * grad_stride_k.to(tl.int64)
                    place = from_k + p * queries + at_query
                    step = channel.to(tl.int64)  # a sample of all channels may be 2**31 numbers
                else:
                    place = pixel.to(tl.int64) * grad_stride_p
                    step = channel
                g = load_strided(grad_out, place, inside, grad_stride_c, step, D, N * L == D)
            at_x = x + move_x + dx
            at_y = y + move_y + dy
            p00, p01, p10, p11, fx, fy = corner_pixels(
                start, reflect(at_x, width), reflect(at_y, height), height, width
            )
            if PLACES:
                base = value + image
                s00 = sum_channels(
                    g * load_pixels(base, p00, inside, value_stride, channel, D, N * L == D)
                )
                s01 = sum_channels(
                    g * load_pixels(base, p01, inside, value_stride, channel, D, N * L == D)
                )
                s10 = sum_channels(
                    g * load_pixels(base, p10, inside, value_stride, channel, D, N * L == D)
                )
                s11 = sum_channels(
                    g * load_pixels(base, p11, inside, value_stride, channel, D, N * L == D)
                )
                top = s00 + fx * (s01 - s00)
                bottom = s10 + fx * (s11 - s10)
                grad_w += top + fy * (bottom - top)
                slope = (1 - fy) * (s01 - s00) + fy * (s11 - s10)
                grad_x += w * slope * reflection_sign(at_x, width)
                grad_y += w * (bottom - top) * reflection_sign(at_y, height)
            add_corners(
                grad_value + image, p00, p01, p10, p11, fx, fy, w[:, None, None] * g,
                inside & (w != 0), value_stride, channel, D, N * L == D,
            )  # fmt: skip
        if PLACES:
            tl.store(grad_weights + first + k, grad_w, mask=exists)
            to = grad_offsets + (first + k) * components
            if components == 3:
                tl.store(to, tl.zeros(exists.shape, tl.float32), mask=exists)
                to += 1
            tl.store(to, grad_x, mask=exists)
            tl.store(to + 1, grad_y, mask=exists)


@triton.jit
def product_gradients(
    base, p00, p01, p10, p11, fx, fy, q, g, grad_q, passes, stride, channel, D: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """grad_q with the gradient ``g`` of <q, k> added, and the slopes of g <q, k> along x and y.

    A corner is done with before the next is loaded, which spares registers.
    """
    k = load_pixels(base, p00, passes, stride, channel, D, EVEN)
    s00 = sum_channels(q * k)
    grad_q += (g * (1 - fx) * (1 - fy))[:, None, None] * k
    k = load_pixels(base, p01, passes, stride, channel, D, EVEN)
    s01 = sum_channels(q * k)
    grad_q += (g * fx * (1 - fy))[:, None, None] * k
    k = load_pixels(base, p10, passes, stride, channel, D, EVEN)
    s10 = sum_channels(q * k)
    grad_q += (g * (1 - fx) * fy)[:, None, None] * k
    k = load_pixels(base, p11, passes, stride, channel, D, EVEN)
    s11 = sum_channels(q * k)
    grad_q += (g * fx * fy)[:, None, None] * k
    slope_x = g * ((1 - fy) * (s01 - s00) + fy * (s11 - s10))
    slope_y = g * ((1 - fx) * (s10 - s00) + fx * (s11 - s01))
    return grad_q, slope_x, slope_y


@triton.jit
def distance_gradients(
    base, p00, p01, p10, p11, fx, fy, q, g, passes, stride, channel, D: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """The gradient ``g`` of |q - k|^2 as one of k (q's is minus it), and the slopes in x and y."""
    k00 = load_pixels(base, p00, passes, stride, channel, D, EVEN)
    k01 = load_pixels(base, p01, passes, stride, channel, D, EVEN)
    k10 = load_pixels(base, p10, passes, stride, channel, D, EVEN)
    k11 = load_pixels(base, p11, passes, stride, channel, D, EVEN)
    weight_x = fx[:, None, None]
    weight_y = fy[:, None, None]
    top = k00 + weight_x * (k01 - k00)
    bottom = k10 + weight_x * (k11 - k10)
    right = (1 - weight_y) * (k01 - k00) + weight_y * (k11 - k10)
    amount = -2.0 * g[:, None, None] * (q - top - weight_y * (bottom - top))
    return amount, sum_channels(amount * right), sum_channels(amount * (bottom - top))


@triton.jit(do_not_specialize=SIZES)
def search_backward_kernel(
    grad_scores, query, key, scores, offsets, grad_query, grad_key, grad_centre, query_stride_b,
    query_stride_c, query_stride_y, query_stride_x, to_stride_b, to_stride_c, to_stride_y,
    to_stride_x, key_stride, heads, references, height, width,
    rows, columns, query_stride, chosen, patch, dilation, components, first_free,
    D: tl.constexpr, N: tl.constexpr, L: tl.constexpr, L2: tl.constexpr, ADD: tl.constexpr,
    CENTRE: tl.constexpr, TILE_Y: tl.constexpr, TILE_X: tl.constexpr,
):  # fmt: skip
    """Gradients of the chosen scores. Grid (tiles of queries, B * heads).

    grad_query [B, heads * D, H, W], of strides ``to_stride``: written once where a patch is one
    pixel, else (ADD, float32) added to. grad_key [B, R, H, W, heads * D] and, with CENTRE,
    grad_centre [B, R, 2, nH, nW], both float32: added to.
    Slots before ``first_free`` do not move with the centre.
    """
    x, y, at_query, exists = tile_of_queries(rows, columns, query_stride, TILE_Y, TILE_X)
    head = tl.program_id(1) % heads
    b = (tl.program_id(1) // heads).to(tl.int64)
    plane = height * width
    queries = rows * columns
    channel = channel_block(N, L)
    query += b * query_stride_b + head * D * query_stride_c
    image = b * references * plane * key_stride + head * D
    first = ((b * heads + head) * queries + at_query) * chosen
    grad_centre += b * references * 2 * queries + at_query
    # A loop of one turn is no loop: nothing is kept in registers for its next.
    for p in range(patch * patch if ADD else 1):
        dx = (p % patch - patch // 2) * dilation
        dy = (p // patch - patch // 2) * dilation
        q_x = reflect(x + dx, width).to(tl.int32)
        q_y = reflect(y + dy, height).to(tl.int32)
        at = q_y.to(tl.int64) * query_stride_y + q_x * query_stride_x
        q = load_strided(query, at, exists, query_stride_c, channel, D, N * L == D)
        grad_q = tl.zeros([exists.shape[0], N, L], tl.float32)
        for k in range(chosen):
            r, move_x, move_y = load_offsets(offsets, first + k, exists, references, components)
            score = tl.load(scores + first + k, mask=exists, other=0.0)
            g = tl.load(grad_scores + first + k, mask=exists, other=0.0)
            passes = exists & (tl.abs(score) < float("inf")) & (g != 0)
            g = tl.where(passes, g, 0.0)
            centre_x = tl.minimum(tl.maximum(x + move_x, 0.0), width - 1.0)
            centre_y = tl.minimum(tl.maximum(y + move_y, 0.0), height - 1.0)
            p00, p01, p10, p11, fx, fy = corner_pixels(
                r.to(tl.int64) * plane, reflect(centre_x + dx, width),
                reflect(centre_y + dy, height), height, width,
            )  # fmt: skip
            if L2:
                amount, slope_x, slope_y = distance_gradients(
                    key + image, p00, p01, p10, p11, fx, fy, q, g, passes, key_stride, channel,
                    D, N * L == D,
                )  # fmt: skip
                grad_q -= amount
            else:
                grad_q, slope_x, slope_y = product_gradients(
                    key + image, p00, p01, p10, p11, fx, fy, q, g, grad_q, passes, key_stride,
                    channel, D, N * L == D,
                )  # fmt: skip
                amount = g[:, None, None] * q
            add_corners(
                grad_key + image, p00, p01, p10, p11, fx, fy, amount, passes, key_stride, channel,
                D, N * L == D,
            )  # fmt: skip
            if CENTRE:
                slope_x *= reflection_sign(centre_x + dx, width)
                slope_y *= reflection_sign(centre_y + dy, height)
                to_centre = grad_centre + r.to(tl.int64) * 2 * queries
                moves = passes & (k >= first_free)
                tl.atomic_add(to_centre, slope_x, mask=moves, sem="relaxed")
                tl.atomic_add(to_centre + queries, slope_y, mask=moves, sem="relaxed")
        place = q_y.to(tl.int64) * to_stride_y + q_x * to_stride_x
        to = grad_query + b * to_stride_b + (head * D + channel) * to_stride_c
        to += place[:, None, None]
        mask = block_mask(exists, channel, D, N * L == D)
        if ADD:
            tl.atomic_add(to, grad_q, mask=mask, sem="relaxed")
        else:
            tl.store(to, grad_q.to(grad_query.dtype.element_ty), mask=mask)
