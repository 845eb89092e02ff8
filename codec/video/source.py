"""What every reader is: a format and a single pass over frames, whatever they come from."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from codec.errors import VideoError
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
