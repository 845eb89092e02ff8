"""Random crops of random clips, a function of the seed and the step's number alone."""

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from codec.config import AugmentConfig
from codec.entropy.gains import QUALITIES
from codec.errors import ConfigError
from codec.training.data.clips import Clip
from codec.training.data.shrink import shrink


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


class Cut(NamedTuple):
    """One sample of a batch: where it lies in a clip, and along which axes it is turned round.

    Attributes:
        clip: number of the clip.
        start, top, left: first frame and upper left corner; the corner is even.
        flips: of time, rows and columns.
        every: frames from one that is taken to the next.
        side: pixels that are cut out, even, and then scaled down to the crop; None: the crop's.
    """

    clip: int
    start: int
    top: int
    left: int
    flips: tuple[bool, bool, bool]
    every: int = 1
    side: int | None = None


class ClipSampler:
    """Random crops of random clips, a function of (seed, step).

    Args:
        clips: a sample lies within one of a clip's shots.
        seed: of the run.
        augment: what else is done to samples.
        order: ``random``: any clip for any sample; ``epochs``: every clip that is able once, in an
            order of the epoch's, before any comes again. Stages count on: which epoch a step is
            in depends on the samples of a batch.
    """

    def __init__(
        self,
        clips: Sequence[Clip],
        seed: int,
        augment: AugmentConfig | None = None,
        order: Literal["random", "epochs"] = "random",
    ):
        self.clips = clips
        self.seed = seed
        self.augment = augment or AugmentConfig()
        self.order = order
        self._ables: dict[tuple[int, int], list[int]] = {}

    def draw(self, step: int, batch: int, frames: int, crop: int) -> list[Cut]:
        """What the batch of a step is cut from.

        Raises:
            ConfigError: no clip is long or large enough.
        """
        able = self._able(frames, crop)
        random = np.random.default_rng([self.seed, step])
        first = step * batch
        return [self._cut(random, able, first + i, frames, crop) for i in range(batch)]

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
            cut = self._cut(random, able, number * batch + sample, chain + 1, crop)
            back = cut.flips[0]  # in time: the chain then begins at the cut's last frame
            behind = (links - 1 - place if back else place) * (frames - 1) * cut.every
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
            side = cut.side or crop
            clip = self.clips[cut.clip]
            x = clip.read(cut.start, frames, cut.top, cut.left, side, cut.every)
            if side != crop:
                x = shrink(x, crop)
            axes = [axis for axis, flip in zip((0, 2, 3), cut.flips, strict=True) if flip]
            samples.append(x.flip(axes))
        return torch.stack(samples)

    def check(self, name: str, frames: int, crop: int) -> None:
        """Raise ConfigError where no clip serves a stage of this name."""
        try:
            self._able(frames, crop)
        except ConfigError as error:
            raise ConfigError(f"stage {name}: {error}") from None

    def _able(self, frames: int, crop: int) -> list[int]:
        """The clips with a shot that is long and large enough."""
        able = self._ables.get((frames, crop))
        if able is None:
            able = [
                number
                for number, clip in enumerate(self.clips)
                if _longest(clip) >= frames and min(clip.height, clip.width) >= crop
            ]
            self._ables[frames, crop] = able
        if not able:
            raise ConfigError(f"no clip has {frames} frames of at least {crop}x{crop} pixels")
        return able

    def _cut(
        self, random: np.random.Generator, able: list[int], place: int, frames: int, crop: int
    ) -> Cut:
        """The sample of a number, ``place``; what is not asked for draws nothing."""
        if self.order == "epochs":
            epoch, rank = divmod(place, len(able))
            number = able[_shuffled(self.seed, epoch, len(able))[rank]]
        else:
            number = able[random.integers(len(able))]
        clip = self.clips[number]
        every = 1
        if self.augment.rate and random.random() < self.augment.rate:
            every = min(int(random.integers(2, 4)), (_longest(clip) - 1) // max(frames - 1, 1))
            every = max(every, 1)
        side = crop
        if self.augment.scale and random.random() < self.augment.scale:
            largest = min(crop * random.uniform(1, 2), clip.height, clip.width)
            side = max(int(largest) // 2 * 2, crop)
        start = _start(random, clip, (frames - 1) * every + 1)
        top = 2 * int(random.integers((clip.height - side) // 2 + 1))
        left = 2 * int(random.integers((clip.width - side) // 2 + 1))
        flips = tuple(bool(random.random() < chance) for chance in (0.5, 0.25, 0.5))
        return Cut(number, start, top, left, flips, every, None if side == crop else side)


def _longest(clip: Clip) -> int:
    return max(shot.frames for shot in clip.shots)


def _start(random: np.random.Generator, clip: Clip, frames: int) -> int:
    """Where ``frames`` frames begin: any place in any shot that they fit in, all alike."""
    room = [max(shot.frames - frames + 1, 0) for shot in clip.shots]
    place = int(random.integers(sum(room)))
    for shot, starts in zip(clip.shots, room, strict=True):
        if place < starts:
            return shot.first + place
        place -= starts
    raise AssertionError("the places of all shots were counted")


@functools.lru_cache(maxsize=4)
def _shuffled(seed: int, epoch: int, count: int) -> np.ndarray:
    """The order of an epoch's clips, a permutation of 0..count-1."""
    return np.random.default_rng([seed, epoch, 2]).permutation(count)
