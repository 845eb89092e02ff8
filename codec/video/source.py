"""What every reader is: a format and a single pass over frames, whatever they come from."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from fractions import Fraction

from codec.errors import VideoError, VideoWarning
from codec.video.format import Frame, VideoFormat


class VideoReader:
    """Frames of one video, in order, one at a time.

    format: the VideoFormat of every frame. frame_count: how many there will be, None where that is
    not known before the end (a pipe, a damaged index). Iterating yields the frames once;
    they may be kept, and are not to be changed (resampling shows one twice). Errors met on the way
    are VideoError. A context
    manager; `close` may be called at any time and more than once.
    """

    def __init__(
        self,
        name: str,
        format: VideoFormat,
        frames: Iterator[Frame],
        *,
        frame_count: int | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        self.name = name
        self.format = format
        self.frame_count = frame_count
        self._frames = frames
        self._close = close

    def __iter__(self) -> Iterator[Frame]:
        return self

    def __next__(self) -> Frame:
        try:
            return next(self._frames)
        except OSError as exc:
            reason = exc.strerror or exc
            raise VideoError(f"{self.name} cannot be read on: {reason}") from exc

    def close(self) -> None:
        """Let go of the file or pipe; iteration ends."""
        self._frames = iter(())
        self._close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def warn_broken(name: str) -> None:
    """Warn that frames are missing, or made up by FFmpeg's decoder."""
    warnings.warn(
        f"{name} is damaged or cut off: frames at the damage are left out or guessed, fetch the "
        "file again",
        VideoWarning,
        stacklevel=2,
    )


def warn_unheeded(name: str, interlaced: bool, pixel: Fraction | None) -> None:
    """Warn of fields, and of pixels (`pixel`: width over height) that are not square."""
    if interlaced:
        warnings.warn(
            f"{name} is interlaced and taken as progressive, with two moments in each picture: "
            "deinterlace it first (ffmpeg -vf yadif)",
            VideoWarning,
            stacklevel=2,
        )
    if pixel and abs(pixel - 1) > Fraction(1, 100):  # nearer ones are scaling's rounded sizes
        warnings.warn(
            f"{name} has pixels of {pixel.numerator}:{pixel.denominator}, which are taken as "
            "square: scale it first (ffmpeg -vf scale=iw*sar:ih,setsar=1)",
            VideoWarning,
            stacklevel=2,
        )


def check_sample_range(frame: Frame, format: VideoFormat, name: str) -> Frame:
    """The frame itself; VideoError where a sample needs more bits than the format has (10-bit
    samples lie in two bytes, and a wrong pix_fmt or byte order shows here)."""
    if format.bit_depth != 8:
        top = max(int(plane.max()) for plane in frame)
        if top > format.max_value:
            raise VideoError(
                f"{name}: a sample is {top}, above the {format.max_value} of {format.bit_depth} "
                "bit: the file has another pixel format or byte order, give the right pix_fmt"
            )
    return frame
