"""Photographs moving in front of one another, with the flow that follows from their poses.

A scene is a stack of layers, back to front. Each is a photograph in the plane, continued by
mirroring, with a pose at every frame; all but the backmost are cut out along a soft-edged blob.
The poses are closed form, so the flow is too, and no pixel of it is estimated:

    pixel p of frame t  --pose(t)-->  texture point X  --inverse of pose(t - 1)-->  pixel p + flow

The flow is backward, as a decoder warps: frame t at p is frame t - 1 at p + flow(t)[:, p].
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.video.photographs import texture

_EDGE = 1.0  # half width of a blob's soft edge, frame pixels
_CLEAR = 2.5  # the flow holds from this far off an edge, pixels: bilinear taps stay clear of it


@dataclass(frozen=True)
class Pose:
    """Where a texture lies in a frame: X = anchor + spacing * R(angle) (p - position)."""

    position: tuple[float, float]  # (x, y) in the frame at which the anchor is seen, pixels
    angle: float  # radians
    spacing: float  # texture pixels per frame pixel
    anchor: tuple[float, float]  # (x, y) in the texture, its pixels

    def matrix(self) -> np.ndarray:
        """Frame pixel to texture pixel, homogeneous, float64 [3, 3]."""
        c, s = self.spacing * np.cos(self.angle), self.spacing * np.sin(self.angle)
        linear = np.array([[c, -s], [s, c]])
        result = np.eye(3)
        result[:2, :2] = linear
        result[:2, 2] = np.asarray(self.anchor) - linear @ np.asarray(self.position)
        return result


@dataclass(frozen=True)
class Blob:
    """A star-shaped outline round an anchor, radius (1 + sum_k a_k cos(k angle + phase_k))."""

    radius: float  # texture pixels
    harmonics: tuple[tuple[int, float, float], ...]  # (k, a_k, phase_k)

    @property
    def reach(self) -> float:
        """No point of the outline is farther from the anchor, texture pixels."""
        return self.radius * (1 + sum(abs(amplitude) for _, amplitude, _ in self.harmonics))

    def distance(self, x: Tensor, y: Tensor) -> Tensor:
        """Texture pixels outside the outline, negative inside; x and y are relative to the anchor.

        Along the ray from the anchor, so at least the true distance, by up to 1.7 where it slants.
        """
        angle = torch.atan2(y, x)
        outline = torch.full_like(angle, self.radius)
        for k, amplitude, phase in self.harmonics:
            outline += self.radius * amplitude * torch.cos(k * angle + phase)
        return torch.hypot(x, y) - outline


@dataclass(frozen=True, eq=False)
class Layer:
    """One moving photograph."""

    name: str  # of PHOTOGRAPHS
    pose: Callable[[int], Pose]  # by frame index
    widest: float  # the widest spacing the poses have: what the photograph is low-passed for
    outline: Blob | None = None  # None: it fills the plane
    # Texture pixels [2, H, W] added to the texture points of frame 1. A layer with it has only
    # the frames 0 and 1.
    deformation: Tensor | None = None
    bend: float = 0.0  # no vector of the deformation is longer

    def distance(self, t: int, u: Tensor, v: Tensor) -> Tensor:
        """Frame pixels by which texture points (u, v) lie outside the outline."""
        pose = self.pose(t)
        return self.outline.distance(u - pose.anchor[0], v - pose.anchor[1]) / pose.spacing

    def sample(self, u: Tensor, v: Tensor) -> Tensor:
        """RGB in [0, 255] at texture points (u, v) [h, w], mirrored outside: [3, h, w]."""
        image = texture(self.name, self.widest)  # [1, 3, H', W']
        height, width = image.shape[-2:]
        grid = torch.stack((u * (2 / (width - 1)) - 1, v * (2 / (height - 1)) - 1), dim=-1)
        return F.grid_sample(
            image, grid.unsqueeze(0), mode="bilinear", padding_mode="reflection", align_corners=True
        )[0]


class Scene:
    """Layers, back to front, seen through a frame of height x width pixels."""

    def __init__(self, layers: list[Layer], height: int, width: int):
        self.layers, self.height, self.width = layers, height, width
        self._x = torch.arange(width, dtype=torch.float32).view(1, -1)  # [1, W]
        self._y = torch.arange(height, dtype=torch.float32).view(-1, 1)  # [H, 1]

    def render(self, t: int) -> np.ndarray:
        """Frame t, uint8 [3, H, W]."""
        back, *front = self.layers
        rgb = back.sample(*self._points(back, t, self._box(back, t)))  # [3, H, W]
        for layer in front:
            box = self._box(layer, t)
            u, v = self._points(layer, t, box)  # [h, w]
            if u.numel():
                alpha = (0.5 - layer.distance(t, u, v) / (2 * _EDGE)).clamp(0, 1)
                alpha = alpha * alpha * (3 - 2 * alpha)
                under = rgb[(slice(None), *box)]
                under.lerp_(layer.sample(u, v), alpha)
        return rgb.round_().clamp_(0, 255).to(torch.uint8).numpy()

    def motion(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        """Flow from frame t to t - 1, float32 [2, H, W] pixels, and where it holds, bool [H, W].

        The flow is that of the layer seen at the pixel. It does not hold where it leaves the
        frame, where another layer lies in front at t - 1, and within 2.5 pixels of an outline.
        """
        flow = self._flow(self.layers[0], t, self._box(self.layers[0], t))  # [2, H, W]
        holds = torch.ones(self.height, self.width, dtype=torch.bool)
        seen = torch.zeros(self.height, self.width, dtype=torch.uint8)  # index of the layer seen
        for index, layer in enumerate(self.layers[1:], start=1):
            box = self._box(layer, t)
            distance = layer.distance(t, *self._points(layer, t, box))  # [h, w]
            inside = distance < 0
            under = flow[(slice(None), *box)]
            under.copy_(torch.where(inside, self._flow(layer, t, box), under))
            seen[box][inside] = index
            holds[box] = (holds[box] & (distance > _CLEAR)) | (distance < -_CLEAR)
        at_x, at_y = self._x + flow[0], self._y + flow[1]
        for index, layer in enumerate(self.layers[1:], start=1):
            distance = layer.distance(t - 1, *_apply(layer.pose(t - 1).matrix(), at_x, at_y))
            holds &= (distance > _CLEAR) | (seen >= index)
        slack = 1e-3  # rounding of the float32 flow
        holds &= (at_x >= -slack) & (at_x <= self.width - 1 + slack)
        holds &= (at_y >= -slack) & (at_y <= self.height - 1 + slack)
        return flow.numpy(), holds.numpy()

    def _box(self, layer: Layer, t: int) -> tuple[slice, slice]:
        """Rows and columns of frame t outside which the layer is clear of every pixel."""
        if layer.outline is None:
            return slice(0, self.height), slice(0, self.width)
        pose = layer.pose(t)
        reach = (layer.outline.reach + layer.bend) / pose.spacing + _CLEAR + 1
        return tuple(
            slice(max(0, math.floor(at - reach)), max(0, min(side, math.ceil(at + reach))))
            for at, side in zip(pose.position[::-1], (self.height, self.width), strict=True)
        )

    def _points(self, layer: Layer, t: int, box: tuple[slice, slice]) -> tuple[Tensor, Tensor]:
        """The layer's texture points at the pixels of a box of frame t, each [h, w]."""
        u, v = _apply(layer.pose(t).matrix(), self._x[:, box[1]], self._y[box[0]])
        if layer.deformation is not None and t > 0:
            u, v = u + layer.deformation[0][box], v + layer.deformation[1][box]
        return u, v

    def _flow(self, layer: Layer, t: int, box: tuple[slice, slice]) -> Tensor:
        """From where in frame t - 1 the layer came to the pixels of a box of frame t, [2, h, w]."""
        back = np.linalg.inv(layer.pose(t - 1).matrix())
        # One matrix, in float64, for pixel -> texture -> pixel less itself; zero if nothing moves.
        still = layer.pose(t) == layer.pose(t - 1)
        step = np.zeros((3, 3)) if still else back @ layer.pose(t).matrix() - np.eye(3)
        x, y = _apply(step, self._x[:, box[1]], self._y[box[0]])
        if layer.deformation is not None:
            bent_x, bent_y = layer.deformation[0][box], layer.deformation[1][box]
            back[:2, 2] = 0
            more_x, more_y = _apply(back, bent_x, bent_y)
            x, y = x + more_x, y + more_y
        return torch.stack((x, y))


def _apply(matrix: np.ndarray, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """A homogeneous [3, 3] map of the points (x, y), which are broadcast to [h, w]."""
    m = matrix.tolist()
    return m[0][0] * x + m[0][1] * y + m[0][2], m[1][0] * x + m[1][1] * y + m[1][2]
