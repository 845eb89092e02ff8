"""Planes of one frame to and from a byte stream, the part that .y4m and .yuv share."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from codec.video.format import Frame, VideoFormat


def read_planes(stream: BinaryIO, format: VideoFormat) -> tuple[Frame | None, int]:
    """(frame, bytes got): the next frame_bytes bytes of `stream` as little-endian planes, or None
    and how many bytes there were where the stream ends first."""
    buffer = np.empty(format.frame_bytes, dtype=np.uint8)
    view = memoryview(buffer)
    got = 0
    while got < len(view):
        count = stream.readinto(view[got:])
        if not count:
            return None, got
        got += count
    return split_planes(buffer, format), got


def split_planes(buffer: np.ndarray, format: VideoFormat) -> Frame:
    """Views of a frame's raw bytes as its three planes."""
    samples = buffer.view(np.dtype(format.dtype).newbyteorder("<")).astype(format.dtype, copy=False)
    planes = []
    start = 0
    for height, width in format.plane_shapes():
        planes.append(samples[start : start + height * width].reshape(height, width))
        start += height * width
    return tuple(planes)


def write_planes(stream: BinaryIO, frame: Frame, format: VideoFormat, mark: bytes = b"") -> None:
    """Append `mark` and a frame's planes to `stream`, two-byte samples little-endian, at once."""
    little = np.dtype(format.dtype).newbyteorder("<")
    write_all(stream, b"".join((mark, *(np.ascontiguousarray(p, little).data for p in frame))))


def write_all(stream: BinaryIO, data: np.ndarray | bytes) -> None:
    """Write every byte, also to an unbuffered stream, whose write may take only a part."""
    view = memoryview(data)
    while len(view):
        count = stream.write(view)
        view = view[len(view) if count is None else count :]
