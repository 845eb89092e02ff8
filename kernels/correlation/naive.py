"""The correlation volume in a few lines of torch: what the other back ends are held to."""

import torch
import torch.nn.functional as F
from torch import Tensor


def correlation(
    query: Tensor, key: Tensor, radius: int, stride: int = 1, normalise: bool = True
) -> Tensor:
    """Arguments and result as in :func:`kernels.correlation`; any device, float64 too.

    Differentiable by autograd.
    """
    exact = torch.float64 if query.dtype == torch.float64 else torch.float32
    q, k = query.to(exact), key.to(exact)
    _, channels, height, width = q.shape
    reach = radius * stride
    k = F.pad(k, (reach,) * 4)
    scores = [
        (q * k[:, :, y : y + height, x : x + width]).sum(1)
        for y in range(0, 2 * reach + 1, stride)
        for x in range(0, 2 * reach + 1, stride)
    ]
    return torch.stack(scores, 1) / (channels if normalise else 1)


def gradients(
    grad: Tensor, query: Tensor, key: Tensor, radius: int, stride: int, normalise: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of query and key, written out: inside an operator autograd is off."""
    q, k = query.to(grad.dtype), key.to(grad.dtype)
    _, channels, height, width = q.shape
    reach = radius * stride
    k = F.pad(k, (reach,) * 4)
    grad_q, grad_k = torch.zeros_like(q), torch.zeros_like(k)
    places = [
        (slice(y, y + height), slice(x, x + width))
        for y in range(0, 2 * reach + 1, stride)
        for x in range(0, 2 * reach + 1, stride)
    ]
    for g, (rows, columns) in zip(grad.split(1, dim=1), places, strict=True):
        grad_q += g * k[:, :, rows, columns]
        grad_k[:, :, rows, columns] += g * q
    grad_k = grad_k[:, :, reach : reach + height, reach : reach + width]
    scale = channels if normalise else 1
    return tuple((x / scale).to(query.dtype).contiguous() for x in (grad_q, grad_k))
