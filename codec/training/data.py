"""Clips for training: video files, folders of frames and Vimeo-90k, cut to random crops.

What a step sees depends on the seed and the step's number alone, so a resumed run sees what the
uninterrupted one would have seen. Video files are decoded once into a memory-mapped cache of their
own integer planes; crops become RGB by the same function that encoding uses.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from codec.config import DataConfig
from codec.entropy.gains import QUALITIES
from codec.errors import ConfigError, VideoError
from codec.video.colour import frame_to_rgb
from codec.video.format import VideoFormat
from codec.video.reader import open_reader

VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm", ".avi", ".y4m", ".ts", ".m4v"}
IMAGE_SUFFIXES = {".png", ".jpg", ".jpeg"}


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        clip: [B, T, 3, H, W] RGB in [0, 1].
        flow: where it is known, [B, 2, H, W]: frame 1 at p is frame 0 at p + flow.
        visible: where the flow holds, [B, H, W] 0 or 1.
        begins: of a stage with chains: samples [B] that begin a chain, the others go on.
        quality: of a stage with chains: indices [B], which stay for a whole chain.
        seen: sum of ``visible`` over the whole batch, where these are some of its samples; None:
            they are all.
    """

    clip: Tensor
    flow: Tensor | None = None
    visible: Tensor | None = None
    begins: Tensor | None = None
    quality: Tensor | None = None
    seen: Tensor | None = None

    def take(self, samples: slice) -> "Batch":
        """These samples alone."""
        if samples == slice(0, len(self.clip)):
            return self
        seen = self.visible.sum() if self.seen is None and self.visible is not None else self.seen
        some = (None if value is None else value[samples] for value in self[:-1])
        return Batch(*some, seen)


class Clip(Protocol):
    """A source of consecutive frames."""

    name: str
    frames: int
    height: int
    width: int

    def read(self, start: int, count: int, top: int, left: int, size: int) -> Tensor:
        """Frames [T, 3, size, size] RGB in [0, 1]; ``top`` and ``left`` are even."""


@dataclass
class CachedClip:
    """A decoded video file: the planes of all frames in one memory-mapped array."""

    name: str
    planes: np.ndarray  # uint8 [frames, bytes of a frame]
    format: VideoFormat

    @property
    def frames(self) -> int:
        return len(self.planes)

    @property
    def height(self) -> int:
        return self.format.height

    @property
    def width(self) -> int:
        return self.format.width

    def read(self, start: int, count: int, top: int, left: int, size: int) -> Tensor:
        shapes = self.format.plane_shapes()
        factor = 2 if self.format.chroma == "420" else 1
        cut = VideoFormat(**{**vars(self.format), "width": size, "height": size})
        out = []
        for t in range(start, start + count):
            row = self.planes[t].view(self.format.dtype)
            planes, offset = [], 0
            for number, (h, w) in enumerate(shapes):
                plane = row[offset : offset + h * w].reshape(h, w)
                offset += h * w
                step = factor if number else 1
                y, x, side = top // step, left // step, size // step
                planes.append(np.ascontiguousarray(plane[y : y + side, x : x + side]))
            out.append(frame_to_rgb(tuple(planes), cut)[0])
        return torch.stack(out).clamp(0, 1)


@dataclass
class FolderClip:
    """A folder of images, read when needed."""

    name: str
    files: list[Path]
    height: int
    width: int

    @property
    def frames(self) -> int:
        return len(self.files)

    def read(self, start: int, count: int, top: int, left: int, size: int) -> Tensor:
        from PIL import Image

        out = []
        for file in self.files[start : start + count]:
            with Image.open(file) as image:
                box = (left, top, left + size, top + size)
                pixels = np.asarray(image.convert("RGB").crop(box))
            out.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
        return torch.stack(out).float() / 255


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


class Cut(NamedTuple):
    """One sample of a batch: where it lies in a clip, and along which axes it is turned round.

    Attributes:
        clip: number of the clip.
        start, top, left: first frame and upper left corner; the corner is even.
        flips: of time, rows and columns.
    """

    clip: int
    start: int
    top: int
    left: int
    flips: tuple[bool, bool, bool]


