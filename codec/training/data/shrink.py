"""Pictures made smaller by an area filter."""

import functools

import torch
from torch import Tensor


def shrink(pictures: Tensor, size: int) -> Tensor:
    """Square pictures [T, C, S, S] at ``size`` <= S pixels a side, float32.

    A pixel is the mean over the area it covers, those that it covers in part counting in part.
    """
    weights = _weights(pictures.shape[-1], size).to(pictures.device)
    return weights @ pictures @ weights.T


@functools.lru_cache(maxsize=64)
def _weights(side: int, size: int) -> Tensor:
    """How much of each pixel [size] is of each of the larger picture's [side]; rows sum to 1."""
    edges = torch.arange(size + 1, dtype=torch.float64) * (side / size)
    pixels = torch.arange(side, dtype=torch.float64)
    ends = torch.minimum(edges[1:, None], pixels + 1)
    begins = torch.maximum(edges[:-1, None], pixels)
    return ((ends - begins).clamp(min=0) * (size / side)).float()
