"""Linear cross-attention in Triton: a partial pass over the keys, a join, a pass over the queries.

A program holds one head's summary (channels of K x channels of V) in registers and walks over
blocks of pixels; many programs share a head and each leaves its own maximum, sum and summary, which
a few small torch operations join. The backward pass recomputes the exponentials. Features are read
once in each direction.

Features are [B, C, pixels] with contiguous pixels. Arithmetic is float32: products of float32
features are exact to float32 ("ieee"). Where features are bfloat16 they use tf32, which holds
bfloat16 but rounds the exponentials, weights and summaries that it multiplies them with to 11 bits;
results are rounded to bfloat16's 8 at the end.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import start

# Programs to aim for: several for each multiprocessor of a large GPU.
PROGRAMS = 1024


@triton.jit
def load_tile(base, channel, pixel, channels, pixels, other):
    """[channels, pixels] of a head's features in float32, ``other`` outside of them."""
    inside = (channel[:, None] < channels) & (pixel[None, :] < pixels)
    at = channel[:, None].to(tl.int64) * pixels + pixel[None, :]
    return tl.load(base + at, mask=inside, other=other).to(tl.float32)


@triton.jit
def store_tile(base, channel, pixel, channels, pixels, tile):
    """The reverse, in the target's type."""
    inside = (channel[:, None] < channels) & (pixel[None, :] < pixels)
    at = channel[:, None].to(tl.int64) * pixels + pixel[None, :]
    tl.store(base + at, tile.to(base.dtype.element_ty), mask=inside)


@triton.jit
def load_summary(base, head, row, column, rows, columns):
    """A head's matrix [rows, columns], zero outside."""
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    at = head * rows * columns + row[:, None] * columns + column[None, :]
    return tl.load(base + at, mask=inside, other=0.0)


@triton.jit
def store_summary(base, unit, row, column, rows, columns, matrix):
    inside = (row[:, None] < rows) & (column[None, :] < columns)
    at = unit * rows * columns + row[:, None] * columns + column[None, :]
    tl.store(base + at, matrix, mask=inside)


