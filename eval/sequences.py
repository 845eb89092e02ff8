"""The sequences of an evaluation: what a path holds, with formats, lengths and digests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import ConfigError, VideoError
from codec.video.format import VideoFormat
from eval.testsets.prepared import read_prepared

if TYPE_CHECKING:
    from codec.video.format import Frame
    from codec.video.reader import VideoReader

VIDEO_SUFFIXES = frozenset(
    ".y4m .yuv .mp4 .mkv .mov .avi .webm .m4v .ts .264 .h264 .265 .hevc .obu .266 .nut".split()
)


@dataclass(frozen=True)
class Sequence:
    """The first ``frames`` frames of one clip.

    name: unique within an evaluation. digest: SHA-256 of the format and of these frames' planes,
    the same however the clip is stored. reader_options: how a raw file is read (size, fps, pix_fmt,
    matrix, range), as codec.video.reader.open_reader takes them.
    """

    name: str
    path: Path
    format: VideoFormat
    frames: int
    digest: str
    reader_options: dict[str, Any] = field(default_factory=dict)

    def open(self) -> VideoReader:
        """A fresh reader of exactly these frames; use it in a with statement."""
        from codec.video.reader import open_reader

        return open_reader(self.path, frames=self.frames, **self.reader_options)

    def checked(self, reader: VideoReader) -> Iterator[Frame]:
        """The reader's frames, which have to be those that ``digest`` names.

        Raises VideoError after the last one if they are not: the file changed since, or lies on
        another machine under the same name.
        """
        digest = FrameDigest(reader.format)
        for frame in reader:
            digest.add(frame)
            yield frame
        if digest.hex() != self.digest:
            raise VideoError(
                f"{self.path.name} is not the clip that was listed: leave it alone during a run, "
                "and on a cluster let all workers see the same file"
            )

    @property
    def pixels(self) -> int:
        """Luma pixels of all frames: what bits per pixel are divided by."""
        return self.format.width * self.format.height * self.frames


class FrameDigest:
    """SHA-256 of a format and of the planes of frames, whatever file they come from."""

    def __init__(self, video_format: VideoFormat) -> None:
        self._digest = hashlib.sha256(f"{video_format!r}".encode())

    def add(self, frame: Frame) -> None:
        """The next frame."""
        for plane in frame:
            self._digest.update(plane.data)

    def hex(self) -> str:
        """Of everything so far."""
        return self._digest.hexdigest()


def find_sequences(
    path: str | Path,
    *,
    frames: int | None = None,
    unreadable: dict[str, str] | None = None,
    **reader_options: Any,
) -> list[Sequence]:
    """The sequences at ``path``, sorted by name.

    path: one video file, one folder of images (one sequence), or a folder whose video files and
    folders of images are a sequence each; other files in it are passed over. frames: at most so
    many from the start of each, all when None. A reader option that is None counts as not given.
    Every sequence is read once, to count its frames and to know it by its digest. unreadable: gets
    name and reason of each clip that cannot be read, where others can.

    Raises ConfigError for frames < 1, VideoError where there is nothing, or a clip cannot be read
    and ``unreadable`` is None or no clip can.
    """
    if frames is not None and frames < 1:
        raise ConfigError(f"the number of frames must be at least 1, not {frames}")
    found, first = [], None
    for place, name in find_clips(Path(path)):
        try:
            found.append(read_sequence(place, name, frames, **reader_options))
        except VideoError as exc:
            if unreadable is None:
                raise
            first = first or exc
            unreadable[name] = str(exc)
    if first is not None and not found:
        raise first
    return found


def find_clips(path: Path) -> list[tuple[Path, str]]:
    """The clips at a path with their names, as ``find_sequences`` takes them; nothing is read."""
    places = clip_paths(path)
    return list(zip(places, _unique_names(places), strict=True))


def _prepared_rate(place: Path) -> dict[str, str]:
    """The frame rate of a folder of pictures that ``lgmc data prepare`` made."""
    prepared = read_prepared(place.parent) if place.is_dir() else None
    known = prepared.sequences.get(place.name) if prepared else None
    return {"fps": known.fps} if known else {}


def clip_paths(path: Path) -> list[Path]:
    """Where the clips at a path are: itself, or what of a folder is a video or holds pictures.

    Clips in a folder count before loose pictures beside them. Raises VideoError where there is
    nothing.
    """
    if not path.exists():
        raise VideoError(f"{path} does not exist: give a video file or a folder of clips")
    if not path.is_dir():
        return [path]
    entries = sorted(entry for entry in path.iterdir() if not entry.name.startswith("."))
    places = [
        entry
        for entry in entries
        if (entry.is_dir() and holds_images(entry))
        or (entry.is_file() and entry.suffix.lower() in VIDEO_SUFFIXES)
    ]
    if not places and holds_images(path):
        return [path]
    if not places:
        raise VideoError(f"{path} holds no video files and no pictures: give a folder of clips")
    return places


def holds_images(folder: Path) -> bool:
    """Whether pictures lie directly in a folder."""
    from codec.video.images import SUFFIXES

    return any(entry.suffix.lower() in SUFFIXES for entry in folder.iterdir())


def _unique_names(places: list[Path]) -> list[str]:
    """The stem of each path, or its whole name where two stems are equal."""
    stems = [place.name if place.is_dir() else place.stem for place in places]
    return [
        stem if stems.count(stem) == 1 else place.name
        for stem, place in zip(stems, places, strict=True)
    ]


def read_sequence(
    path: Path, name: str, frames: int | None = None, **reader_options: Any
) -> Sequence:
    """One of ``clip_paths`` as a sequence of that name, options as for ``find_sequences``.

    Raises VideoError where it cannot be read or has no frames.
    """
    from codec.video.reader import open_reader

    given = {option: value for option, value in reader_options.items() if value is not None}
    options = {**_prepared_rate(path), **given}
    with open_reader(path, frames=frames, **options) as reader:
        video_format = reader.format
        digest = FrameDigest(video_format)
        count = 0
        for frame in reader:
            digest.add(frame)
            count += 1
    if count == 0:
        raise VideoError(f"{path} has no frames")
    return Sequence(name, path, video_format, count, digest.hex(), options)
