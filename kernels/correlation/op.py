"""The local correlation volume as one operator of torch: ``lgmc::correlation``."""

import torch
from torch import Tensor

from kernels import checks
from kernels.correlation import naive
from kernels.dispatch import choose

BACKENDS = ("naive", "cpu", "triton", "sampler")


def correlation(
    query: Tensor,
    key: Tensor,
    radius: int,
    *,
    stride: int = 1,
    normalise: bool = True,
    backend: str | None = None,
) -> Tensor:
    """Products of each query pixel with the key pixels in a square round the same place.

    ``out[b, i * (2 * radius + 1) + j, y, x] = sum over c of query[b, c, y, x] *
    key[b, c, y + (i - radius) * stride, x + (j - radius) * stride]``, zero where that lies outside
    of the image (the cost volume of FlowNet, Dosovitskiy 2015, and PWC-Net, Sun 2018).

    Args:
        query, key: [B, C, H, W], float32, bfloat16 or (naive only) float64; any strides.
        radius: the square is 2 * radius + 1 displacements wide, >= 0.
        stride: pixels from one displacement to the next.
        normalise: divide by C, so that the range does not depend on the channels.
        backend: "naive", "cpu", "triton", "sampler" (the package spatial-correlation-sampler), or
            None to pick by device and dtype ("sampler" is never picked).

    Returns:
        [B, (2 * radius + 1)^2, H, W], contiguous, rows of displacements first; float32, accumulated
        in float32 (float64 for float64). Differentiable once in query and key (the naive back end
        in eager mode: as often as one likes).

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit; the text names it.
    """
    checks.features("query", query, (4,), "[B, C, H, W]")
    checks.features("key", key, (4,), "[B, C, H, W]")
    checks.alike("key", key, "query", query)
    checks.sized("key", key, query.shape, "the shape of query")
    checks.whole("radius", radius, least=0)
    checks.whole("stride", stride)
    chosen = choose(backend, query, BACKENDS)
    if chosen == "naive" and not torch.compiler.is_compiling():
        return naive.correlation(query, key, radius, stride, normalise)
    return _forward(query, key, radius, stride, normalise, chosen)


@torch.library.custom_op("lgmc::correlation", mutates_args=())
def _forward(
    query: Tensor, key: Tensor, radius: int, stride: int, normalise: bool, backend: str
) -> Tensor:
    """The volume by one back end."""
    if backend == "naive":
        return naive.correlation(query, key, radius, stride, normalise)
    return _fast(backend).forward(query, key, radius, stride, normalise)


@_forward.register_fake
def _(query, key, radius, stride, normalise, backend):
    exact = torch.float64 if query.dtype == torch.float64 else torch.float32
    batch, _, height, width = query.shape
    return query.new_empty(batch, (2 * radius + 1) ** 2, height, width, dtype=exact)


@torch.library.custom_op("lgmc::correlation_backward", mutates_args=())
def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    radius: int,
    stride: int,
    normalise: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of query and key by one back end."""
    if backend == "naive":
        return naive.gradients(grad, query, key, radius, stride, normalise)
    return _fast(backend).backward(grad, query, key, radius, stride, normalise)


@_backward.register_fake
def _(grad, query, key, radius, stride, normalise, backend):
    return query.new_empty(query.shape), key.new_empty(key.shape)


def _fast(backend: str):
    """The module of a fast back end, imported (and compiled) when it is first used."""
    if backend == "triton":
        from kernels.correlation import triton_volume as module
    elif backend == "sampler":
        from kernels.correlation import sampler as module
    else:
        from kernels.correlation import cpu as module
    return module


def _save(ctx, inputs, output):
    query, key, ctx.radius, ctx.stride, ctx.normalise, ctx.backend = inputs
    ctx.save_for_backward(query, key)


def _differentiate(ctx, grad):
    settings = (ctx.radius, ctx.stride, ctx.normalise, ctx.backend)
    return *_backward(grad, *ctx.saved_tensors, *settings), None, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
