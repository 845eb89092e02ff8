"""Folders of PNG or JPEG pictures as video, in and out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image
from PIL.ImageOps import exif_transpose

from codec.errors import VideoError
from codec.video.format import Frame, VideoFormat
from codec.video.source import VideoReader

SUFFIXES = (".png", ".jpg", ".jpeg")
DEFAULT_FPS = Fraction(25)
_FRAME_NAME = "{:05d}.png"
_ORIENTATION = 0x0112  # Exif tag; 5..8 lie on their side


def open_images(folder: Path, *, fps: Fraction | None = None) -> VideoReader:
    """The pictures of a folder as 8-bit rgb frames, in natural order of their names (2 before 10).

    fps: 25 where not given. Alpha is dropped, grey becomes R = G = B, an Exif orientation is
    applied, 16-bit pictures are reduced to 8. Raises VideoError for a folder without pictures, and
    names the file that has another size or cannot be read.
    """
    paths = list_images(folder)
    if not paths:
        raise VideoError(f"{folder} holds no .png, .jpg or .jpeg picture")
    width, height = _size(paths[0])
    for path in paths[1:]:
        other = _size(path)
        if other != (width, height):
            raise VideoError(
                f"{path} is {other[0]}x{other[1]}, but {paths[0].name} is {width}x{height}: the "
                "pictures of a video must all have one size"
            )
    format = VideoFormat(width, height, fps or DEFAULT_FPS, "rgb", 8, "bt709", "full")
    return VideoReader(str(folder), format, _frames(paths, format), frame_count=len(paths))


def list_images(folder: Path) -> list[Path]:
    """The folder's pictures in natural order; hidden files are not among them."""
    found = [
        path
        for path in folder.iterdir()
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".") and path.is_file()
    ]
    return sorted(found, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> tuple:
    """Sorts "2.png" before "10.png", and names that differ in zeros only by their text."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def is_frame_name(name: str) -> bool:
    """Whether a name is one that PngSink gives."""
    return re.fullmatch(r"[0-9]{5,}\.png", name) is not None


class PngSink:
    """Writes 8-bit rgb frames as 00000.png, 00001.png, ... into a folder that exists."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._index = 0

    def write(self, frame: Frame) -> None:
        picture = Image.fromarray(np.stack(frame, axis=-1))  # [H, W, 3]
        # Level 1 is several times faster than the default and a tenth larger.
        picture.save(self._folder / _FRAME_NAME.format(self._index), compress_level=1)
        self._index += 1

    def finish(self) -> None:
        """Every picture is on disk already."""

    def discard(self) -> None:
        """Nothing of ours to let go of."""


def _size(path: Path) -> tuple[int, int]:
    """(width, height) from a picture's header, as it is to be shown."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            if _orientation(picture) >= 5:
                width, height = height, width
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
        raise _unreadable(path) from exc
    return width, height


def _orientation(picture: Image.Image) -> int:
    """The Exif orientation, 1 (upright) to 8, from what stands before the pixels."""
    if picture.format == "PNG" and "exif" not in picture.info:
        return 1  # PIL would decode the whole picture to see whether one follows
    return picture.getexif().get(_ORIENTATION, 1)


def _frames(paths: list[Path], format: VideoFormat) -> Iterator[Frame]:
    for path in paths:
        try:
            with Image.open(path) as picture:
                upright = picture if _orientation(picture) == 1 else exif_transpose(picture)
                pixels = np.asarray(_to_rgb(upright))  # [H, W, 3]
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as exc:
            raise _unreadable(path) from exc
        frame = tuple(np.ascontiguousarray(pixels[..., channel]) for channel in range(3))
        format.check_frame(frame)
        yield frame


def _to_rgb(picture: Image.Image) -> Image.Image:
    """An RGB picture; PIL's own conversion would clip 16-bit grey instead of scaling it."""
    if picture.mode.startswith("I"):
        grey = np.asarray(picture).astype(np.float64) / 257.0
        picture = Image.fromarray(np.clip(np.rint(grey), 0, 255).astype(np.uint8))
    return picture.convert("RGB")


def _unreadable(path: Path) -> VideoError:
    return VideoError(f"{path} is not a picture that can be read: mend it or take it out")
