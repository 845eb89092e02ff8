"""What the Triton kernels of the search and of the gather share: tiles of queries, loads, corners.

A program is one warp that owns a tile of ``Q`` queries. Channels come in blocks ``[Q, N, L]``:
``N`` chunks of ``L`` channels. Triton gives the last axis to neighbouring lanes (16 bytes each),
the first one to the other lanes and keeps the middle one in registers, so that a sum over channels
costs one or two exchanges between lanes. (It orders axes by contiguity, then by number: hence
Q, N, L.)
"""

import triton
import triton.language as tl

# Arguments whose divisibility or value should not make another specialisation to compile.
SIZES = [
    "heads", "references", "groups", "height", "width", "rows", "columns", "query_stride",
    "window", "topk", "patch", "dilation", "chosen", "components", "search_stride", "scale",
    "grad_stride_k", "first_free",
]  # fmt: skip


@triton.jit
def reflect(position, size):
    """Float positions reflected once at the border, then clamped into the image; NaN becomes 0."""
    last = size - 1.0
    position = tl.where(position == position, position, 0.0)
    beyond = tl.where(position > last, 2.0 * last - position, position)
    return tl.minimum(tl.maximum(tl.where(position < 0, -position, beyond), 0.0), last)


@triton.jit
def reflection_sign(position, size):
    """The derivative of :func:`reflect`: 1 inside, -1 reflected, 0 where clamped after it."""
    last = size - 1.0
    sign = tl.where((position < 0) | (position > last), -1.0, 1.0)
    return tl.where((position < -last) | (position > 2.0 * last), 0.0, sign)


