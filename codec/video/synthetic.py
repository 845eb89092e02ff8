"""Clips and pairs whose motion is known exactly: for tests, the demo and training of flow.

Nothing but the arguments decides what a clip shows; two runs give the same pixels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from os import PathLike

import numpy as np
import torch
import torch.nn.functional as F

from codec.errors import VideoError
from codec.video.format import Frame, VideoFormat
from codec.video.photographs import PHOTOGRAPHS, photograph
from codec.video.scene import Blob, Layer, Pose, Scene

# kind: (wobble, zoom, turn of the background, layers in front of it). Zoom is in octaves and turn
# in radians, both the amplitude of a slow swing; "still" has none of anything.
_KINDS = {
    "pan": (True, 0.0, 0.0, 0),
    "zoom": (True, 0.35, 0.0, 0),
    "rotation": (True, 0.0, 0.45, 0),
    "occluder": (True, 0.0, 0.0, 1),
    "layers": (True, 0.0, 0.0, 3),
    "mixed": (True, 0.2, 0.2, 2),
    "still": (False, 0.0, 0.0, 0),
    "leap": (True, 0.0, 0.0, 1),
}
KINDS = tuple(_KINDS)


@dataclass(frozen=True)
class SyntheticClip:
    """A clip that is rendered frame by frame as it is asked for; iterating gives `frames_rgb`."""

    scene: Scene
    frame_count: int
    format: VideoFormat  # 8-bit RGB, full range

    def frame(self, t: int) -> np.ndarray:
        """Frame t, uint8 RGB [3, H, W]; IndexError outside 0..frame_count-1."""
        if not 0 <= t < self.frame_count:
            raise IndexError(f"frame {t} of a clip of {self.frame_count}")
        return self.scene.render(t)

    def flow(self, t: int) -> np.ndarray:
        """Backward flow float32 [2, H, W], (x, y) pixels: frame(t) at p is frame(t-1) at p + flow.

        IndexError for t outside 1..frame_count-1: the first frame has nothing before it.
        """
        return self._motion(t)[0]

    def visible(self, t: int) -> np.ndarray:
        """Where flow(t) holds, bool [H, W]: what is seen is in frame t - 1 too, and not hidden."""
        return self._motion(t)[1]

    @property
    def frames_rgb(self) -> Iterator[np.ndarray]:
        """The frames in order, each uint8 [3, H, W], one in memory at a time."""
        return (self.scene.render(t) for t in range(self.frame_count))

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames_rgb

    def __len__(self) -> int:
        return self.frame_count

    def frames(self, format: VideoFormat | None = None) -> Iterator[Frame]:
        """The frames as planes of `format` (RGB by default), which must have the clip's size."""
        format = format or self.format
        if (format.width, format.height) != (self.format.width, self.format.height):
            raise VideoError(
                f"the clip is {self.format.width}x{self.format.height}, the format "
                f"{format.width}x{format.height}: make the clip in the size you want"
            )
        if format.chroma == "rgb" and format.bit_depth == 8:
            yield from (tuple(rgb) for rgb in self.frames_rgb)
            return
        from codec.video.colour import rgb_to_frame

        for rgb in self.frames_rgb:
            yield rgb_to_frame(torch.from_numpy(rgb).unsqueeze(0).float() / 255, format)

    def _motion(self, t: int) -> tuple[np.ndarray, np.ndarray]:
        if not 1 <= t < self.frame_count:
            raise IndexError(f"flow of frame {t} of a clip of {self.frame_count}")
        return self.scene.motion(t)


def synthetic_clip(
    kind: str,
    width: int,
    height: int,
    frames: int,
    seed: int = 0,
    fps: Fraction = Fraction(24),
) -> SyntheticClip:
    """A clip of one of KINDS, any size and length.

    pan       a photograph passes, with the wobble of a hand-held camera
    zoom      the same, swinging nearer and farther; rotation: turning to and fro
    occluder  a cut-out crosses a slow background; layers: three of them, over one another
    mixed     zoom, rotation and two cut-outs
    still     nothing moves: every frame is the same
    leap      a cut-out crosses a slow background by 8 to 9 % of the width a frame (67 to 75 pixels
              of 832), to and fro

    Motion is sub-pixel and smooth, its speed drawn by the seed: usually 0.3 to 1.5 % of the width
    a frame for the background, 1 to 3 % for cut-outs. Raises VideoError for an unknown kind and
    for a size or a length below 1.
    """
    if kind not in _KINDS:
        raise VideoError(f"unknown kind of clip {kind!r}: choose one of {', '.join(KINDS)}")
    if width < 1 or height < 1 or frames < 1:
        raise VideoError(
            f"a clip of {frames} frames of {width}x{height} cannot be made: each must be at least 1"
        )
    wobble, zoom, turn, in_front = _KINDS[kind]
    rng = np.random.default_rng([KINDS.index(kind), seed])
    names = [PHOTOGRAPHS[i] for i in rng.permutation(len(PHOTOGRAPHS))[: 1 + in_front]]
    slow = 0.5 if in_front else 1.0
    layers = [_background(rng, names[0], width, height, slow if wobble else 0.0, zoom, turn)]
    cut_out = _leaping if kind == "leap" else _cut_out
    layers += [cut_out(rng, name, width, height) for name in names[1:]]
    format = VideoFormat(
        width=width,
        height=height,
        fps=Fraction(fps),
        chroma="rgb",
        bit_depth=8,
        matrix="bt709",
        range="full",
    )
    return SyntheticClip(Scene(layers, height, width), frames, format)


