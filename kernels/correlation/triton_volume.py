"""The correlation volume in Triton: every program does one stretch of one row.

Features are [B, C, H, W], contiguous; arithmetic is float32. The neighbours that a stretch of
pixels meets are read again for each displacement, out of the cache: what a program takes from
memory is about one row of each image for every row of displacements.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from kernels.launch import start

PIXELS = 64  # of a program
CHANNELS = 16  # of a program of the backward pass


@triton.jit
def volume_kernel(
    query, key, out, channels, height, width, radius, stride, scale,
    D: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """[D displacements, N pixels] of a row of an image, a row of displacements and a stretch.

    Programs that differ in the stretch alone are neighbours, then those of the same image row.
    """
    side = 2 * radius + 1
    stretches = tl.cdiv(width, N)
    i = tl.program_id(0) // stretches % side
    row = tl.program_id(0) // (stretches * side)
    batch, y = row // height, row % height
    x = tl.program_id(0) % stretches * N + tl.arange(0, N)
    j = tl.arange(0, D)
    plane = height * width
    image = batch.to(tl.int64) * channels * plane
    key_y = y + (i - radius) * stride
    key_x = x[None, :] + (j[:, None] - radius) * stride
    inside = (key_y >= 0) & (key_y < height) & (key_x >= 0) & (key_x < width)
    inside = inside & (j[:, None] < side)
    q_at = query + image + y * width + x
    k_at = key + image + key_y * width + key_x
    sums = tl.zeros((D, N), tl.float32)
    for _ in range(channels):
        q = tl.load(q_at, mask=x < width, other=0.0).to(tl.float32)
        sums += q[None, :] * tl.load(k_at, mask=inside, other=0.0).to(tl.float32)
        q_at += plane
        k_at += plane
    at = batch.to(tl.int64) * side * side * plane
    at += (i * side + j[:, None]).to(tl.int64) * plane + y * width + x[None, :]
    tl.store(out + at, sums * scale, mask=(j[:, None] < side) & (x[None, :] < width))


@triton.jit
def gradient_kernel(
    grad, source, out, channels, height, width, radius, stride, scale,
    MIRRORED: tl.constexpr, C: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """[C channels, N pixels] of a row of an image, a block of channels and a stretch, as above.

    Not MIRRORED, the query's gradient: grad at this pixel, source, the key, displaced. MIRRORED,
    the key's: both grad and source, the query, displaced the other way.
    """
    side = 2 * radius + 1
    stretches, blocks = tl.cdiv(width, N), tl.cdiv(channels, C)
    row = tl.program_id(0) // (stretches * blocks)
    batch, y = row // height, row % height
    x = tl.program_id(0) % stretches * N + tl.arange(0, N)
    c = tl.program_id(0) // stretches % blocks * C + tl.arange(0, C)
    plane = height * width
    image = batch.to(tl.int64) * channels * plane + c[:, None].to(tl.int64) * plane
    volume = grad + batch.to(tl.int64) * side * side * plane
    sums = tl.zeros((C, N), tl.float32)
    for i in range(side):
        for j in range(side):
            dy, dx = (i - radius) * stride, (j - radius) * stride
            if MIRRORED:
                dy, dx = -dy, -dx
            source_y, source_x = y + dy, x + dx
            inside = (source_y >= 0) & (source_y < height) & (source_x >= 0) & (source_x < width)
            inside = inside & (x < width)
            place = source_y * width + source_x
            own = place if MIRRORED else y * width + x
            weight = tl.load(
                volume + (i * side + j).to(tl.int64) * plane + own, mask=inside, other=0.0
            )
            value = tl.load(
                source + image + place[None, :],
                mask=inside[None, :] & (c[:, None] < channels),
                other=0.0,
            ).to(tl.float32)
            sums += weight[None, :] * value
    at = out + image + y * width + x[None, :]
    mask = (c[:, None] < channels) & (x[None, :] < width)
    tl.store(at, (sums * scale).to(out.dtype.element_ty), mask=mask)


def forward(query: Tensor, key: Tensor, radius: int, stride: int, normalise: bool) -> Tensor:
    """The volume [B, (2 * radius + 1)^2, H, W] float32, as :func:`kernels.correlation`."""
    query, key = query.contiguous(), key.contiguous()
    batch, channels, height, width = query.shape
    side = 2 * radius + 1
    out = query.new_empty(batch, side * side, height, width, dtype=torch.float32)
    programs = batch * height * side * triton.cdiv(width, PIXELS)
    start(
        volume_kernel, (programs,),
        query, key, out, channels, height, width, radius, stride, _scale(channels, normalise),
        D=triton.next_power_of_2(side), N=PIXELS,
    )  # fmt: skip
    return out


def backward(
    grad: Tensor, query: Tensor, key: Tensor, radius: int, stride: int, normalise: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of query and key."""
    grad = grad.contiguous()
    batch, channels, height, width = query.shape
    programs = batch * height * triton.cdiv(channels, CHANNELS) * triton.cdiv(width, PIXELS)
    grads = []
    for source, mirrored in ((key, False), (query, True)):
        source = source.contiguous()
        out = source.new_empty(source.shape)
        start(
            gradient_kernel, (programs,),
            grad, source, out, channels, height, width, radius, stride,
            _scale(channels, normalise), MIRRORED=mirrored, C=CHANNELS, N=PIXELS,
        )  # fmt: skip
        grads.append(out)
    return grads[0], grads[1]


def _scale(channels: int, normalise: bool) -> float:
    return 1.0 / channels if normalise else 1.0
