"""Linear cross-attention in a few lines of torch: what the other back ends are held to."""

import torch
from torch import Tensor


def linear_attention(
    query: Tensor, key: Tensor, value: Tensor, heads: int = 1, mask: Tensor | None = None
) -> Tensor:
    """``softmax_channels(Q) (softmax_pixels(K)^T V)`` of each head; any device, float64 too.

    Arguments and result as in :func:`kernels.linear_attention`; differentiable by autograd.
    """
    if _rounds(query):
        with torch.autocast(query.device.type, enabled=False):
            return linear_attention(query, key, value, heads, mask)
    q, p, v = _normalised(query, key, value, heads, mask)
    context = torch.bmm(p, v.mT)  # [B * heads, channels of K, channels of V]
    out = torch.bmm(context.mT, q)
    return out.reshape(query.shape[0], value.shape[1], *query.shape[2:]).to(query.dtype)


def _rounds(x: Tensor) -> bool:
    """Whether autocast is on here: it would round the factors of the products."""
    if x.is_cpu or x.is_cuda:  # asked like this: to name the device takes half a microsecond
        return torch.is_autocast_enabled("cpu" if x.is_cpu else "cuda")
    kind = x.device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)


def _normalised(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(Q), softmax(K) and V, each [B * heads, channels of a head, pixels]."""
    exact = torch.float64 if query.dtype == torch.float64 else torch.float32
    q, k, v = (_by_head(x.to(exact), heads) for x in (query, key, value))
    if mask is not None:
        used = _mask_by_head(mask, heads)
        k, v = k.masked_fill(~used, float("-inf")), v.masked_fill(~used, 0.0)
        k = k.masked_fill(~used.any(-1, keepdim=True), 0.0)  # no pixel at all: v is 0, so is G
    return q.softmax(1), k.softmax(2), v


def _by_head(x: Tensor, heads: int) -> Tensor:
    return x.reshape(x.shape[0] * heads, x.shape[1] // heads, -1)


def _mask_by_head(mask: Tensor, heads: int) -> Tensor:
    """[B * heads, 1, pixels]."""
    return mask.reshape(mask.shape[0], 1, -1).repeat_interleave(heads, 0)


def gradients(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value, written out: inside an operator autograd is off."""
    if _rounds(query):
        with torch.autocast(query.device.type, enabled=False):
            return gradients(grad, query, key, value, heads, mask)
    q, p, v = _normalised(query, key, value, heads, mask)
    g = _by_head(grad.to(q.dtype), heads)
    grad_context = q @ g.mT
    back = p @ v.mT @ g
    grad_q = q * (back - (q * back).sum(1, keepdim=True))
    back = grad_context @ v
    grad_k = p * (back - (p * back).sum(2, keepdim=True))
    grad_v = grad_context.mT @ p
    if mask is not None:
        grad_v = grad_v.masked_fill(~_mask_by_head(mask, heads), 0.0)
    wanted = zip((grad_q, grad_k, grad_v), (query, key, value), strict=True)
    return tuple(result.reshape(x.shape).to(x.dtype).contiguous() for result, x in wanted)