@triton.jit
def tile_of_queries(rows, columns, query_stride, TILE_Y: tl.constexpr, TILE_X: tl.constexpr):
    """This program's queries [Q]: pixel x, y (int), index in the query grid, and which exist."""
    tiles_x = tl.cdiv(columns, TILE_X)
    tile = tl.program_id(0)
    place = tl.arange(0, TILE_Y * TILE_X)
    row = (tile // tiles_x) * TILE_Y + place // TILE_X
    column = (tile % tiles_x) * TILE_X + place % TILE_X
    exists = (row < rows) & (column < columns)
    row = tl.minimum(row, rows - 1)
    column = tl.minimum(column, columns - 1)
    return column * query_stride, row * query_stride, row * columns + column, exists


@triton.jit
def channel_block(N: tl.constexpr, L: tl.constexpr):
    """The channels of a block, [1, N, L]."""
    return tl.arange(0, N)[None, :, None] * L + tl.arange(0, L)[None, None, :]


@triton.jit
def block_mask(exists, channel, D: tl.constexpr, EVEN: tl.constexpr):
    """Which elements of a block are there: queries ``exists`` [Q], channels below D."""
    mask = exists[:, None, None]
    if not EVEN:  # without this test the compiler sees whole 16-byte loads
        mask = mask & (channel < D)
    return mask


@triton.jit
def load_pixels(base, pixel, inside, stride, channel, D: tl.constexpr, EVEN: tl.constexpr):
    """Channel vectors of pixels [Q] of a channels-last image: [Q, N, L] float32, 0 outside."""
    mask = block_mask(inside, channel, D, EVEN)
    block = tl.load(base + pixel[:, None, None] * stride + channel, mask=mask, other=0.0)
    return block.to(tl.float32)


@triton.jit
def load_strided(base, at, exists, stride_c, channel, D: tl.constexpr, EVEN: tl.constexpr):
    """Channel vectors at element offsets [Q] of an image of any strides: [Q, N, L] float32."""
    mask = block_mask(exists, channel, D, EVEN)
    block = tl.load(base + at[:, None, None] + channel * stride_c, mask=mask, other=0.0)
    return block.to(tl.float32)


@triton.jit
def sum_channels(block):
    """[Q, N, L] -> [Q]; the chunks first, they lie in one lane's registers."""
    return tl.sum(tl.sum(block, 1), 1)


@triton.jit
def load_bilinear(
    base, first, x, y, inside, stride, channel, height, width, D: tl.constexpr, EVEN: tl.constexpr
):
    """The channels-last image whose pixels begin at ``first`` [Q] (int64), at x, y inside it."""
    x0 = tl.floor(x)
    y0 = tl.floor(y)
    fx = (x - x0)[:, None, None]
    fy = (y - y0)[:, None, None]
    pixel = first + y0.to(tl.int32) * width + x0.to(tl.int32)
    right = inside & (x > x0)  # a corner without weight may lie outside the image
    below = inside & (y > y0)
    k00 = load_pixels(base, pixel, inside, stride, channel, D, EVEN)
    k01 = load_pixels(base, pixel + 1, right, stride, channel, D, EVEN)
    k10 = load_pixels(base, pixel + width, below, stride, channel, D, EVEN)
    k11 = load_pixels(base, pixel + width + 1, right & below, stride, channel, D, EVEN)
    top = (1 - fx) * k00 + fx * k01
    bottom = (1 - fx) * k10 + fx * k11
    return (1 - fy) * top + fy * bottom


@triton.jit
def corner_pixels(first, x, y, height, width):
    """The four corners' pixels (int64) and the weights, [Q]; outside, the border pixel again."""
    x0 = tl.floor(x)
    y0 = tl.floor(y)
    fx = x - x0
    fy = y - y0
    right = tl.where(x0 < width - 1, 1, 0)
    below = tl.where(y0 < height - 1, width, 0)
    p00 = first + y0.to(tl.int32) * width + x0.to(tl.int32)
    return p00, p00 + right, p00 + below, p00 + below + right, fx, fy


@triton.jit
def add_corners(
    base, p00, p01, p10, p11, fx, fy, amount, exists, stride, channel, D: tl.constexpr,
    EVEN: tl.constexpr,
):  # fmt: skip
    """Add a block to the four corners of a float32 channels-last image, by their weights."""
    mask = block_mask(exists, channel, D, EVEN)
    fx = fx[:, None, None]
    fy = fy[:, None, None]
    right = mask & (fx > 0)
    below = mask & (fy > 0)
    at = base + channel
    top = amount * (1 - fy)
    bottom = amount * fy
    tl.atomic_add(at + p00[:, None, None] * stride, top * (1 - fx), mask=mask, sem="relaxed")
    tl.atomic_add(at + p01[:, None, None] * stride, top * fx, mask=right, sem="relaxed")
    tl.atomic_add(at + p10[:, None, None] * stride, bottom * (1 - fx), mask=below, sem="relaxed")
    tl.atomic_add(at + p11[:, None, None] * stride, bottom * fx, mask=right & below, sem="relaxed")


@triton.jit
def load_offsets(offsets, at, exists, references, components):
    """Reference, dx, dy [Q] of chosen candidates; ``at`` [Q] counts them."""
    at = offsets + at * components
    reference = tl.zeros(exists.shape, tl.int32)
    if components == 3:
        reference = tl.load(at, mask=exists, other=0.0).to(tl.int32)
        reference = tl.minimum(tl.maximum(reference, 0), references - 1)
        at += 1
    return (
        reference,
        tl.load(at, mask=exists, other=0.0),
        tl.load(at + 1, mask=exists, other=0.0),
    )


@triton.jit(do_not_specialize=SIZES)
def reorder_kernel(
    source, target, source_stride_b, source_stride_r, source_stride_c, source_stride_p,
    target_stride_b, target_stride_r, target_stride_c, target_stride_p, references, channels,
    pixels, P: tl.constexpr, C: tl.constexpr,
):  # fmt: skip
    """Copy images [B, R, channels, pixels] between memory orders and dtypes.

    Grid (tiles of P pixels, tiles of C channels, B * R). Loads and stores are both wide: the tile
    changes hands within the program, which torch's strided copy does not do.
    """
    b = (tl.program_id(2) // references).to(tl.int64)
    r = tl.program_id(2) % references
    pixel = (tl.program_id(0) * P + tl.arange(0, P))[:, None].to(tl.int64)
    channel = (tl.program_id(1) * C + tl.arange(0, C))[None, :].to(tl.int64)
    mask = (pixel < pixels) & (channel < channels)
    source += b * source_stride_b + r * source_stride_r
    target += b * target_stride_b + r * target_stride_r
    tile = tl.load(source + pixel * source_stride_p + channel * source_stride_c, mask=mask)
    to = target + pixel * target_stride_p + channel * target_stride_c
    tl.store(to, tile.to(target.dtype.element_ty), mask=mask)
