"""What the operators are measured against: the ways to get the same result without them.

Each is written as its users write it, in torch or with the package they take, and gives gradients
by autograd. All take one head and the pair form: query, key, value [B, C, H, W], flow [B, 2, H, W]
in pixels (x, y); searches return scores [B, K, H, W] and offsets [B, K, 2, H, W] relative to the
query. Where a kernel of torch or of a package lacks bfloat16, that step runs in float32, as under
autocast. Borders are left as the packages leave them, so a comparison of results looks at queries
whose whole window lies inside the image.
"""

import functools
import math
from collections.abc import Callable
from importlib import import_module, util

import torch
import torch.nn.functional as F
from torch import Tensor


def installed(package: str) -> bool:
    return util.find_spec(package) is not None


def _base(like: Tensor) -> Tensor:
    """Pixel coordinates [1, 2, H, W] (x, y)."""
    height, width = like.shape[-2:]
    y = torch.arange(height, device=like.device, dtype=torch.float32)
    x = torch.arange(width, device=like.device, dtype=torch.float32)
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)))[None]


def _sample(image: Tensor, position: Tensor, padding: str = "zeros") -> Tensor:
    """Bilinear samples of image [B, C, H, W] at position [B, 2, H, W] in pixels, float32."""
    height, width = image.shape[-2:]
    grid = torch.stack(
        (
            position[:, 0] * (2.0 / max(width - 1, 1)) - 1.0,
            position[:, 1] * (2.0 / max(height - 1, 1)) - 1.0,
        ),
        -1,
    )
    return F.grid_sample(image.float(), grid, "bilinear", padding, align_corners=True)


def _steps(window: int, device: torch.device) -> Tensor:
    """The window's offsets [window * window, 2] (x, y), row by row."""
    line = torch.arange(window, device=device, dtype=torch.float32) - (window - 1) // 2
    return torch.stack((line.repeat(window), line.repeat_interleave(window)), -1)


def _chosen(scores: Tensor, topk: int, window: int, flow: Tensor | None) -> tuple[Tensor, Tensor]:
    """Best of scores [B, window^2, H, W]: (scores [B, K, H, W], offsets [B, K, 2, H, W])."""
    best, index = torch.topk(scores, topk, dim=1)
    offsets = _steps(window, scores.device)[index].movedim(-1, 2)  # [B, K, 2, H, W]
    return best, offsets if flow is None else offsets + flow[:, None]


def _weights(scores: Tensor, scale: float) -> Tensor:
    return torch.softmax(scores.float() * scale, 1)


# One grid_sample per offset -----------------------------------------------------------------------


def grid_sample_search(
    query: Tensor, key: Tensor, flow: Tensor, window: int, topk: int
) -> tuple[Tensor, Tensor]:
    centre = _base(query) + flow
    scores = [
        (query * _sample(key, centre + step[None, :, None, None])).sum(1)
        for step in _steps(window, query.device)
    ]
    return _chosen(torch.stack(scores, 1), topk, window, flow)


def grid_sample_attention(
    query: Tensor, key: Tensor, value: Tensor, flow: Tensor, window: int, topk: int, scale: float
) -> Tensor:
    scores, offsets = grid_sample_search(query, key, flow, window, topk)
    weights = _weights(scores, scale)
    base = _base(query)
    parts = [weights[:, k, None] * _sample(value, base + offsets[:, k]) for k in range(topk)]
    return torch.stack(parts).sum(0)


# Unfold and matmul: N3Net's way, without a flow ---------------------------------------------------


def _unfolded(image: Tensor, window: int) -> Tensor:
    """Every pixel's window: [B, C, window^2, H * W]."""
    columns = F.unfold(image, window, padding=window // 2)
    return columns.view(image.shape[0], image.shape[1], window * window, -1)


def _matmul(query: Tensor, columns: Tensor) -> Tensor:
    """Scores [B, window^2, N] as one small matrix product a pixel."""
    vectors = query.flatten(2).transpose(1, 2)[..., None]  # [B, N, C, 1]
    return torch.matmul(columns.permute(0, 3, 2, 1), vectors)[..., 0].transpose(1, 2)


def _product(query: Tensor, columns: Tensor) -> Tensor:
    """The same as a product and a sum, which a CPU likes better."""
    return (columns * query.flatten(2)[:, :, None]).sum(1)


def unfold_search(
    query: Tensor,
    key: Tensor,
    flow: Tensor,
    window: int,
    topk: int,
    inner: Callable[[Tensor, Tensor], Tensor] = _matmul,
) -> tuple[Tensor, Tensor]:
    scores = inner(query, _unfolded(key, window))
    return _chosen(scores.unflatten(2, query.shape[2:]), topk, window, None)


def unfold_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    flow: Tensor,
    window: int,
    topk: int,
    scale: float,
    inner: Callable[[Tensor, Tensor], Tensor] = _matmul,
) -> Tensor:
    batch, channels, height, width = value.shape
    scores, offsets = unfold_search(query, key, flow, window, topk, inner)
    step = offsets.long() + window // 2
    index = (step[:, :, 1] * window + step[:, :, 0]).view(batch, 1, topk, -1)
    chosen = torch.gather(_unfolded(value, window), 2, index.expand(-1, channels, -1, -1))
    weights = _weights(scores, scale).view(batch, 1, topk, -1)
    return (chosen * weights).sum(2).view(batch, channels, height, width)


