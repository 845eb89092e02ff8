"""Writing a video: one function chooses how, and nothing half-written keeps the target's name."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from codec.errors import VideoError
from codec.video.format import Frame, VideoFormat
from codec.video.images import PngSink
from codec.video.raw import RawSink
from codec.video.target import FileTarget, FolderTarget, StandardOutput
from codec.video.y4m import Y4mSink

_FILE_KINDS = (".y4m", ".yuv", ".mp4", ".mkv")


class ClosedPipeError(VideoError, BrokenPipeError):
    """Whoever read our output has gone (a player was closed): a program ends quietly on it."""


def open_writer(
    target: str | os.PathLike, format: VideoFormat, *, overwrite: bool = True
) -> VideoWriter:
    """Open a target for frames of `format`.

    target: .y4m; .yuv (raw planes); .mp4 (H.264 crf 10); .mkv (FFV1, lossless); a name without an
        extension, with "/" at its end, or of an existing folder: PNG pictures 00000.png, ...; or
        "-": y4m on standard output.
    overwrite: whether an existing target is replaced. A folder is only ever replaced if it holds
        nothing but such numbered pictures.

    What a target cannot hold is converted (colour.py): rgb in .y4m, .yuv and .mp4 becomes 4:4:4
    BT.709 limited of the same depth, 4:2:0 of an odd size in .mp4 becomes 4:4:4, and pictures are
    8-bit rgb. `VideoWriter.stored` tells. All is written under a temporary name in the same folder
    and renamed by `close`. Raises VideoError with one line.
    """
    with _as_video_error(target):
        kind = _kind_of(target)
        writer = VideoWriter(target, kind, format, overwrite)
    return writer


class VideoWriter:
    """Takes the frames of one video in order. A context manager: closes on success, and on any
    exception (KeyboardInterrupt too) aborts, which leaves nothing behind.

    format: of the frames given; stored: of the frames in the file; frames_written: so far.
    """

    def __init__(
        self, target: str | os.PathLike, kind: str, format: VideoFormat, overwrite: bool
    ) -> None:
        self.name = "standard output" if kind == "-" else os.fspath(target)
        self.format = format
        self.stored = stored_format(format, kind)
        self.frames_written = 0
        self._open = False
        self._target = _target_of(target, kind, overwrite)
        try:
            self._sink = _sink_of(self._target, kind, self.stored)
        except BaseException:
            self._target.discard()
            raise
        self._open = True

    def write(self, frame: Frame) -> None:
        """Append a frame. Raises VideoError (and aborts) if it cannot be stored, ClosedPipeError if
        nobody reads standard output any more."""
        if not self._open:
            raise ValueError("the video writer is closed")
        with self._abort_on_error():
            self.format.check_frame(frame)
            self._sink.write(self._as_stored(frame))
        self.frames_written += 1

    def _as_stored(self, frame: Frame) -> Frame:
        if self.stored == self.format:
            return frame
        from codec.video.colour import convert_frame  # brings torch, which most targets do without

        return convert_frame(frame, self.format, self.stored)

    def close(self) -> None:
        """Finish the video and give it its name. Does nothing once closed or aborted."""
        if not self._open:
            return
        with self._abort_on_error():
            if self.frames_written == 0:
                raise VideoError(f"{self.name} would hold no frame: it is not written")
            self._sink.finish()
            self._target.commit()
        self._open = False

    def abort(self) -> None:
        """Remove all that was written. Does nothing once closed or aborted."""
        if self._open:
            self._open = False
            self._sink.discard()
            self._target.discard()

    def __enter__(self) -> VideoWriter:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.close()
        else:
            self.abort()

    def __del__(self) -> None:
        if getattr(self, "_open", False):
            self.abort()

    @contextmanager
    def _abort_on_error(self) -> Iterator[None]:
        try:
            with _as_video_error(self.name):
                yield
        except BaseException:
            self.abort()
            raise


def stored_format(format: VideoFormat, kind: str) -> VideoFormat:
    """The format in which a kind of target (".mp4", "folder", "-") holds frames of `format`."""
    if kind == "folder":
        return replace(format, chroma="rgb", bit_depth=8)
    if format.chroma == "rgb" and kind != ".mkv":
        return replace(format, chroma="444", matrix="bt709", range="limited")
    odd = format.width % 2 == 1 or format.height % 2 == 1
    if kind == ".mp4" and format.chroma == "420" and odd:  # H.264 has 4:2:0 in even sizes only
        return replace(format, chroma="444")
    return format


def _kind_of(target: str | os.PathLike) -> str:
    """A file's suffix, "folder", or "-"."""
    text = os.fspath(target)
    if not text:
        raise VideoError("a video cannot be written without a name: give a file or a folder")
    if text == "-":
        return "-"
    path = Path(text)
    suffix = path.suffix.lower()
    if text.endswith(("/", os.sep)) or not suffix or (path.is_dir() and suffix not in _FILE_KINDS):
        return "folder"
    if suffix not in _FILE_KINDS:
        raise VideoError(
            f"{text} cannot be written: {suffix} is none of {', '.join(_FILE_KINDS)} "
            "or a folder for PNG pictures"
        )
    return suffix


def _target_of(
    target: str | os.PathLike, kind: str, overwrite: bool
) -> FileTarget | FolderTarget | StandardOutput:
    if kind == "-":
        return StandardOutput()
    path = Path(target)
    return FolderTarget(path, overwrite) if kind == "folder" else FileTarget(path, overwrite)


def _sink_of(target: FileTarget | FolderTarget | StandardOutput, kind: str, format: VideoFormat):
    """What writes frames of `format` into an open target."""
    if kind == "folder":
        return PngSink(target.folder)
    if kind == ".yuv":
        return RawSink(target.stream, format)
    if kind in (".mp4", ".mkv"):
        from codec.video.container_writer import ContainerSink

        return ContainerSink(target.stream, format, kind)
    return Y4mSink(target.stream, format)


@contextmanager
def _as_video_error(target: str | os.PathLike) -> Iterator[None]:
    """Turns what the system and FFmpeg say into one line about the target."""
    try:
        yield
    except VideoError:
        raise
    except BrokenPipeError:
        StandardOutput.mute()
        raise ClosedPipeError(f"{target}: nobody reads it any more") from None
    except Exception as exc:
        if type(exc).__module__.startswith("av."):  # av itself is loaded only where it is used
            reason = getattr(exc, "strerror", None) or type(exc).__name__
            raise VideoError(f"{target} cannot be encoded by FFmpeg: {reason}") from exc
        if isinstance(exc, OSError):
            raise VideoError(f"{target} cannot be written: {_reason(exc)}") from exc
        raise


def _reason(exc: OSError) -> str:
    if exc.errno == errno.ENOSPC:
        return "the disk is full, free some space or choose another place"
    if exc.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return "no permission to write there, choose another place"
    return exc.strerror or str(exc)