class ClipSampler:
    """Random crops of random clips, a function of (seed, step)."""

    def __init__(self, clips: Sequence[Clip], seed: int):
        self.clips = clips
        self.seed = seed

    def draw(self, step: int, batch: int, frames: int, crop: int) -> list[Cut]:
        """What the batch of a step is cut from.

        Raises:
            ConfigError: no clip is long or large enough.
        """
        able = self._able(frames, crop)
        random = np.random.default_rng([self.seed, step])
        return [self._cut(random, able, frames, crop) for _ in range(batch)]

    def batch(
        self, step: int, batch: int, frames: int, crop: int, samples: slice = slice(None)
    ) -> Tensor:
        """[B, T, 3, crop, crop] RGB in [0, 1], flipped and reversed in time at random.

        Args:
            samples: of the step's batch, which are read.

        Raises:
            ConfigError: no clip is long or large enough.
        """
        return self.read(self.draw(step, batch, frames, crop)[samples], frames, crop)

    def link(
        self,
        first: int,
        done: int,
        batch: int,
        frames: int,
        crop: int,
        chain: int,
        samples: slice = slice(None),
    ) -> Batch:
        """The next ``frames - 1`` frames of each sample's chain, and the one before them.

        A sample's chain is ``chain`` frames long and begins after an I frame; then it takes up
        another cut. The chains of a batch begin at different steps. A function of (seed, first,
        done).

        Args:
            first, done: the stage's first step, and how many of its steps are done.
            samples: of the batch, which are read.

        Raises:
            ConfigError: no clip is long or large enough.
        """
        able = self._able(chain + 1, crop)
        links = chain // (frames - 1)
        cuts, begins, quality = [], [], []
        for sample in range(batch)[samples]:
            number, place = divmod(done + sample * links // batch, links)
            random = np.random.default_rng([self.seed, first, sample, number])
            cut = self._cut(random, able, chain + 1, crop)
            back = cut.flips[0]  # in time: the chain then begins at the cut's last frame
            behind = (links - 1 - place if back else place) * (frames - 1)
            cuts.append(cut._replace(start=cut.start + behind))
            begins.append(place == 0 or done == 0)
            # Every batch covers the range, every sample comes by all of it.
            stratum = ((sample + number) % batch + random.random()) / batch
            quality.append(float(min(int(stratum * QUALITIES), QUALITIES - 1)))
        clip = self.read(cuts, frames, crop)
        return Batch(clip, begins=torch.tensor(begins), quality=torch.tensor(quality))

    def read(self, cuts: list[Cut], frames: int, crop: int) -> Tensor:
        """The samples [B, T, 3, crop, crop] RGB in [0, 1], turned round as their cuts say."""
        samples = []
        for cut in cuts:
            x = self.clips[cut.clip].read(cut.start, frames, cut.top, cut.left, crop)
            axes = [axis for axis, flip in zip((0, 2, 3), cut.flips, strict=True) if flip]
            samples.append(x.flip(axes))
        return torch.stack(samples)

    def _able(self, frames: int, crop: int) -> list[int]:
        able = [
            number
            for number, clip in enumerate(self.clips)
            if clip.frames >= frames and min(clip.height, clip.width) >= crop
        ]
        if not able:
            raise ConfigError(f"no clip has {frames} frames of at least {crop}x{crop} pixels")
        return able

    def _cut(self, random: np.random.Generator, able: list[int], frames: int, crop: int) -> Cut:
        number = able[random.integers(len(able))]
        clip = self.clips[number]
        start = int(random.integers(clip.frames - frames + 1))
        top = 2 * int(random.integers((clip.height - crop) // 2 + 1))
        left = 2 * int(random.integers((clip.width - crop) // 2 + 1))
        flips = tuple(bool(random.random() < chance) for chance in (0.5, 0.25, 0.5))
        return Cut(number, start, top, left, flips)


def known_motion(seed: int, step: int, batch: int, crop: int, max_motion: float = 24.0) -> Batch:
    """Pairs of synthetic frames that move by up to ``max_motion`` pixels, with their flow.

    A function of (seed, step).
    """
    from codec.video.synthetic import random_pair

    random = np.random.default_rng([seed, step, 1])
    clips, flows, masks = [], [], []
    for _ in range(batch):
        previous, current, flow, visible = random_pair(random, crop, crop, max_motion)
        clips.append(torch.from_numpy(np.stack((previous, current))).float() / 255)
        flows.append(torch.from_numpy(flow).float())
        masks.append(torch.from_numpy(visible).float())
    return Batch(torch.stack(clips), torch.stack(flows), torch.stack(masks))


def _clips_under(root: Path, cache: Path) -> list[Clip]:
    if root.is_file():
        return [_cached(root, cache)]
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
            clips += pool.map(lambda video: _cached(video, cache), videos)
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


def _cached(file: Path, cache: Path) -> CachedClip:
    """The decoded planes of a video file, from the cache or decoded into it now."""
    stat = file.stat()
    key = hashlib.sha256(f"{file.name}:{stat.st_size}:{int(stat.st_mtime)}".encode()).hexdigest()
    planes, note = cache / f"{key[:24]}.planes", cache / f"{key[:24]}.json"
    if not (planes.exists() and note.exists()):
        _decode_into(file, planes, note)
    form = VideoFormat(**json.loads(note.read_text()))
    rows = np.memmap(planes, np.uint8, "r").reshape(-1, form.frame_bytes)
    return CachedClip(file.name, rows, form)


def _decode_into(file: Path, planes: Path, note: Path) -> None:
    """Append frame after frame to a file of raw planes, which gets its name when it is whole."""
    planes.parent.mkdir(parents=True, exist_ok=True)
    temporary = planes.with_suffix(f".{os.getpid()}.tmp")
    try:
        with open_reader(file) as reader, open(temporary, "wb") as out:
            for frame in reader:
                for plane in frame:
                    out.write(plane.tobytes())
            form = reader.format
        note.write_text(json.dumps({**vars(form), "fps": str(form.fps)}))
        os.replace(temporary, planes)
    except VideoError as error:
        raise ConfigError(f"training data: {error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def _synthetic_clips(cache: Path) -> list[Clip]:
    """A few clips with known motion, so that a run needs nothing from outside."""
    from codec.video.synthetic import write_synthetic

    clips: list[Clip] = []
    cache.mkdir(parents=True, exist_ok=True)
    for kind in ("pan", "zoom", "rotation", "occluder", "layers"):
        file = cache / f"synthetic-{kind}.y4m"
        if not file.exists():
            write_synthetic(kind, file, width=192, height=160, frames=12, seed=1)
        clips.append(_cached(file, cache))
    return clips