unfold_product_search = functools.partial(unfold_search, inner=_product)
unfold_product_attention = functools.partial(unfold_attention, inner=_product)


# Warp, then a correlation volume ------------------------------------------------------------------


def sampler_correlation(query: Tensor, key: Tensor, window: int) -> Tensor:
    """Sums of products [B, window^2, H, W] by spatial-correlation-sampler, row by row."""
    from spatial_correlation_sampler import spatial_correlation_sample

    volume = spatial_correlation_sample(
        query.float().contiguous(), key.float().contiguous(), kernel_size=1, patch_size=window
    )
    return volume.flatten(1, 2)


def sampler_search(
    query: Tensor, key: Tensor, flow: Tensor, window: int, topk: int
) -> tuple[Tensor, Tensor]:
    warped = _sample(key, _base(query) + flow, "border")
    return _chosen(sampler_correlation(query, warped, window), topk, window, flow)


def sampler_attention(
    query: Tensor, key: Tensor, value: Tensor, flow: Tensor, window: int, topk: int, scale: float
) -> Tensor:
    batch, channels, height, width = value.shape
    base = _base(query)
    warped = _sample(torch.cat((key, value), 1), base + flow, "border")
    scores = sampler_correlation(query, warped[:, : key.shape[1]], window)
    scores, offsets = _chosen(scores, topk, window, None)
    place = (base[:, None] + offsets).long()
    index = place[:, :, 1].clamp(0, height - 1) * width + place[:, :, 0].clamp(0, width - 1)
    index = index.view(batch, 1, -1).expand(-1, channels, -1)  # [B, C, K * N]
    chosen = torch.gather(warped[:, key.shape[1] :].flatten(2), 2, index)
    weights = _weights(scores, scale).view(batch, 1, topk, -1)
    return (chosen.unflatten(2, (topk, -1)) * weights).sum(2).view(batch, channels, height, width)


# NATTEN: no flow, no top-k ------------------------------------------------------------------------


def natten_attention(
    query: Tensor, key: Tensor, value: Tensor, window: int, scale: float
) -> Tensor:
    """Softmax over the whole window, moved inside the image at the border, round the query.

    Without its compiled library NATTEN builds on torch's flex_attention, which has to be compiled.
    """
    # In no extra of ours: a wheel of it fits one torch and one CUDA.
    natten = import_module("natten")
    arguments = [x.permute(0, 2, 3, 1)[..., None, :].contiguous() for x in (query, key, value)]
    compiled = query.is_cuda and not natten.HAS_LIBNATTEN
    out = natten.na2d(*arguments, kernel_size=(window, window), scale=scale, torch_compile=compiled)
    return out[..., 0, :].permute(0, 3, 1, 2)


# Linear attention ---------------------------------------------------------------------------------


def torch_linear_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """The five lines in which it is usually written (Shen et al. 2018)."""
    q, k, v = (x.flatten(2).unflatten(1, (heads, -1)) for x in (query, key, value))
    q = q.softmax(2)  # over the head's channels
    k = k.float().softmax(3).to(v.dtype)  # over the pixels
    context = k @ v.transpose(2, 3)  # [B, heads, d, d]
    return (context.transpose(2, 3) @ q).reshape(value.shape[:2] + query.shape[2:])


def quadratic_attention(query: Tensor, key: Tensor, value: Tensor, heads: int) -> Tensor:
    """softmax(Q K^T) V over all pixels: another function, and what the linear one stands in for."""
    q, k, v = (
        x.flatten(2).unflatten(1, (heads, -1)).transpose(2, 3).contiguous()
        for x in (query, key, value)
    )
    out = F.scaled_dot_product_attention(q, k, v)
    return out.transpose(2, 3).reshape(value.shape[:2] + query.shape[2:])


# Correlation --------------------------------------------------------------------------------------


def shifted_products(query: Tensor, key: Tensor, radius: int) -> Tensor:
    """One product and sum per displacement of a zero-padded key: [B, (2 radius + 1)^2, H, W]."""
    height, width = query.shape[2:]
    padded = F.pad(key, (radius,) * 4)
    side = range(2 * radius + 1)
    maps = [
        (query * padded[..., y : y + height, x : x + width]).mean(1) for y in side for x in side
    ]
    return torch.stack(maps, 1)


def one_over_root(channels: int) -> float:
    """The usual scale of a softmax over dot products."""
    return 1.0 / math.sqrt(channels)
