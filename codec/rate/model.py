"""How many bits a frame will take: log2(bits) over the quality index, one curve a kind of frame.

    bits = fixed + 2 ** (content + curve(level)),   curve(level) = slope level - bend level^2 / 2

``fixed`` is what a packet costs whatever is in it. The curve is a prior from measurement; the
content is what is learned from the frames that were coded, by exponential smoothing of the
logarithm, or comes frame by frame from a first pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from codec.rate.order import FrameOrder


@dataclass(frozen=True)
class Curve:
    """log2 of a frame's bits over its level: ``slope`` a step at 0, ``bend`` less each step on.

    Attributes:
        start: log2 of the bits a pixel at level 0, where nothing is known of the content.
    """

    start: float
    slope: float
    bend: float

    def __call__(self, level: float) -> float:
        return self.slope * level - self.bend * level * level / 2


# Of lite, from four training clips (docs/rate_control.md). How far a clip lies from `start` is
# learned from its first frames.
INTRA = Curve(start=-2.80, slope=0.0847, bend=0.00082)
INTER = Curve(start=-4.78, slope=0.1020, bend=0.00089)

OWN, SHARED = 0.3, 0.1
"""How far one frame moves the content of its own kind, and that of the other kinds of P frames."""
OWN_AFTER_PASS, SHARED_AFTER_PASS = 0.2, 0.1
"""The same where a first pass knows each frame's content, and only the curves' error is learned."""
MAX_SURPRISE = 1.5
"""log2: more than this a single frame does not teach, for it may be a flash or a cut."""


@dataclass(frozen=True)
class CodedFrame:
    """A frame of a first pass: its level and the bits of its packet."""

    level: int
    bits: int


class RateModel:
    """Predicts bits, and learns from those that came.

    Args:
        order: of the frames; its kinds have a content each.
        pixels: of a frame.
        fixed: bits of a packet that do not depend on its quality.
        first_pass: every frame of the video, in order; without it frames of a kind are alike.
    """

    def __init__(
        self,
        order: FrameOrder,
        pixels: int,
        fixed: float = 0.0,
        first_pass: Sequence[CodedFrame] = (),
    ):
        self.order = order
        self.fixed = fixed
        self._curves = [INTRA if kind == 0 else INTER for kind in range(order.kinds)]
        # What a frame's content is multiplied by, and its sums from the start on, kind by kind.
        self._weights = [
            self._variable(frame.bits) * 2.0 ** -self._curves[order.kind(n)](frame.level)
            for n, frame in enumerate(first_pass)
        ]
        self._sums = [
            [0.0, *accumulate(w * (order.kind(n) == k) for n, w in enumerate(self._weights))]
            for k in range(order.kinds)
        ]
        if first_pass:
            self._content = [0.0] * order.kinds
            self._own, self._shared = OWN_AFTER_PASS, SHARED_AFTER_PASS
        else:
            self._content = [curve.start + math.log2(pixels) for curve in self._curves]
            self._own, self._shared = OWN, SHARED
        self._known = [bool(first_pass)] * order.kinds

    def weights(self, first: int, end: int) -> list[float]:
        """Sums of the weights of the frames ``first`` .. ``end - 1``, kind by kind."""
        if end < len(self._sums[0]):
            return [sums[end] - sums[first] for sums in self._sums]
        found = [0.0] * self.order.kinds
        for number in range(first, end):
            found[self.order.kind(number)] += self._weight(number)
        return found

    def bits(self, number: int, level: int) -> float:
        """Of the packet of a frame coded at this level."""
        kind = self.order.kind(number)
        return self.fixed + self._weight(number) * self._scale(kind, level)

    def total(self, first: int, end: int, base: int) -> float:
        """Bits of the packets of the frames ``first`` .. ``end - 1`` of a video of this base."""
        weights = self.weights(first, end)
        return self.fixed * (end - first) + sum(
            weight * self._scale(kind, self.order.level(base, kind))
            for kind, weight in enumerate(weights)
        )

    def sequence(self, first: int, end: int, base: int) -> Iterator[float]:
        """Bits of the packet of each frame ``first`` .. ``end - 1`` of a video of this base."""
        scales = [self._scale(k, self.order.level(base, k)) for k in range(self.order.kinds)]
        for number in range(first, end):
            yield self.fixed + self._weight(number) * scales[self.order.kind(number)]

    def learn(self, number: int, level: int, bits: float) -> None:
        """A frame was coded at this level, and its packet took so many bits."""
        own = self.order.kind(number)
        expected = self._weight(number) * self._scale(own, level)
        surprise = math.log2(self._variable(bits) / expected)
        clipped = min(max(surprise, -MAX_SURPRISE), MAX_SURPRISE)
        for kind in (0,) if own == 0 else range(1, self.order.kinds):
            if self._known[kind]:
                self._content[kind] += clipped * (self._own if kind == own else self._shared)
            else:  # the first P frame speaks for the other kinds until each has had its own
                self._content[kind] += surprise
        self._known[own] = True

    def highest_level(self, number: int, top: int, bits: float) -> int:
        """The highest level up to ``top`` at which the frame is to take at most ``bits``, or 0."""
        for level in range(top, 0, -1):
            if self.bits(number, level) <= bits:
                return level
        return 0

    def lower(self, number: int, level: int, bits: float, room: float) -> int:
        """The highest level at which a frame that took ``bits`` at ``level`` is to take ``room``.

        Always below ``level``, and at least 0.
        """
        curve = self._curves[self.order.kind(number)]
        for lower in range(level - 1, 0, -1):
            expected = self._variable(bits) * 2.0 ** (curve(lower) - curve(level))
            if self.fixed + expected <= room:
                return lower
        return 0

    def _variable(self, bits: float) -> float:
        return max(bits - self.fixed, 1.0)

    def _weight(self, number: int) -> float:
        if not self._weights:
            return 1.0
        return self._weights[min(number, len(self._weights) - 1)]

    def _scale(self, kind: int, level: int) -> float:
        """Bits of a frame of weight 1 beyond the fixed ones."""
        return 2.0 ** (self._content[kind] + self._curves[kind](level))
