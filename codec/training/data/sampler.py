"""Random crops of random clips, a function of the seed and the step's number alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from codec.entropy.gains import QUALITIES
from codec.errors import ConfigError
from codec.training.data.clips import Clip


class Batch(NamedTuple):
    """What a step learns from.

    Attributes:
        clip: [B, T, 3, H, W] RGB in [0, 1].
        flow: where it is known, [B, 2, H, W]: frame 1 at p is frame 0 at p + flow.
        visible: where the flow holds, [B, H, W] 0 or 1.
        begins: of a stage with chains: samples [B] that begin a chain, the others go on.
        quality: of a stage with chains: indices [B], which stay for a whole chain.
    """

    clip: Tensor
    flow: Tensor | None = None
    visible: Tensor | None = None
    begins: Tensor | None = None
    quality: Tensor | None = None


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

    def batch(self, step: int, batch: int, frames: int, crop: int) -> Tensor:
        """[B, T, 3, crop, crop] RGB in [0, 1], flipped and reversed in time at random.

        Raises:
            ConfigError: no clip is long or large enough.
        """
        return self.read(self.draw(step, batch, frames, crop), frames, crop)

    def link(self, first: int, done: int, batch: int, frames: int, crop: int, chain: int) -> Batch:
        """The next ``frames - 1`` frames of each sample's chain, and the one before them.

        A sample's chain is ``chain`` frames long and begins after an I frame; then it takes up
        another cut. The chains of a batch begin at different steps. A function of (seed, first,
        done).

        Args:
            first, done: the stage's first step, and how many of its steps are done.

        Raises:
            ConfigError: no clip is long or large enough.
        """
        able = self._able(chain + 1, crop)
        links = chain // (frames - 1)
        cuts, begins, quality = [], [], []
        for sample in range(batch):
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
