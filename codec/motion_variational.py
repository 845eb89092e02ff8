"""Smoothing motion by what both pictures say: the variational method of optical flow.

Minimises, over small changes of the flow,

    sum |I_reference(p + flow) - I_current(p)|  +  stiffness * sum sqrt(|grad flow|^2 + edge^2)

with I the picture and its derivatives, so that a change of brightness counts little (Brox et al.
2004). Each round linearises both terms round the flow that it has (iteratively reweighted least
squares), and solves the equations by sweeps over the picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from codec.layers import warp

_GRADIENT = 3.0  # weight of the derivatives beside the picture
_ROBUST = 1e-3  # differences below it count by their square
_SLOWEST = 0.97  # share of an error that a plain sweep leaves, for all but the smoothest errors
_LEAST = 1e-9  # a single pixel has neither slopes nor neighbours


def smoothed(
    current: Tensor,
    reference: Tensor,
    flow: Tensor,
    *,
    stiffness: float,
    edge: float,
    rounds: int,
    sweeps: int,
) -> Tensor:
    """The flow, moved towards where the pictures agree and towards its neighbours.

    Args:
        current, reference: [B, C, H, W], values about [0, 1], float32.
        flow: [B, 2, H, W] in pixels of this grid: current(p) is reference(p + flow).
        stiffness: how much smoothness weighs against agreement.
        edge: pixels; steps between neighbouring vectors above it may stay, those below are evened.
        rounds: linearisations; a vector moves by a pixel at most in each.
        sweeps: of the solver in each round.

    Returns:
        A flow like ``flow``.
    """
    here, there = _with_derivatives(current), _with_derivatives(reference)
    for _ in range(rounds):
        warped = warp(there, flow)
        slope_x, slope_y = _derivatives(0.5 * (warped + here))
        difference = warped - here
        weight = _inside(flow) / _mean(difference * difference).add(_ROBUST**2).sqrt()
        xx, yy = _mean(slope_x * slope_x) * weight, _mean(slope_y * slope_y) * weight
        xy = _mean(slope_x * slope_y) * weight
        pull = torch.cat((_mean(slope_x * difference), _mean(slope_y * difference)), 1) * weight
        ties = _ties(flow, stiffness, edge)
        total = sum(ties)
        # Pixel by pixel: (agreement + ties) new = agreement old - pull + ties neighbours.
        u, v = flow[:, :1], flow[:, 1:]
        constant = torch.cat((xx * u + xy * v, xy * u + yy * v), 1) - pull
        a, b = xx + total + _LEAST, yy + total + _LEAST
        determinant = a * b - xy * xy
        own, other = torch.cat((b, a), 1) / determinant, -xy / determinant
        new = _solved(flow, own, other, constant, ties, sweeps)
        flow = flow + (new - flow).clamp(-1, 1)
    return flow


def _solved(
    start: Tensor,
    own: Tensor,
    other: Tensor,
    constant: Tensor,
    ties: tuple[Tensor, Tensor, Tensor, Tensor],
    sweeps: int,
) -> Tensor:
    """Sweeps of Jacobi's method with Chebyshev's acceleration: as far as many more without it."""
    before, new, ahead = start, start, 1.0
    for sweep in range(sweeps):
        right = constant + _neighbours(new, ties)
        step = own * right + other * right.flip(1)
        before, new = new, before + ahead * (step - before) if sweep else step
        ahead = 1 / (1 - _SLOWEST**2 / (4 if sweep else 2) * ahead)
    # A chequerboard alone changes its sign in each sweep and does not decay: half a step ends it.
    right = constant + _neighbours(new, ties)
    return 0.5 * (new + own * right + other * right.flip(1))


def _with_derivatives(picture: Tensor) -> Tensor:
    return torch.cat((picture, *(_GRADIENT * slope for slope in _derivatives(picture))), 1)


def _derivatives(x: Tensor) -> tuple[Tensor, Tensor]:
    """Central differences along x and y, borders repeated."""
    padded = F.pad(x, (1, 1, 1, 1), mode="replicate")
    along_x = padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]
    along_y = padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]
    return along_x * 0.5, along_y * 0.5


def _mean(x: Tensor) -> Tensor:
    return x.mean(1, keepdim=True)


def _inside(flow: Tensor) -> Tensor:
    """1 where a vector ends in the picture, else 0: nothing can agree outside. [B, 1, H, W]."""
    height, width = flow.shape[-2:]
    x = torch.arange(width, device=flow.device) + flow[:, :1]
    y = torch.arange(height, device=flow.device)[:, None] + flow[:, 1:]
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).to(flow.dtype)


def _ties(flow: Tensor, stiffness: float, edge: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """How strongly each vector is tied to its left, right, upper and lower one; 0 at the rim."""
    step_x, step_y = flow[..., 1:] - flow[..., :-1], flow[..., 1:, :] - flow[..., :-1, :]
    along_x, along_y = (
        stiffness / (step.square().sum(1, keepdim=True) + edge**2).sqrt()
        for step in (step_x, step_y)
    )
    return (
        F.pad(along_x, (1, 0)),
        F.pad(along_x, (0, 1)),
        F.pad(along_y, (0, 0, 1, 0)),
        F.pad(along_y, (0, 0, 0, 1)),
    )


def _neighbours(flow: Tensor, ties: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """The sum of the four neighbours, each times its tie."""
    padded = F.pad(flow, (1, 1, 1, 1))
    left, right, up, down = ties
    total = left * padded[..., 1:-1, :-2]
    total = total.addcmul_(right, padded[..., 1:-1, 2:])
    total = total.addcmul_(up, padded[..., :-2, 1:-1])
    return total.addcmul_(down, padded[..., 2:, 1:-1])
