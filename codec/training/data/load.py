"""Opens the clips under the configured paths, holds some of them out and filters the others."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from codec.config import DataConfig
from codec.errors import ConfigError
from codec.training.data.cache import cached
from codec.training.data.clips import CachedClip, Clip, FolderClip
from codec.training.data.shards import is_shards, open_shards
from codec.training.data.shots import Report, judge
from codec.training.data.sources import Source, find_sources


class Clips(NamedTuple):
    """What a run learns from.

    Attributes:
        trained: clips with their shots, at least one.
        held_out: as they are: what validations are compared by does not depend on the filter.
        report: what was cut and left out of those that are trained on.
    """

    trained: list[Clip]
    held_out: list[Clip]
    report: Report


def load_clips(data: DataConfig, cache: Path) -> Clips:
    """All clips under the configured paths, split and filtered as is configured.

    Raises:
        ConfigError: a path holds no clip, or the filter leaves none.
    """
    report = Report()
    found, held_out = split(find_clips(data, cache, report), data.holdout)
    trained: list[Clip] = []
    for clip in found:
        if data.filter is not None and isinstance(clip, CachedClip) and clip.measures is not None:
            judged = judge(clip.measures, data.filter)
            report.add(clip.name, judged)
            if not judged.shots:
                continue
            clip = replace(clip, shots=judged.shots)
        trained.append(clip)
    if not trained:
        raise ConfigError(
            f"training data: nothing is left to train on, {report.line()}; change the limits of "
            "training.data.filter, or set it to null"
        )
    return Clips(trained, held_out, report)


def find_clips(data: DataConfig, cache: Path, report: Report | None = None) -> list[Clip]:
    """All clips under the configured paths, in an order that does not depend on the disk.

    Args:
        data: where they are; its filter says whether decoded frames are measured.
        cache: the folder for decoded planes.
        report: told of files in folders that cannot be decoded, if there is a filter; without a
            report they are errors.

    Raises:
        ConfigError: a path holds no clip, or one that cannot be decoded.
    """
    clips: list[Clip] = []
    for text in data.paths:
        root = Path(text).expanduser()
        found = _clips_under(root, cache, data, report)
        if not found:
            if report is not None and report.unreadable:
                raise ConfigError(report.unreadable[0])
            raise ConfigError(
                f"{root}: no video, no folder of frames, no Vimeo-90k and no shards there; "
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


def _clips_under(root: Path, cache: Path, data: DataConfig, report: Report | None) -> list[Clip]:
    look = data.filter is not None
    if is_shards(root):
        return open_shards(root)
    if root.is_file():
        return [cached(root, cache, look)]

    def load(source: Source) -> Clip | ConfigError:
        if source.files:
            return _folder_clip(source)
        try:
            return cached(source.path, cache, look)
        except ConfigError as error:
            if report is None or not look:
                raise
            return error

    sources = find_sources(root)
    with ThreadPoolExecutor() as pool:  # decoders work outside the interpreter's lock
        clips: list[Clip] = []
        for source, found in zip(sources, pool.map(load, sources), strict=True):
            if isinstance(found, ConfigError):
                report.cannot_be_read(source.name, str(found))
            else:
                clips.append(found)
    return clips


def _folder_clip(source: Source) -> FolderClip:
    from PIL import Image

    with Image.open(source.files[0]) as image:
        width, height = image.size
    return FolderClip(source.name, list(source.files), height, width)


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
