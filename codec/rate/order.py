"""Which frames are I frames, and how a frame's quality index follows from the video's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

MAX_QUALITY = 63


@dataclass(frozen=True)
class FrameOrder:
    """The order of I and P frames.

    A frame's *kind* says which frames are alike: 0 for I frames, 1.. ``phases`` for P frames by
    their place in the pattern of quality offsets. The *base* is the video's quality index, a
    *level* a frame's.

    Attributes:
        intra_period: frames from one I frame to the next; 0: only the first is one.
        phases: length of the pattern of offsets of P frames.
        levels: (base, frames since the I frame) -> level, both 0..63; must not fall as the base
            rises and depends on a P frame's place in the pattern alone.
    """

    intra_period: int
    phases: int
    levels: Callable[[int, int], int]

    @property
    def kinds(self) -> int:
        return 1 + self.phases

    def since_intra(self, number: int) -> int:
        return number % self.intra_period if self.intra_period else number

    def kind(self, number: int) -> int:
        since = self.since_intra(number)
        return 0 if since == 0 else 1 + (since - 1) % self.phases

    def level(self, base: int, kind: int) -> int:
        """The level of frames of a kind: the first such frame after an I frame stands for all."""
        return self.levels(base, kind)
