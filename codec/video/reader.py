"""Opening a video, whatever it is: one function chooses who reads it."""

from __future__ import annotations

import operator
import os
import stat
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

from codec.errors import VideoError
from codec.standard_input import standard_input
from codec.video.format import MATRICES, RANGES, check_choice, parse_fps
from codec.video.source import VideoReader
from codec.video.timing import resample, resampled_count
from codec.video.y4m import MAGIC, open_y4m, readable_chroma

__all__ = ["VideoReader", "open_reader"]


def open_reader(
    source: str | os.PathLike,
    *,
    size: tuple[int, int] | str | None = None,
    fps: Fraction | int | float | str | None = None,
    pix_fmt: str | None = None,
    matrix: str | None = None,
    range: str | None = None,
    frames: int | None = None,
    resample_fps: Fraction | int | float | str | None = None,
) -> VideoReader:
    """Open a video for reading, frame by frame; never more than a few frames are in memory.

    source: a path of raw .yuv, .y4m, a folder of PNG or JPEG pictures (rgb, natural order), or any
        file that FFmpeg reads; or "-" for y4m on standard input.
    size, pix_fmt: of raw video, and only of raw: (width, height) or "416x240", "yuv420p",
        "yuv444p", "yuv420p10le", "yuv444p10le". With them a file of any name is taken as raw.
    fps: frames per second of what has none of its own: raw video, pictures (default 25), y4m F0:0.
    matrix, range: "bt601" or "bt709", "limited" or "full", instead of what the source says. A
        source that says nothing is limited, and BT.709 from 1280 columns or above 576 lines.
    frames: stop after so many.
    resample_fps: change the frame rate, constant or not, to this one: each output time shows the
        frame nearest to it.

    Frames are taken as progressive and pixels as square. Where the source says otherwise, a
    VideoWarning does too, and where FFmpeg finds that packets of the file are not whole.

    Raises VideoError with one line that says what is wrong and what to do, here or, for damage
    further on, while iterating.
    """
    fps = None if fps is None else parse_fps(fps)
    resample_fps = None if resample_fps is None else parse_fps(resample_fps)
    if matrix is not None:
        check_choice("matrix", matrix, MATRICES)
    if range is not None:
        check_choice("range", range, RANGES)
    check_frames(frames)
    colour = {"matrix": matrix, "range": range}
    try:
        reader = _open(source, size, fps, pix_fmt, colour, frames, resample_fps)
    except OSError as exc:
        raise VideoError(f"{source} cannot be read: {exc.strerror or exc}") from exc
    return reader if frames is None else _limited(reader, frames)


def check_frames(frames: object) -> None:
    """Raise VideoError unless `frames`, a limit on how many are read, is None or 1 or more."""
    try:
        fits = frames is None or not isinstance(frames, bool) and operator.index(frames) >= 1
    except TypeError:
        fits = False
    if not fits:
        raise VideoError(f"frames must be a whole number from 1, not {frames!r}")


def _open(
    source: str | os.PathLike,
    size: tuple[int, int] | str | None,
    fps: Fraction | None,
    pix_fmt: str | None,
    colour: dict[str, str | None],
    frames: int | None,
    resample_fps: Fraction | None,
) -> VideoReader:
    is_stdin = os.fspath(source) == "-"
    path = Path(source)
    if not is_stdin:
        _check_exists(path)
    raw = not is_stdin and path.is_file() and (path.suffix.lower() == ".yuv" or size or pix_fmt)
    if (size or pix_fmt) and not raw:
        raise VideoError(f"{source}: size and pix_fmt are for raw .yuv files only: leave them out")
    if raw:
        from codec.video.raw import open_raw

        reader = open_raw(path, size=size, fps=fps, pix_fmt=pix_fmt, **colour)
    elif path.is_dir() and not is_stdin:
        from codec.video.images import open_images

        reader = open_images(path, fps=fps)
    elif is_stdin:
        reader = open_y4m(
            standard_input("y4m video", VideoError), "standard input", fps=fps, **colour
        )
    elif _is_y4m(path):
        reader = open_y4m(open(path, "rb"), str(path), fps=fps, **colour)
    else:
        from codec.video.container_reader import open_container

        reader = open_container(path, frames=frames, resample_fps=resample_fps, **colour)
        if fps is not None and fps != reader.format.fps:
            reader.close()
            raise VideoError(
                f"{source} has {reader.format.fps} frames/s of its own: use resample_fps to change "
                "it"
            )
        return reader
    return reader if resample_fps is None else _resampled(reader, resample_fps)


def _check_exists(path: Path) -> None:
    """VideoError for a path that is not there, or is empty."""
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise VideoError(f"{path} does not exist: check the name") from None
    except ValueError:
        raise VideoError(f"{path!r} is not a file name") from None
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise VideoError(f"{path} is empty: it holds no video")


def _is_y4m(path: Path) -> bool:
    """Whether a file is y4m that we read ourselves; other chroma formats of y4m go to FFmpeg.

    A named pipe cannot be looked into without eating what was read, so it is y4m or nothing."""
    if not path.is_file():
        return True
    with open(path, "rb") as stream:
        line = stream.readline(4096)
    if not line.startswith(MAGIC):
        if path.suffix.lower() == ".y4m":
            raise VideoError(f"{path} is not YUV4MPEG2 video though its name ends in .y4m")
        return False
    return readable_chroma(line)


def _limited(reader: VideoReader, frames: int) -> VideoReader:
    count = reader.frame_count
    return VideoReader(
        reader.name,
        reader.format,
        islice(reader, frames),
        frame_count=None if count is None else min(count, frames),
        close=reader.close,
    )


def _resampled(reader: VideoReader, rate: Fraction) -> VideoReader:
    """A reader of constant rate as one of another constant rate."""
    period = 1 / reader.format.fps
    count = reader.frame_count
    if count is not None:
        count = resampled_count(Fraction(0), (count - 1) * period, rate, period)
    timed = ((index * period, frame) for index, frame in enumerate(reader))
    return VideoReader(
        reader.name,
        replace(reader.format, fps=rate),
        resample(timed, rate, period),
        frame_count=count,
        close=reader.close,
    )
