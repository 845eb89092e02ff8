"""From a video's planes to those that an anchor is given, and back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from codec.video.format import Frame, VideoFormat


def coded_format(video_format: VideoFormat, bit_depth: int | None = None) -> VideoFormat:
    """What an anchor is given for a video of this format.

    Y'CbCr as it is, but 4:2:0 of odd size padded to even (the encoders refuse it), and RGB as
    4:4:4 BT.709 limited range, through codec.video.colour both ways. bit_depth: of the encoder,
    the video's own when None.
    """
    coded = replace(video_format, bit_depth=bit_depth or video_format.bit_depth)
    if video_format.chroma == "rgb":
        return replace(coded, chroma="444", matrix="bt709", range="limited")
    if video_format.chroma == "420":
        width, height = (side + side % 2 for side in (video_format.width, video_format.height))
        return replace(coded, width=width, height=height)
    return coded


def as_coded(
    frames: Iterable[Frame], video_format: VideoFormat, coded: VideoFormat
) -> Iterator[Frame]:
    """The frames in the format ``coded``, which ``coded_format`` gave for ``video_format``.

    Padding repeats the last row and column; two more bits are a multiplication by 4.
    """
    shift = coded.bit_depth - video_format.bit_depth
    for frame in frames:
        if video_format.chroma == "rgb":
            from codec.video.colour import convert_frame

            yield convert_frame(frame, video_format, coded)
            continue
        y, *chroma = frame  # chroma is rounded up already, only luma lacks a row or column
        pad = ((0, coded.height - y.shape[0]), (0, coded.width - y.shape[1]))
        if pad != ((0, 0), (0, 0)):
            y = np.pad(y, pad, mode="edge")
        if shift:
            yield tuple(plane.astype(coded.dtype) << shift for plane in (y, *chroma))
        else:
            yield (y, *chroma)


def from_coded(frame: Frame, video_format: VideoFormat, coded: VideoFormat) -> Frame:
    """A decoded frame in the format of the video; what was scaled up is rounded to nearest."""
    if video_format.chroma == "rgb":
        from codec.video.colour import convert_frame

        return convert_frame(frame, coded, video_format)
    y, *chroma = frame
    planes = (np.ascontiguousarray(y[: video_format.height, : video_format.width]), *chroma)
    shift = coded.bit_depth - video_format.bit_depth
    if shift:
        half, top = 1 << (shift - 1), video_format.max_value
        rounded = (np.minimum((plane + half) >> shift, top) for plane in planes)
        planes = tuple(plane.astype(video_format.dtype) for plane in rounded)
    return planes


def raw_input(coded: VideoFormat) -> dict[str, str]:
    """FFmpeg's options of raw planes on its input."""
    size = f"{coded.width}x{coded.height}"
    rate = str(coded.fps)
    return {"f": "rawvideo", "pix_fmt": coded.pix_fmt, "s": size, "framerate": rate}


def planes_of(data: bytes, coded: VideoFormat) -> Frame:
    """One frame of raw planes, ``coded.frame_bytes`` long, as arrays."""
    samples = np.frombuffer(data, dtype=coded.dtype)
    planes, start = [], 0
    for height, width in coded.plane_shapes():
        planes.append(samples[start : start + height * width].reshape(height, width))
        start += height * width
    return tuple(planes)