@triton.jit
def load_keys(
    key, value, mask, head, heads, row, column, pixel, channels, value_channels, pixels,
    MASKED: tl.constexpr,
):  # fmt: skip
    """Tiles of K (-inf where a pixel does not count) and V (0 there)."""
    k_base = key + head.to(tl.int64) * channels * pixels
    v_base = value + head.to(tl.int64) * value_channels * pixels
    k = load_tile(k_base, row, pixel, channels, pixels, float("-inf"))
    v = load_tile(v_base, column, pixel, value_channels, pixels, 0.0)
    if MASKED:
        at = (head // heads).to(tl.int64) * pixels + pixel
        used = tl.load(mask + at, mask=pixel < pixels, other=0) != 0
        k = tl.where(used[None, :], k, float("-inf"))
        v = tl.where(used[None, :], v, 0.0)
    return k, v


@triton.jit
def key_forward(
    key, value, mask, maximum, total, summary,
    heads, channels, value_channels, pixels, splits, steps,
    D: tl.constexpr, DV: tl.constexpr, N: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (head, split): running maximum, sum and exp(K) V^T of ``steps`` blocks of pixels."""
    head, split = tl.program_id(0), tl.program_id(1)
    row, column = tl.arange(0, D), tl.arange(0, DV)
    largest = tl.full((D,), -3e38, tl.float32)
    summed = tl.zeros((D,), tl.float32)
    products = tl.zeros((D, DV), tl.float32)
    for step in range(steps):
        pixel = (split * steps + step) * N + tl.arange(0, N)
        k, v = load_keys(
            key, value, mask, head, heads, row, column, pixel, channels, value_channels, pixels,
            MASKED,
        )  # fmt: skip
        raised = tl.maximum(largest, tl.max(k, axis=1))
        shrink = tl.exp(largest - raised)
        e = tl.exp(k - raised[:, None])  # [D, N]
        summed = summed * shrink + tl.sum(e, axis=1)
        products = products * shrink[:, None] + tl.dot(e, tl.trans(v), input_precision=PRECISION)
        largest = raised
    unit = head * splits + split
    tl.store(maximum + unit * channels + row, largest, mask=row < channels)
    tl.store(total + unit * channels + row, summed, mask=row < channels)
    store_summary(summary, unit, row, column, channels, value_channels, products)


@triton.jit
def channel_softmax(query, head, row, pixel, channels, pixels):
    """Softmax over the channels of a tile of Q."""
    base = query + head.to(tl.int64) * channels * pixels
    q = load_tile(base, row, pixel, channels, pixels, 0.0)
    q = tl.where(row[:, None] < channels, q, float("-inf"))
    e = tl.exp(q - tl.max(q, axis=0)[None, :])
    return e / tl.sum(e, axis=0)[None, :]


@triton.jit
def query_forward(
    query, summary, out, channels, value_channels, pixels,
    D: tl.constexpr, DV: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (block, head): the output at one block of pixels."""
    block, head = tl.program_id(0), tl.program_id(1)
    row, column = tl.arange(0, D), tl.arange(0, DV)
    pixel = block * N + tl.arange(0, N)
    weights = load_summary(summary, head, row, column, channels, value_channels)
    q = channel_softmax(query, head, row, pixel, channels, pixels)
    result = tl.dot(tl.trans(weights), q, input_precision=PRECISION)
    base = out + head.to(tl.int64) * value_channels * pixels
    store_tile(base, column, pixel, value_channels, pixels, result)


@triton.jit
def query_backward(
    query, grad, summary, grad_query, shares, channels, value_channels, pixels, splits, steps,
    D: tl.constexpr, DV: tl.constexpr, N: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (head, split): the gradient of Q, and this split's share of the summary's."""
    head, split = tl.program_id(0), tl.program_id(1)
    row, column = tl.arange(0, D), tl.arange(0, DV)
    weights = load_summary(summary, head, row, column, channels, value_channels)
    grad_base = grad + head.to(tl.int64) * value_channels * pixels
    base = grad_query + head.to(tl.int64) * channels * pixels
    products = tl.zeros((D, DV), tl.float32)
    for step in range(steps):
        pixel = (split * steps + step) * N + tl.arange(0, N)
        q = channel_softmax(query, head, row, pixel, channels, pixels)
        g = load_tile(grad_base, column, pixel, value_channels, pixels, 0.0)
        products += tl.dot(q, tl.trans(g), input_precision=PRECISION)
        back = tl.dot(weights, g, input_precision=PRECISION)
        back = q * (back - tl.sum(q * back, axis=0)[None, :])
        store_tile(base, row, pixel, channels, pixels, back)
    store_summary(shares, head * splits + split, row, column, channels, value_channels, products)


@triton.jit
def key_backward(
    key, value, mask, maximum, inverse, mean, grad_summary, grad_key, grad_value,
    heads, channels, value_channels, pixels,
    D: tl.constexpr, DV: tl.constexpr, N: tl.constexpr,
    MASKED: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Program (block, head): the gradients of K and V at one block of pixels."""
    block, head = tl.program_id(0), tl.program_id(1)
    row, column = tl.arange(0, D), tl.arange(0, DV)
    pixel = block * N + tl.arange(0, N)
    k, v = load_keys(
        key, value, mask, head, heads, row, column, pixel, channels, value_channels, pixels, MASKED
    )
    at = head * channels + row
    largest = tl.load(maximum + at, mask=row < channels, other=0.0)
    scale = tl.load(inverse + at, mask=row < channels, other=0.0)
    centre = tl.load(mean + at, mask=row < channels, other=0.0)
    weights = load_summary(grad_summary, head, row, column, channels, value_channels)
    p = tl.exp(k - largest[:, None]) * scale[:, None]
    grad_k = p * (tl.dot(weights, v, input_precision=PRECISION) - centre[:, None])
    grad_v = tl.dot(tl.trans(weights), p, input_precision=PRECISION)
    if MASKED:
        at_pixel = (head // heads).to(tl.int64) * pixels + pixel
        used = tl.load(mask + at_pixel, mask=pixel < pixels, other=0) != 0
        grad_v = tl.where(used[None, :], grad_v, 0.0)
    k_base = grad_key + head.to(tl.int64) * channels * pixels
    v_base = grad_value + head.to(tl.int64) * value_channels * pixels
    store_tile(k_base, row, pixel, channels, pixels, grad_k)
    store_tile(v_base, column, pixel, value_channels, pixels, grad_v)


def forward(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As :func:`kernels.linear_attention.cpu.forward`."""
    query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    batch, _, height, width = query.shape
    groups, channels, value_channels, options = _options(key, value, heads)
    pixels = key.shape[2] * key.shape[3]
    steps, splits = _splits(groups, pixels, options["N"])
    maximum = torch.empty(groups, splits, channels, device=key.device)
    total = torch.empty_like(maximum)
    summary = torch.empty(groups, splits, channels, value_channels, device=key.device)
    used, masked = _used(mask, key)
    start(
        key_forward, (groups, splits),
        key, value, used, maximum, total, summary,
        heads, channels, value_channels, pixels, splits, steps, MASKED=masked, **options,
    )  # fmt: skip
    largest = maximum.amax(1)  # [groups, channels]
    shrink = torch.exp(maximum - largest[:, None])  # [groups, splits, channels]
    total = (total * shrink).sum(1)
    inverse = torch.where(total == 0, 0.0, 1.0 / total)
    summary = (summary * shrink[..., None]).sum(1) * inverse[..., None]

    out = query.new_empty(batch, value.shape[1], height, width)
    pixels = height * width
    start(
        query_forward, (triton.cdiv(pixels, options["N"]), groups),
        query, summary, out, channels, value_channels, pixels, **options,
    )  # fmt: skip
    return out, summary, largest, inverse


def backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    mask: Tensor | None,
    summary: Tensor,
    maximum: Tensor,
    inverse: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """As :func:`kernels.linear_attention.cpu.backward`."""
    grad, query = grad.contiguous(), query.contiguous()
    key, value = key.contiguous(), value.contiguous()
    grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
    groups, channels, value_channels, options = _options(key, value, heads)
    pixels = query.shape[2] * query.shape[3]
    steps, splits = _splits(groups, pixels, options["N"])
    shares = torch.empty(groups, splits, channels, value_channels, device=key.device)
    start(
        query_backward, (groups, splits),
        query, grad, summary, grad_query, shares,
        channels, value_channels, pixels, splits, steps, **options,
    )  # fmt: skip
    grad_summary = shares.sum(1)
    # Of the softmax over pixels: sum over pixels of P dP, without a pass over the pixels.
    mean = (summary * grad_summary).sum(2)
    pixels = key.shape[2] * key.shape[3]
    used, masked = _used(mask, key)
    start(
        key_backward, (triton.cdiv(pixels, options["N"]), groups),
        key, value, used, maximum, inverse, mean, grad_summary, grad_key, grad_value,
        heads, channels, value_channels, pixels, MASKED=masked, **options,
    )  # fmt: skip
    return grad_query, grad_key, grad_value


def _options(key: Tensor, value: Tensor, heads: int) -> tuple[int, int, int, dict]:
    """Heads of the batch, channels of a head of K and V, and the kernels' constants."""
    channels, value_channels = key.shape[1] // heads, value.shape[1] // heads
    rows = max(triton.next_power_of_2(channels), 16)
    columns = max(triton.next_power_of_2(value_channels), 16)
    options = {
        "D": rows,
        "DV": columns,
        # Tiles of K and V stay within the registers of the program.
        "N": 64 if max(rows, columns) <= 64 else 32,
        "PRECISION": "tf32" if key.dtype == torch.bfloat16 else "ieee",
        "num_warps": 4 if max(rows, columns) <= 64 else 8,
    }
    return key.shape[0] * heads, channels, value_channels, options


def _splits(groups: int, pixels: int, block: int) -> tuple[int, int]:
    """Blocks that a program walks over, and programs that share a head."""
    blocks = triton.cdiv(pixels, block)
    steps = triton.cdiv(blocks, max(PROGRAMS // groups, 1))
    return steps, triton.cdiv(blocks, steps)


def _used(mask: Tensor | None, key: Tensor) -> tuple[Tensor, bool]:
    if mask is None:
        return key, False  # never read
    return mask.reshape(mask.shape[0], -1).contiguous().view(torch.uint8), True
