"""The encoder's buffer: a leaky bucket, the mirror image of a decoder's.

A frame pours its bits in at the moment it is coded; until the next one the channel takes out at
most what its rate allows, and pauses when the bucket is empty. While the bucket does not overflow,
every frame has left it ``size / rate`` seconds after it was coded at the latest, so a decoder that
begins ``(1 - START) * size / rate`` seconds after the first bit came never waits for a frame. It is
the HRD's coded picture buffer (H.264, annex C; x264's VBV) seen from the other end.
"""

from __future__ import annotations

from dataclasses import dataclass, field

START = 0.1
"""Of the bucket, full at the start: x264's vbv-init of 0.9 seen from the encoder."""


@dataclass
class LeakyBucket:
    """A bucket of ``size`` bits that loses at most ``drain`` bits from one frame to the next.

    Attributes:
        level: bits in it before the next frame.
        peak: most bits that were in it, right after a frame came in.
    """

    size: float
    drain: float
    level: float = field(init=False)
    peak: float = field(init=False)

    def __post_init__(self) -> None:
        self.level = self.peak = START * self.size

    @property
    def room(self) -> float:
        """Most bits that the next frame may have; below 0 after an overflow."""
        return self.size - self.level

    def pour(self, bits: float) -> None:
        """A frame comes in; then the channel drains until the next."""
        full = self.level + bits
        self.peak = max(self.peak, full)
        self.level = max(0.0, full - self.drain)
