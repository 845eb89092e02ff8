"""Decoded clips packed into a few large files, for sets too large to be opened one by one.

    FOLDER/shards.json    every clip: its name, shard, offset, frames, format and measures
           00000.tar      one member of raw planes a clip, as they are cached; with others up to
           00001.tar      the size of a shard

The planes are not compressed and begin at multiples of 512 bytes, so a clip is a range of a
memory-mapped shard and any frame of it is read without those before it. What a step sees then
depends on the seed and the step alone, as with clips in files of their own.
"""

import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from codec.errors import ConfigError, VideoError
from codec.training.data.clips import CachedClip, Clip
from codec.training.data.measures import KIND, Measures, measure
from codec.training.data.sources import Source
from codec.video.colour import convert_frame
from codec.video.format import VideoFormat
from codec.video.reader import open_reader

INDEX = "shards.json"
VERSION = 1
SHARD_BYTES = 4_000_000_000
# Clips that are decoded ahead of the one that is written.
AHEAD = 16


class Packed(NamedTuple):
    """What was packed: counts, and a sentence for each clip that could not be decoded."""

    clips: int
    shards: int
    size: int
    left_out: list[str]


def is_shards(folder: Path) -> bool:
    """Whether a folder was written by :func:`pack`."""
    return (folder / INDEX).is_file()


def open_shards(folder: Path) -> list[Clip]:
    """The clips of packed shards, in the order in which they were packed.

    Raises:
        ConfigError: the index is none, or a shard is missing or of another size than it says.
    """
    try:
        index = json.loads((folder / INDEX).read_text())
        if index["version"] != VERSION:
            raise ConfigError(
                f"{folder}: shards of version {index['version']}, not {VERSION}: pack them again"
            )
        maps = [_map(folder / name, size) for name, size in index["shards"]]
        return [_clip(entry, maps) for entry in index["clips"]]
    except (LookupError, TypeError, ValueError, VideoError) as error:
        raise ConfigError(
            f"{folder / INDEX}: is no index of shards ({error!r}): pack them again"
        ) from None


def pack(
    sources: Iterable[Source],
    out: Path,
    *,
    chroma: Literal["source", "420"] = "source",
    shard_bytes: int = SHARD_BYTES,
    report: Callable[[str], None] = lambda line: None,
) -> Packed:
    """Decode clips and write them as shards; the folder gets its name when it is whole.

    Args:
        sources: of :func:`codec.training.data.sources.find_sources`.
        out: a folder that is not there yet.
        chroma: ``420``: all as 8-bit 4:2:0, BT.709, limited range, as clips on the accelerator
            (``training.data.resident``) have to be alike; pictures lose half of their colour's
            resolution to it. ``source``: each as it is.
        shard_bytes: a shard is closed when it has so many.
        report: told of every clip that cannot be decoded and is left out.

    Raises:
        ConfigError: the folder is there already, or no clip could be decoded.
    """
    if out.exists():
        raise ConfigError(f"{out} is there already: name a folder that is not")
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    part.mkdir(parents=True)
    try:
        writer = _Writer(part, shard_bytes)
        left_out: list[str] = []
        for name, decoded in _decoded(sources, part, chroma):
            if isinstance(decoded, CachedClip):
                writer.add(decoded)
                continue
            left_out.append(str(decoded))
            report(f"{name} is left out: {decoded}")
        packed = writer.finish(left_out)
        os.replace(part, out)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return packed


class _Writer:
    """Appends clips to the shards of a folder."""

    def __init__(self, folder: Path, shard_bytes: int):
        self._folder = folder
        self._limit = shard_bytes
        self._shards: list[list[Any]] = []  # [name, bytes]
        self._clips: list[dict[str, Any]] = []
        self._tar: tarfile.TarFile | None = None

    def add(self, clip: CachedClip) -> None:
        """Append a clip, whose planes are a file that is deleted then."""
        if self._tar is None:
            self._shards.append([f"{len(self._shards):05}.tar", 0])
            self._tar = tarfile.open(self._folder / self._shards[-1][0], "w")
        member = tarfile.TarInfo(f"{len(self._clips):08}.planes")
        member.size = clip.planes.nbytes
        source = Path(clip.planes.filename)
        with open(source, "rb") as planes:
            self._tar.addfile(member, planes)
        source.unlink()
        self._clips.append(
            {
                "name": clip.name,
                "shard": len(self._shards) - 1,
                "offset": self._tar.offset - _padded(member.size),
                "frames": clip.frames,
                "format": {**vars(clip.format), "fps": str(clip.format.fps)},
                KIND: [np.round(one.astype(float), 3).tolist() for one in clip.measures],
            }
        )
        if self._tar.offset >= self._limit:
            self._close()

    def finish(self, left_out: list[str]) -> Packed:
        self._close()
        if not self._clips:
            reason = f", the first: {left_out[0]}" if left_out else ": none was found"
            raise ConfigError(f"nothing to pack{reason}")
        index = {"version": VERSION, "shards": self._shards, "clips": self._clips}
        (self._folder / INDEX).write_text(json.dumps(index))
        size = sum(size for _, size in self._shards)
        return Packed(len(self._clips), len(self._shards), size, left_out)

    def _close(self) -> None:
        if self._tar is not None:
            self._tar.close()
            self._shards[-1][1] = (self._folder / self._shards[-1][0]).stat().st_size
            self._tar = None


def _decoded(
    sources: Iterable[Source], folder: Path, chroma: str
) -> Iterator[tuple[str, CachedClip | VideoError]]:
    """Each source's name and its planes in a file, or why there are none; some are made ahead."""

    def decode(numbered: tuple[int, Source]) -> tuple[str, CachedClip | VideoError]:
        number, source = numbered
        try:
            return source.name, _decode(source, folder / f"{number:08}.tmp", chroma)
        except VideoError as error:
            return source.name, error

    remaining = enumerate(sources)
    with ThreadPoolExecutor() as pool:
        while some := list(islice(remaining, AHEAD)):
            yield from pool.map(decode, some)


def _decode(source: Source, path: Path, chroma: str) -> CachedClip:
    with open_reader(source.path) as reader, open(path, "wb") as out:
        form = target = reader.format
        if chroma == "420":
            target = VideoFormat(form.width, form.height, form.fps)
        for frame in reader:
            for plane in convert_frame(frame, form, target):
                out.write(np.ascontiguousarray(plane).tobytes())
    if not path.stat().st_size:
        raise VideoError(f"{source.path} holds no frame")
    planes = np.memmap(path, np.uint8, "r").reshape(-1, target.frame_bytes)
    return CachedClip(source.name, planes, target, measure(planes, target))


def _padded(size: int) -> int:
    return -(-size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def _map(shard: Path, size: int) -> np.ndarray:
    if not shard.is_file():
        raise ConfigError(f"{shard} is missing, which {INDEX} names: copy or pack it again")
    if shard.stat().st_size != size:
        raise ConfigError(
            f"{shard} has {shard.stat().st_size} bytes and not the {size} of {INDEX}: copy or pack "
            "it again"
        )
    return np.memmap(shard, np.uint8, "r")


def _clip(entry: dict[str, Any], maps: list[np.ndarray]) -> CachedClip:
    form = VideoFormat(**entry["format"])
    first, count = entry["offset"], entry["frames"] * form.frame_bytes
    planes = maps[entry["shard"]][first : first + count].reshape(-1, form.frame_bytes)
    measures = Measures(*(np.asarray(one, np.float32) for one in entry[KIND]))
    return CachedClip(entry["name"], planes, form, measures)
