"""The controller: asked for each frame's quality index, told what the frame then took."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from codec.rate.bucket import LeakyBucket
from codec.rate.model import CodedFrame, RateModel
from codec.rate.order import MAX_QUALITY, FrameOrder
from codec.rate.target import RateTarget

WINDOW = 32
"""Frames that a budget reaches ahead at least; whole intra periods, as long as they are short."""
STEP, STEP_INTRA = 6, 8
"""Most that the base moves from one frame to the next, and at an I frame, where a change hides."""
PACE = 0.03
"""Of the budget: it moves by a step for each such part of it that would be missed."""
TOLERANCE = 0.01
"""Of the budget: a miss below it does not move the base."""
SAFETY, PLANNED = 0.95, 0.9
"""Of the room in the buffer that a frame is to take, and of the buffer that what follows is to."""
TRIES = 4
"""Times that a frame is coded at most; the last time at level 0."""
MISSED = 0.05
"""Of the average rate: a greater distance from it is a miss."""


@dataclass(frozen=True)
class Outcome:
    """What came of a target.

    Attributes:
        bitrate: reached, in bits a second.
        peak: the fullest the buffer was, as a share of its size; None without a buffer.
        recoded: times that a frame was coded again because it did not fit.
        overflows: frames that did not fit at quality 0 either.
        misses: a sentence for each thing that was asked for and is not so.
    """

    bitrate: float
    peak: float | None
    recoded: int
    overflows: int
    misses: tuple[str, ...]


class RateController:
    """Gives every frame its quality index.

    Ask :meth:`quality_for` a frame, code it, tell :meth:`coded`; what that returns is a level to
    code the same frame at again, or None when it stands. Frames come in order from 0.

    Args:
        target: what is asked for.
        order: of I and P frames.
        fps: frames a second.
        pixels: of a frame.
        quality: the video's quality index, 0..63: where a search begins, and with no average asked
            for the highest base.
        frames: how many will come, None where that is not known.
        fixed: bits of a packet that do not depend on its quality.
        overhead: bits of the file beside the frames' packets.
        first_pass: every frame, in order, where the target has two passes.
    """

    def __init__(
        self,
        target: RateTarget,
        order: FrameOrder,
        *,
        fps: float,
        pixels: int,
        quality: int,
        frames: int | None,
        fixed: float = 0.0,
        overhead: float = 0.0,
        first_pass: Sequence[CodedFrame] = (),
    ):
        self.target = target
        self.order = order
        self.model = RateModel(order, pixels, fixed, first_pass)
        self.bucket: LeakyBucket | None = None
        if target.drain is not None:
            self.bucket = LeakyBucket(target.buffer_bits, target.drain / float(fps))
        self.recoded = self.overflows = 0
        self._held = False  # whether the buffer has lowered a frame
        self.base = quality
        self._quality = quality
        self._fps = float(fps)
        self._per_frame = target.bitrate and target.bitrate / self._fps
        self._spent = overhead
        self._done = 0
        self._frames = frames
        self._all_known = bool(first_pass)
        self._tries = 0

    def learn(self, number: int, level: int, bits: int) -> None:
        """A frame coded for trial, before the first one: it counts for the prediction alone."""
        self.model.learn(number, level, bits)

    def quality_for(self, number: int) -> int:
        """The level, 0..63, to code frame ``number`` at, which is the next one."""
        self._tries = 0
        if self._frames is not None and number >= self._frames:
            self._frames = None  # the file promised fewer
        if self._per_frame is None:
            self.base = min(self._quality, self.base + 1)
        else:
            self.base = self._budgeted(number)
        if self.bucket is None:
            return self.order.level(self.base, self.order.kind(number))
        free, self.base = self.base, self._planned(number)
        level = self.order.level(self.base, self.order.kind(number))
        fitting = self.model.highest_level(number, level, SAFETY * self.bucket.room)
        self._held |= self.base < free or fitting < level
        return fitting

    def coded(self, number: int, level: int, bits: int) -> int | None:
        """Frame ``number``, coded at ``level``, takes ``bits``, its whole packet counted.

        Returns:
            None where the frame stands, else the lower level to code it again at.
        """
        self._tries += 1
        if self.bucket is not None:
            if bits > self.bucket.room:
                if level > 0:
                    self.recoded += 1
                    self._held = True
                    return self._lower(number, level, bits)
                self.overflows += 1
            self.bucket.pour(bits)
        self.model.learn(number, level, bits)
        self._spent += bits
        self._done = number + 1
        return None

    def outcome(self, bits: int | None = None) -> Outcome:
        """What came of it, after the last frame; ``bits``: of the file, where they are known."""
        reached = (self._spent if bits is None else bits) * self._fps / max(self._done, 1)
        misses = []
        asked = self.target.bitrate
        if asked is not None and abs(reached / asked - 1) > MISSED:
            side = "above" if reached > asked else "below"
            misses.append(
                f"the rate is {reached / 1000:,.1f} kbit/s, {abs(reached / asked - 1):.0%} {side} "
                f"the {asked / 1000:,.1f} that were asked for: {self._reason(reached > asked)}"
            )
        if self.overflows:
            misses.append(
                f"the buffer is too small for {self.overflows} of {self._done} frames even at "
                f"quality 0 (the fullest: {self._peak:.0%}): raise --max-bitrate or --buffer"
            )
        return Outcome(reached, self._peak, self.recoded, self.overflows, tuple(misses))

    @property
    def _peak(self) -> float | None:
        return None if self.bucket is None else self.bucket.peak / self.bucket.size

    def _reason(self, above: bool) -> str:
        if above and self.base == 0:
            return "this content takes more at quality 0, so ask for more or for a smaller picture"
        if not above and self.base == MAX_QUALITY:
            return "this content takes no more at quality 63"
        if self._held and not above:
            return "the buffer held frames back, so give a larger --buffer or --max-bitrate"
        return "the video is too short, or changes too late, to come back to it"

    def _end(self, number: int) -> int:
        """The frame before which the budget that begins at ``number`` ends."""
        period = self.order.intra_period
        if 0 < period <= 2 * WINDOW:
            # To the end of this intra period, and one more or as many as make up a window.
            more = -(-WINDOW // period)
            end = (number // period + 1 + more) * period
        else:
            end = number + 2 * WINDOW
        return max(number + 1, min(end, self._frames)) if self._frames else end

    def _budgeted(self, number: int) -> int:
        """The base by which the frames ahead take what the average leaves them."""
        if self._all_known and self._frames is not None:
            end = of = self._frames
        else:
            end = self._end(number)
            of = max(end - number, min(self._frames or 0, 3 * WINDOW))
        budget = end * self._per_frame - self._spent
        scale = of * self._per_frame  # what a miss is measured by
        low, high = 0, MAX_QUALITY
        if number > 0:
            miss = self.model.total(number, end, self.base) - budget
            if abs(miss) <= TOLERANCE * scale:
                return self.base
            step = 1 + int(abs(miss) / (PACE * scale))
            step = min(step, STEP) if self.order.kind(number) else STEP_INTRA
            low, high = max(low, self.base - step), min(high, self.base + step)
        choices = range(low, high + 1)
        totals = [self.model.total(number, end, base) for base in choices]
        above = bisect_right(totals, budget)
        if above == 0:
            return low
        if above == len(choices) or totals[above] - budget > budget - totals[above - 1]:
            return choices[above - 1]
        return choices[above]

    def _planned(self, number: int) -> int:
        """The base, at most the present one, by which the buffer will hold the frames ahead."""
        end = self._end(number)
        for base in range(self.base, max(self.base - STEP, 0), -1):
            if self._highest(number, end, base) <= PLANNED * self.bucket.size:
                return base
        return max(self.base - STEP, 0)

    def _highest(self, number: int, end: int, base: int) -> float:
        """How full the bucket is to get by the frames ``number`` .. ``end - 1``."""
        level, highest = self.bucket.level, 0.0
        for bits in self.model.sequence(number, end, base):
            full = level + bits
            highest = max(highest, full)
            level = max(0.0, full - self.bucket.drain)
        return highest

    def _lower(self, number: int, level: int, bits: int) -> int:
        """A level at which a frame that took ``bits`` at ``level`` is to fit."""
        if self._tries >= TRIES - 1:
            return 0
        fitting = self.model.lower(number, level, bits, SAFETY * self.bucket.room)
        return max(0, fitting - self._tries + 1)
