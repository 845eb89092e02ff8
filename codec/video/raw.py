"""Raw .yuv: planes after planes and nothing else, so size, rate and pixel format must be given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

from codec.errors import VideoError
from codec.video.format import Frame, VideoFormat
from codec.video.planar import read_planes, write_planes
from codec.video.signalling import matrix_by_size
from codec.video.source import VideoReader, check_sample_range

# FFmpeg's names -> (chroma, bit depth, range it implies or None)
PIX_FMTS = {
    "yuv420p": ("420", 8, None),
    "yuv444p": ("444", 8, None),
    "yuv420p10le": ("420", 10, None),
    "yuv444p10le": ("444", 10, None),
    "yuv420p10": ("420", 10, None),
    "yuv444p10": ("444", 10, None),
    "yuvj420p": ("420", 8, "full"),
    "yuvj444p": ("444", 8, "full"),
}


def open_raw(
    path: Path,
    *,
    size: tuple[int, int] | str | None,
    fps: Fraction | None,
    pix_fmt: str | None,
    matrix: str | None = None,
    range: str | None = None,
) -> VideoReader:
    """Frames of a raw planar file.

    size: (width, height) or "416x240"; fps; pix_fmt: a key of PIX_FMTS. matrix, range: None for the
    size's usual matrix and the pixel format's range. Raises VideoError if one of the first three
    is missing, or if the file is no whole number of such frames.
    """
    given = {"size": size, "fps": fps, "pix_fmt": pix_fmt}
    missing = [name for name, value in given.items() if value is None]
    if missing:
        named = path.suffix.lower() == ".yuv"
        why = "is raw video" if named else "with a size or pix_fmt is read as raw video"
        raise VideoError(
            f"{path} {why}, which has no header: give {', '.join(missing)} too "
            "(for example size 416x240, fps 25, pix_fmt yuv420p)"
            + ("" if named else ", or leave size and pix_fmt out")
        )
    if pix_fmt not in PIX_FMTS:
        raise VideoError(f"raw video has no pix_fmt {pix_fmt!r} here: give {' or '.join(PIX_FMTS)}")
    width, height = parse_size(size)
    chroma, depth, implied = PIX_FMTS[pix_fmt]
    format = VideoFormat(
        width,
        height,
        fps,
        chroma,
        depth,
        matrix or matrix_by_size(width, height),
        range or implied or "limited",
    )
    length = os.path.getsize(path)
    if length == 0:
        raise VideoError(f"{path} is empty: it holds no frame")
    count, rest = divmod(length, format.frame_bytes)
    if rest:
        raise VideoError(
            f"{path} has {length} bytes, which is no whole number of {width}x{height} {pix_fmt} "
            f"frames ({format.frame_bytes} bytes each, {count} and {rest} bytes over): "
            "check size and pix_fmt"
        )
    stream = open(path, "rb")
    frames = _frames(stream, format, str(path))
    return VideoReader(str(path), format, frames, frame_count=count, close=stream.close)


def parse_size(size: tuple[int, int] | str) -> tuple[int, int]:
    """(width, height) of a pair or of a string like "416x240"."""
    try:
        parts = size.lower().split("x") if isinstance(size, str) else tuple(size)
        width, height = (int(part) for part in parts)
    except (TypeError, ValueError):
        raise VideoError(f"size {size!r} is not WIDTHxHEIGHT, such as 416x240") from None
    return width, height


class RawSink:
    """Writes the planes of frames to a binary stream; the caller owns the stream."""

    def __init__(self, stream: BinaryIO, format: VideoFormat) -> None:
        self._stream = stream
        self._format = format

    def write(self, frame: Frame) -> None:
        write_planes(self._stream, frame, self._format)

    def finish(self) -> None:
        self._stream.flush()

    def discard(self) -> None:
        """Nothing of ours to let go of."""


def _frames(stream: BinaryIO, format: VideoFormat, name: str) -> Iterator[Frame]:
    while True:
        frame, got = read_planes(stream, format)
        if frame is None:
            if got:
                raise VideoError(f"{name} grew shorter while it was read: its last frame is cut")
            return
        yield check_sample_range(frame, format, name)
