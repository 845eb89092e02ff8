"""Clips that frames are read from: decoded planes in a file, and folders of pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from codec.training.data.measures import Measures
from codec.training.data.shots import Shot
from codec.video.colour import frame_to_rgb
from codec.video.format import VideoFormat


class Clip(Protocol):
    """A source of consecutive frames.

    Attributes:
        shots: the frames that samples are taken from; a sample lies in one of them.
    """

    name: str
    frames: int
    height: int
    width: int
    shots: tuple[Shot, ...]

    def read(
        self, start: int, count: int, top: int, left: int, size: int, every: int = 1
    ) -> Tensor:
        """Frames [T, 3, size, size] RGB in [0, 1]: ``start`` and each ``every``-th from there.

        ``top`` and ``left`` are even.
        """


@dataclass
class CachedClip:
    """A decoded video: the planes of all frames in one memory-mapped array.

    Attributes:
        planes: uint8 [frames, bytes of a frame].
        format: what they mean.
        measures: what its frames were measured for, where they were.
        shots: all frames are one where it is left out.
    """

    name: str
    planes: np.ndarray
    format: VideoFormat
    measures: Measures | None = None
    shots: tuple[Shot, ...] | None = None

    def __post_init__(self) -> None:
        if self.shots is None:
            self.shots = (Shot(0, self.frames),)

    @property
    def frames(self) -> int:
        return len(self.planes)

    @property
    def height(self) -> int:
        return self.format.height

    @property
    def width(self) -> int:
        return self.format.width

    def read(
        self, start: int, count: int, top: int, left: int, size: int, every: int = 1
    ) -> Tensor:
        shapes = self.format.plane_shapes()
        factor = 2 if self.format.chroma == "420" else 1
        cut = VideoFormat(**{**vars(self.format), "width": size, "height": size})
        out = []
        for t in range(start, start + count * every, every):
            row = self.planes[t].view(self.format.dtype)
            planes, offset = [], 0
            for number, (h, w) in enumerate(shapes):
                plane = row[offset : offset + h * w].reshape(h, w)
                offset += h * w
                step = factor if number else 1
                y, x, side = top // step, left // step, size // step
                planes.append(np.ascontiguousarray(plane[y : y + side, x : x + side]))
            out.append(frame_to_rgb(tuple(planes), cut)[0])
        return torch.stack(out).clamp(0, 1)


@dataclass
class FolderClip:
    """A folder of images, read when needed and taken as one shot."""

    name: str
    files: list[Path]
    height: int
    width: int

    @property
    def frames(self) -> int:
        return len(self.files)

    @property
    def shots(self) -> tuple[Shot, ...]:
        return (Shot(0, self.frames),)

    def read(
        self, start: int, count: int, top: int, left: int, size: int, every: int = 1
    ) -> Tensor:
        from PIL import Image

        out = []
        for file in self.files[start : start + count * every : every]:
            with Image.open(file) as image:
                box = (left, top, left + size, top + size)
                pixels = np.asarray(image.convert("RGB").crop(box))
            out.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        return torch.stack(out).float() / 255
