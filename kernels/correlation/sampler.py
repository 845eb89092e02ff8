"""The correlation volume by the package spatial-correlation-sampler, where it is installed."""

import torch
from torch import Tensor


def forward(query: Tensor, key: Tensor, radius: int, stride: int, normalise: bool) -> Tensor:
    """The volume [B, (2 * radius + 1)^2, H, W], as :func:`kernels.correlation`; float32."""
    volume = _sample(query.contiguous(), key.contiguous(), radius, stride)
    return volume.flatten(1, 2) / (query.shape[1] if normalise else 1)


def backward(
    grad: Tensor, query: Tensor, key: Tensor, radius: int, stride: int, normalise: bool
) -> tuple[Tensor, Tensor]:
    """Gradients of query and key by the package's own backward."""
    side = 2 * radius + 1
    with torch.enable_grad():
        inputs = [x.detach().contiguous().requires_grad_() for x in (query, key)]
        # Inside an operator autograd follows nothing but this call, which is a Function.
        volume = _sample(*inputs, radius, stride)
        grad = grad.unflatten(1, (side, side)).contiguous()
        grads = torch.autograd.grad(volume, inputs, grad)
    scale = query.shape[1] if normalise else 1
    return tuple(x.div(scale).contiguous() for x in grads)


def _sample(query: Tensor, key: Tensor, radius: int, stride: int) -> Tensor:
    """[B, rows, columns of displacements, H, W], not normalised."""
    from spatial_correlation_sampler import spatial_correlation_sample

    return spatial_correlation_sample(
        query,
        key,
        kernel_size=1,
        patch_size=2 * radius + 1,
        stride=1,
        padding=0,
        dilation_patch=stride,
    )
