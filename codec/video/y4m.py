"""YUV4MPEG2: raw planes with a one-line header; the form in which video comes and goes by pipe.

The header is `YUV4MPEG2 W416 H240 F25:1 Ip A1:1 C420jpeg XCOLORRANGE=LIMITED`, and every frame is
`FRAME` and a newline before its planes. Chroma tags read: C420, C420jpeg, C420mpeg2, C420paldv,
C444, C420p10, C444p10 (the siting is not told apart, see colour.py). Written: C420mpeg2, C444,
C420p10, C444p10. The format has no word for the matrix: ours writes XMATRIX=BT601 or
XMATRIX=BT709, which others pass over, and without it `matrix_by_size` guesses as players do.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from fractions import Fraction
from typing import BinaryIO

from codec.errors import VideoError
from codec.video.format import MATRICES, MAX_SIDE, Frame, VideoFormat, parse_fps
from codec.video.planar import read_planes, write_all, write_planes
from codec.video.signalling import matrix_by_size
from codec.video.source import VideoReader, check_sample_range, warn_unheeded

MAGIC = b"YUV4MPEG2"
_MAX_LINE = 4096  # bytes; a header without end is not a header
_CHROMA = {
    "420": ("420", 8),
    "420jpeg": ("420", 8),
    "420mpeg2": ("420", 8),
    "420paldv": ("420", 8),
    "444": ("444", 8),
    "420p10": ("420", 10),
    "444p10": ("444", 10),
}
_TAG = {
    ("420", 8): "420mpeg2",
    ("444", 8): "444",
    ("420", 10): "420p10 XYSCSS=420P10",
    ("444", 10): "444p10 XYSCSS=444P10",
}


def open_y4m(
    stream: BinaryIO,
    name: str,
    *,
    fps: Fraction | None = None,
    matrix: str | None = None,
    range: str | None = None,
) -> VideoReader:
    """Frames of a YUV4MPEG2 stream, read as they are asked for; `stream` is closed with the reader.

    fps: for a header that leaves the rate open (F0:0). matrix, range: instead of what the header
    says. Raises VideoError for a damaged or foreign header here, and for a stream that ends within
    a frame while iterating.
    """
    try:
        line = _read_line(stream, name)
        format = parse_header(line, name, fps=fps, matrix=matrix, range=range)
        count = _count_frames(stream, len(line) + 1, format, name)
        fields = _fields(line)
        warn_unheeded(name, fields.get("I") in ("t", "b", "m"), _pixel(fields.get("A", "")))
    except BaseException:
        stream.close()
        raise
    frames = _frames(stream, format, name)
    return VideoReader(name, format, frames, frame_count=count, close=stream.close)


def parse_header(
    line: bytes,
    name: str,
    *,
    fps: Fraction | None = None,
    matrix: str | None = None,
    range: str | None = None,
) -> VideoFormat:
    """The VideoFormat of a header line (without its newline)."""
    words = line.decode("ascii", "replace").split(" ")
    if words[0].encode() != MAGIC:
        raise VideoError(
            f"{name} is not YUV4MPEG2 video: make it with ffmpeg -i FILE -f yuv4mpegpipe -"
        )
    fields = _fields(line)
    extras = [word for word in words[1:] if word.startswith("X")]
    width, height = (_side(fields.get(key, ""), key, name) for key in "WH")
    said_matrix = next((one for one in MATRICES if f"XMATRIX={one.upper()}" in extras), None)
    chroma, depth = _chroma(fields.get("C", "420"), name)
    return VideoFormat(
        width,
        height,
        _rate(fields.get("F", "0:0"), name, fps),
        chroma,
        depth,
        matrix or said_matrix or matrix_by_size(width, height),
        range or ("full" if "XCOLORRANGE=FULL" in extras else "limited"),
    )


def _fields(line: bytes) -> dict[str, str]:
    """The header's words by their first letter, without those of extensions."""
    words = line.decode("ascii", "replace").split(" ")[1:]
    return {word[0]: word[1:] for word in words if word and word[0] != "X"}


def readable_chroma(line: bytes) -> bool:
    """Whether a header line names a chroma format that this module reads."""
    tags = [word[1:] for word in line.decode("ascii", "replace").split() if word.startswith("C")]
    return not tags or tags[0] in _CHROMA


