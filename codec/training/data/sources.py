"""Finds the clips under the configured paths, and holds some of them out."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from codec.config import DataConfig
from codec.errors import ConfigError
from codec.training.data.cache import cached
from codec.training.data.clips import Clip, FolderClip

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".y4m", ".ts", ".m4v"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


def find_clips(data: DataConfig, cache: Path) -> list[Clip]:
    """All clips under the configured paths, in an order that does not depend on the disk.

    Raises:
        ConfigError: a path holds no clip.
    """
    clips: list[Clip] = []
    for text in data.paths:
        root = Path(text).expanduser()
        found = _clips_under(root, cache)
        if not found:
            raise ConfigError(
                f"{root}: no video, no folder of frames and no Vimeo-90k there; "
                "set training.data.paths"
            )
        clips += found
    if data.synthetic:
        clips += _synthetic_clips(cache)
    if not clips:
        raise ConfigError("training.data.paths is empty: name videos or folders to train on")
    return clips


def split(clips: list[Clip], holdout: float) -> tuple[list[Clip], list[Clip]]:
    """Training and held-out clips; which is which depends on the names alone."""
    count = min(round(holdout * len(clips)), len(clips) - 1)
    ranked = sorted(clips, key=lambda c: hashlib.sha256(c.name.encode()).hexdigest())
    held = {id(clip) for clip in ranked[:count]}
    return [c for c in clips if id(c) not in held], [c for c in clips if id(c) in held]


def _clips_under(root: Path, cache: Path) -> list[Clip]:
    if root.is_file():
        return [cached(root, cache)]
    if (root / "sequences").is_dir() and (root / "sep_trainlist.txt").is_file():
        names = (root / "sep_trainlist.txt").read_text().split()
        return [clip for name in names if (clip := _folder(root / "sequences" / name))]
    clips: list[Clip] = []
    for folder in [root, *sorted(p for p in root.rglob("*") if p.is_dir())]:
        clip = _folder(folder)
        if clip:
            clips.append(clip)
        videos = [p for p in sorted(folder.iterdir()) if p.suffix.lower() in VIDEO_SUFFIXES]
        with ThreadPoolExecutor() as pool:  # decoders work outside the interpreter's lock
            clips += pool.map(lambda video: cached(video, cache), videos)
    return clips


def _folder(folder: Path) -> FolderClip | None:
    from PIL import Image

    if not folder.is_dir():
        return None
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    if not files:
        return None
    files.sort(key=lambda p: (len(p.stem), p.stem))
    with Image.open(files[0]) as image:
        width, height = image.size
    return FolderClip(f"{folder.parent.name}/{folder.name}", files, height, width)


def _synthetic_clips(cache: Path) -> list[Clip]:
    """A few clips with known motion, so that a run needs nothing from outside."""
    from codec.video.synthetic import write_synthetic

    clips: list[Clip] = []
    cache.mkdir(parents=True, exist_ok=True)
    for kind in ("pan", "zoom", "rotation", "occluder", "layers"):
        file = cache / f"synthetic-{kind}.y4m"
        if not file.exists():
            write_synthetic(kind, file, width=192, height=160, frames=12, seed=1)
        clips.append(cached(file, cache))
    return clips
