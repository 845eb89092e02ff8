"""Finds videos and folders of frames under a path, before anything of them is decoded."""

from pathlib import Path
from typing import NamedTuple

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".y4m", ".ts", ".m4v"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


class Source(NamedTuple):
    """A clip before it is decoded: a video file, or a folder of frames where ``files`` are."""

    name: str
    path: Path
    files: tuple[Path, ...] = ()


def find_sources(root: Path) -> list[Source]:
    """The videos and folders of frames under a path, in an order that does not depend on the disk.

    Of a Vimeo-90k root the clips of its training list.
    """
    if root.is_file():
        return [Source(root.name, root)]
    if (root / "sequences").is_dir() and (root / "sep_trainlist.txt").is_file():
        names = (root / "sep_trainlist.txt").read_text().split()
        return [one for name in names if (one := _folder(root / "sequences" / name))]
    sources: list[Source] = []
    if not root.is_dir():
        return sources
    for folder in [root, *sorted(p for p in root.rglob("*") if p.is_dir())]:
        one = _folder(folder)
        if one:
            sources.append(one)
        videos = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES]
        sources += [Source(video.name, video) for video in videos]
    return sources


def _folder(folder: Path) -> Source | None:
    if not folder.is_dir():
        return None
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        return None
    files.sort(key=lambda p: (len(p.stem), p.stem))
    return Source(f"{folder.parent.name}/{folder.name}", folder, tuple(files))