class Y4mSink:
    """Writes frames as YUV4MPEG2 to a binary stream; the caller owns the stream."""

    def __init__(self, stream: BinaryIO, format: VideoFormat) -> None:
        self._stream = stream
        self._format = format
        rate = f"{format.fps.numerator}:{format.fps.denominator}"
        tag = _TAG[format.chroma, format.bit_depth]
        header = (
            f"{MAGIC.decode()} W{format.width} H{format.height} F{rate} Ip A1:1 C{tag} "
            f"XCOLORRANGE={format.range.upper()} XMATRIX={format.matrix.upper()}\n"
        )
        write_all(stream, header.encode("ascii"))

    def write(self, frame: Frame) -> None:
        write_planes(self._stream, frame, self._format, b"FRAME\n")

    def finish(self) -> None:
        self._stream.flush()

    def discard(self) -> None:
        """Nothing of ours to let go of."""


def _frames(stream: BinaryIO, format: VideoFormat, name: str) -> Iterator[Frame]:
    index = 0
    while line := _read_line(stream, name, at_start=False):
        if line.split(b" ")[0] != b"FRAME":
            raise VideoError(f"{name} is damaged: no FRAME mark before frame {index}")
        frame, got = read_planes(stream, format)
        if frame is None:
            raise VideoError(
                f"{name} ends within frame {index}: {got} of {format.frame_bytes} bytes are there"
            )
        yield check_sample_range(frame, format, name)
        index += 1
    if index == 0:
        raise VideoError(f"{name} holds no frame: the program that made it wrote a header only")


def _read_line(stream: BinaryIO, name: str, at_start: bool = True) -> bytes:
    """The next line without its newline; b"" at the end of the stream (an error at the start)."""
    line = stream.readline(_MAX_LINE)
    if not line and at_start:
        raise VideoError(f"{name} is empty: expected YUV4MPEG2 video")
    if line and not line.endswith(b"\n"):
        if at_start:
            raise VideoError(f"{name} is not YUV4MPEG2 video: its first line has no end")
        raise VideoError(f"{name} is damaged: it ends, or has no line end, in a frame's mark")
    return line[:-1]


def _count_frames(stream: BinaryIO, start: int, format: VideoFormat, name: str) -> int | None:
    """Frames of a regular file if all marks are plain; None where that does not come out even."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, AttributeError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    if status.st_size <= start:
        raise VideoError(f"{name} holds no frame: the program that made it wrote a header only")
    count, rest = divmod(status.st_size - start, len(b"FRAME\n") + format.frame_bytes)
    return count if rest == 0 else None


def _side(text: str, key: str, name: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:9]) <= MAX_SIDE):
        raise VideoError(
            f"{name}: the YUV4MPEG2 header's size {key}{text[:20]} is not 1 to {MAX_SIDE} pixels"
        )
    return int(text)


def _rate(text: str, name: str, fps: Fraction | None) -> Fraction:
    """Frames per second of "30000:1001"; `fps` where the header leaves it open."""
    numerator, _, denominator = text.partition(":")
    if not (text.isascii() and numerator.isdigit() and denominator.isdigit() and len(text) < 40):
        raise VideoError(f"{name}: the YUV4MPEG2 header's frame rate F{text[:20]} is no ratio")
    if int(numerator) and int(denominator):
        own = Fraction(int(numerator), int(denominator))
        if fps is not None and fps != own:
            raise VideoError(f"{name} has {own} frames/s of its own: use resample_fps to change it")
        return own
    if fps is None:
        raise VideoError(f"{name}: the YUV4MPEG2 header names no frame rate: give fps")
    return parse_fps(fps)


def _pixel(text: str) -> Fraction | None:
    """Width over height of a pixel of "16:11"; None for "0:0", which says nothing."""
    try:
        return Fraction(text.replace(":", "/"))
    except (ValueError, ZeroDivisionError):
        return None


def _chroma(tag: str, name: str) -> tuple[str, int]:
    if tag not in _CHROMA:
        raise VideoError(
            f"{name}: YUV4MPEG2 chroma C{tag} is not read; convert with ffmpeg -pix_fmt to one of "
            "yuv420p, yuv444p, yuv420p10le, yuv444p10le (10 bit needs -strict -1)"
        )
    return _CHROMA[tag]