def write_synthetic(
    kind: str,
    target: str | PathLike,
    width: int,
    height: int,
    frames: int,
    seed: int = 0,
    fps: Fraction = Fraction(24),
    *,
    chroma: str = "420",
    bit_depth: int = 8,
    matrix: str = "bt709",
    range: str = "limited",
) -> SyntheticClip:
    """Writes a clip to whatever codec.video.open_writer knows by the target's name; returns it."""
    from codec.video.writer import open_writer

    clip = synthetic_clip(kind, width, height, frames, seed, fps)
    if chroma == "rgb":
        range = "full"
    format = VideoFormat(
        width=width,
        height=height,
        fps=Fraction(fps),
        chroma=chroma,
        bit_depth=bit_depth,
        matrix=matrix,
        range=range,
    )
    with open_writer(target, format) as writer:
        for frame in clip.frames(format):
            writer.write(frame)
    return clip


def random_pair(
    rng: np.random.Generator, height: int, width: int, max_motion: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Two frames with the flow between them, drawn anew at each call: data to train flow on.

    A background and up to three cut-outs, each with its own shift, turn, zoom and a smooth
    deformation; small motion is drawn as often as large (log-uniform from max_motion / 64).
    Returns previous and current, uint8 [3, H, W], the flow of current, float32 [2, H, W], whose
    length is nowhere above max_motion pixels, and where it holds, bool [H, W].
    """
    names = [PHOTOGRAPHS[i] for i in rng.permutation(len(PHOTOGRAPHS))[: 1 + rng.integers(0, 4)]]
    layers = [_pair_layer(rng, names[0], height, width, max_motion, None)]
    for name in names[1:]:
        size = rng.uniform(0.12, 0.4) * min(height, width)
        layers.append(_pair_layer(rng, name, height, width, max_motion, size))
    scene = Scene(layers, height, width)
    return scene.render(0), scene.render(1), *scene.motion(1)


def _swing(t: float, amplitude: float, period: float, phase: float) -> float:
    return amplitude * math.sin(2 * math.pi * t / period + phase)


def _anchor(rng: np.random.Generator, name: str) -> tuple[float, float]:
    """A point of the photograph somewhere about its middle, (x, y)."""
    height, width = photograph(name).shape[-2:]
    return float(width * rng.uniform(0.35, 0.65)), float(height * rng.uniform(0.35, 0.65))


def _spacing(rng: np.random.Generator, name: str, width: int, height: int) -> float:
    """Photograph pixels per frame pixel: fit the frame into the photograph, in reason."""
    photo_height, photo_width = photograph(name).shape[-2:]
    fit = 0.9 * min(photo_height / height, photo_width / width)
    return float(np.clip(fit, 0.75, 1.6) * 2 ** rng.uniform(-0.15, 0.15))


def _background(
    rng: np.random.Generator,
    name: str,
    width: int,
    height: int,
    speed: float,
    zoom: float,
    turn: float,
) -> Layer:
    """The layer that fills the frame; speed 1 is a usual pan, 0 none, wobble in proportion."""
    anchor, spacing = _anchor(rng, name), _spacing(rng, name, width, height)
    heading = rng.uniform(0, 2 * math.pi)
    drift = speed * (0.3 + width * rng.uniform(0.003, 0.012)) * (0.3 if zoom or turn else 1.0)
    sway = [(speed * rng.uniform(0.5, 2.5), rng.uniform(9, 25), rng.uniform(0, 6)) for _ in "xy"]
    zoom_period, turn_period = rng.uniform(60, 120, 2)
    zoom_phase, turn_phase = rng.choice([0.0, math.pi], 2)  # fastest at the first frames

    @functools.cache
    def pose(t: int) -> Pose:
        x = width / 2 + drift * math.cos(heading) * t + _swing(t, *sway[0])
        y = height / 2 + drift * math.sin(heading) * t + _swing(t, *sway[1])
        return Pose(
            position=(x, y),
            angle=_swing(t, turn, turn_period, turn_phase),
            spacing=spacing * 2 ** _swing(t, zoom, zoom_period, zoom_phase),
            anchor=anchor,
        )

    return Layer(name, pose, widest=spacing * 2**zoom)


def _outline(rng: np.random.Generator, radius: float) -> Blob:
    """A blob of about that radius in texture pixels, never thin anywhere."""
    harmonics = [(k, rng.uniform(0, 0.35 / k), rng.uniform(0, 2 * math.pi)) for k in (2, 3, 4, 5)]
    return Blob(radius, tuple(harmonics))


def _cut_out(rng: np.random.Generator, name: str, width: int, height: int) -> Layer:
    """A blob that swings through the frame across its middle, always at least half inside."""
    anchor, spacing = _anchor(rng, name), _spacing(rng, name, width, height)
    radius = rng.uniform(0.14, 0.26) * min(width, height)  # frame pixels
    reach = (rng.uniform(0.25, 0.45) * width, rng.uniform(0.1, 0.35) * height)
    # The fastest step of a swing is 2 pi amplitude / period.
    step = (0.3 + width * rng.uniform(0.012, 0.028), 0.2 + height * rng.uniform(0.004, 0.02))
    period = [2 * math.pi * r / s for r, s in zip(reach, step, strict=True)]
    phase = rng.uniform(0, 2 * math.pi, 2)
    spin, spin_period = rng.uniform(-0.3, 0.3), rng.uniform(20, 50)

    @functools.cache
    def pose(t: int) -> Pose:
        return Pose(
            position=(
                width / 2 + _swing(t, reach[0], period[0], phase[0]),
                height / 2 + _swing(t, reach[1], period[1], phase[1]),
            ),
            angle=_swing(t, spin, spin_period, 0.0),
            spacing=spacing,
            anchor=anchor,
        )

    return Layer(name, pose, widest=spacing, outline=_outline(rng, radius * spacing))


def _leaping(rng: np.random.Generator, name: str, width: int, height: int) -> Layer:
    """A blob that goes to and fro between the frame's sides at one speed."""
    anchor, spacing = _anchor(rng, name), _spacing(rng, name, width, height)
    radius = rng.uniform(0.14, 0.2) * min(width, height)  # frame pixels
    step, start = width * rng.uniform(0.08, 0.09), rng.uniform(0, 0.8 * width)
    line = height * rng.uniform(0.4, 0.6)
    drift = (0.05 * height, rng.uniform(9, 25), rng.uniform(0, 6))

    @functools.cache
    def pose(t: int) -> Pose:
        way = 0.8 * width
        along = (start + step * t) % (2 * way)
        x = 0.1 * width + (along if along < way else 2 * way - along)
        return Pose((x, line + _swing(t, *drift)), 0.0, spacing, anchor)

    return Layer(name, pose, widest=spacing, outline=_outline(rng, radius * spacing))


def _pair_layer(
    rng: np.random.Generator,
    name: str,
    height: int,
    width: int,
    max_motion: float,
    size: float | None,
) -> Layer:
    """A layer of a pair, its motion at most max_motion; size is a cut-out's radius in pixels."""
    anchor, spacing = _anchor(rng, name), _spacing(rng, name, width, height)
    centre = (
        (width / 2, height / 2)
        if size is None
        else (float(rng.uniform(0, width)), float(rng.uniform(0, height)))
    )
    # Shares of the shift, the turn with the zoom, and the deformation: in sum below one.
    motion = max_motion * 2 ** rng.uniform(-6, 0)
    shift, affine, bend = motion * rng.dirichlet((2.0, 1.0, 0.7)) * 0.98
    heading = rng.uniform(0, 2 * math.pi)
    far = math.hypot(width, height) / 2 if size is None else 1.7 * size  # radius of the outline
    # A turn by a and a zoom by 1 + e move a pixel at distance r by at most (|a| + |e|) r.
    share = rng.uniform(0, 1)
    angle = rng.choice([-1, 1]) * min(affine / far, 0.5) * share
    zoom = 1 + rng.choice([-1, 1]) * min(affine / far, 0.5) * (1 - share)
    # In frame 0 the anchor is moved off, turned and zoomed; frame 1 has the plain pose.
    poses = (
        Pose(
            (centre[0] + shift * math.cos(heading), centre[1] + shift * math.sin(heading)),
            float(angle),
            float(spacing / zoom),
            anchor,
        ),
        Pose(centre, 0.0, spacing, anchor),
    )
    bend *= spacing / max(zoom, 1.0)
    deformation = _smooth_field(rng, height, width, bend)
    widest = max(pose.spacing for pose in poses)
    outline = None if size is None else _outline(rng, size * spacing)
    return Layer(name, poses.__getitem__, widest, outline, deformation, float(bend))


def _smooth_field(rng: np.random.Generator, height: int, width: int, peak: float) -> torch.Tensor:
    """A smooth random field float32 [2, H, W] whose vectors are at most `peak` long."""
    coarse = rng.uniform(-1, 1, (1, 2, *rng.integers(3, 6, 2))).astype(np.float32)
    coarse *= peak / math.sqrt(2)
    field = F.interpolate(
        torch.from_numpy(coarse), (height, width), mode="bilinear", align_corners=True
    )
    return field[0]
