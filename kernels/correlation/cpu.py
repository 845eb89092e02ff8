"""The correlation volume on the CPU: two rows at a time, sums in vector registers."""

import numpy as np
from torch import Tensor

from kernels import jit, pages
from kernels.correlation import cpu_passes
from kernels.correlation.cpu_rows import CHANNELS
from kernels.jit import LANES

# Multiplications in a piece of work: to hand over a smaller one costs more than it saves.
LEAST_WORK = 2**22


def forward(query: Tensor, key: Tensor, radius: int, stride: int, normalise: bool) -> Tensor:
    """The volume [B, (2 * radius + 1)^2, H, W] float32, as :func:`kernels.correlation`."""
    batch, channels, height, width = query.shape
    out = pages.empty(batch, (2 * radius + 1) ** 2, height, width)
    _run(
        cpu_passes.correlate, query, radius, stride,
        _packed(query, radius, stride), _packed(key, radius, stride),
        channels, radius, stride, _scale(channels, normalise), out.numpy(),
    )  # fmt: skip
    return out


def backward(
    grad: Tensor, query: Tensor, key: Tensor, radius: int, stride: int, normalise: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of query and key."""
    grad = grad.detach().contiguous()
    scale = _scale(query.shape[1], normalise)
    grads = []
    for source, mirrored in ((key, False), (query, True)):
        out = pages.empty(*query.shape)
        _run(
            cpu_passes.gradient, query, radius, stride,
            grad.numpy(), _packed(source, radius, stride), radius, stride, scale, mirrored,
            out.numpy(),
        )  # fmt: skip
        grads.append(out.to(query.dtype))
    return grads[0], grads[1]


def _scale(channels: int, normalise: bool) -> np.float32:
    return np.float32(1.0 / channels if normalise else 1.0)


def _packed(x: Tensor, radius: int, stride: int) -> np.ndarray:
    """[B, rows, channels, columns] float32 with the border of zeros that the passes ask for.

    A row's channels lie side by side: at a usual picture size whole planes lie a multiple of 4 KiB
    apart, and the same pixel of all channels would fall into one set of the cache.
    """
    batch, channels, height, width = x.shape
    border = radius * stride
    rows = _up(height, 2 * stride) + 2 * border
    columns = _up(width, LANES) + 2 * border + 2 * stride
    packed = pages.empty(batch, rows, _up(channels, CHANNELS), columns)
    inside = packed[:, border : border + height, :channels, border : border + width]
    inside.copy_(x.detach().transpose(1, 2))
    packed[:, :border] = 0.0
    packed[:, border + height :] = 0.0
    packed[:, :, channels:] = 0.0
    packed[..., :border] = 0.0
    packed[..., border + width :] = 0.0
    return packed.numpy()


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def _run(kernel, query: Tensor, radius: int, stride: int, *arguments) -> None:
    """One of the passes over all pairs of rows; several short ones make a piece of work."""
    batch, channels, height, width = query.shape
    pairs = _up(height, 2 * stride) // 2
    work = 2 * width * channels * (2 * radius + 1) ** 2
    jit.run(kernel, batch * pairs, *arguments, chunk=max(LEAST_WORK // work, 1))
