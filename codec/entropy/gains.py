"""Quality index -> per-channel factors: one model for all rates.

The quality index runs over 0..63 and stands for a Lagrangian lambda, log-spaced between the model's
ends. A gain is a per-channel factor whose logarithm is piecewise linear in the index between a few
learned knots, so neighbouring indices always differ smoothly and every index is trained.
"""

import math

import torch
from torch import Tensor, nn

QUALITIES = 64


def lambda_of(quality: Tensor | int, lambda_min: float, lambda_max: float) -> Tensor:
    """The Lagrangian of a quality index: log-spaced, ``lambda * MSE([0, 1]) + bits per pixel``."""
    position = torch.as_tensor(quality, dtype=torch.float32) / (QUALITIES - 1)
    return lambda_min * (lambda_max / lambda_min) ** position


class QualityGain(nn.Module):
    """A learned per-channel factor for each quality index.

    Args:
        channels: C.
        log_span: logarithm of the ratio of the factors at index 63 and 0 before training; the
            middle of the range begins at ``middle``. For latents half of
            log(lambda_max / lambda_min) is the rule of high-rate theory (step size ~ 1 /
            sqrt(lambda)).
        middle: the factor in the middle of the range before training.
        knots: how many learned points.
    """

    def __init__(self, channels: int, log_span: float = 0.0, middle: float = 1.0, knots: int = 8):
        super().__init__()
        start = torch.linspace(-0.5, 0.5, knots)[:, None] * log_span + math.log(middle)
        self.log_gain = nn.Parameter(start.repeat(1, channels))  # [knots, C]

    def values(self, quality: Tensor) -> Tensor:
        """log-factors [B, C] of the quality indices [B] (real numbers allowed)."""
        return interpolate_knots(self.log_gain, quality)

    def forward(self, quality: Tensor) -> Tensor:
        """Factors [B, C, 1, 1] of the quality indices [B]."""
        return torch.exp(self.values(quality))[:, :, None, None]


class NoGain(nn.Module):
    """Stands where a model of one rate has no gain: the factor 1."""

    def forward(self, quality: Tensor) -> Tensor:
        return torch.ones(quality.shape[0], 1, 1, 1, device=quality.device)


def make_gain(
    enabled: bool, channels: int, log_span: float = 0.0, middle: float = 1.0
) -> nn.Module:
    return QualityGain(channels, log_span, middle) if enabled else NoGain()


def half_log_range(lambda_min: float, lambda_max: float) -> float:
    """log sqrt(lambda_max / lambda_min): the span of quantisation steps over the quality range."""
    return 0.5 * math.log(lambda_max / lambda_min)


def interpolate_knots(table: Tensor, quality: Tensor) -> Tensor:
    """Rows [B, C] of a table [knots, C] at real quality indices [B], linear between knots."""
    knots = table.shape[0]
    position = (quality.float().clamp(0, QUALITIES - 1) * ((knots - 1) / (QUALITIES - 1)))[:, None]
    low = position.floor().clamp(max=knots - 2)
    weight = position - low
    row = low.long()[:, 0]
    return table[row] * (1 - weight) + table[row + 1] * weight


def moved_knots(table: Tensor, old: tuple[float, float], new: tuple[float, float]) -> Tensor:
    """A table [knots, C] by quality, for a model whose indices stand for other lambdas.

    Each lambda keeps its row; beyond the old range the table goes on as straight as it ends.

    Args:
        old, new: (lambda_min, lambda_max) before and after.
    """
    knots = table.shape[0]
    ends = [math.log(each / old[0]) / math.log(old[1] / old[0]) for each in new]
    position = torch.linspace(*ends, knots, dtype=torch.float64, device=table.device) * (knots - 1)
    low = position.floor().clamp(0, knots - 2)
    weight = (position - low)[:, None]
    row = low.long()
    moved = table[row].double() * (1 - weight) + table[row + 1].double() * weight
    return moved.to(table.dtype)
