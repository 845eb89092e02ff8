"""How much an encoder tries: steps of gradient descent on what it is about to code."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from codec.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

MAX_EFFORT = 1000
"""Most steps of each kind."""


@dataclass(frozen=True)
class Effort:
    """Steps a frame, each 0..MAX_EFFORT. Decoders know nothing of it.

    Attributes:
        motion: on each P frame's motion, by what it costs and leaves to the residual.
        ahead: on each frame's residual, twice as many on an I frame's picture, by its own cost and
            that of the next frame, which has to be there: such an encoder holds one frame back.
            As many on the motion besides, by coding the frame with it.
    """

    motion: int = 0
    ahead: int = 0

    @classmethod
    def of(cls, value: int | str | Effort) -> Effort:
        """From ``20``, or as text ``20+10`` for steps of both kinds.

        Raises:
            ConfigError: it is no such number or text.
        """
        if isinstance(value, Effort):
            return value
        text = "" if isinstance(value, bool) else str(value)
        found = re.fullmatch(r"(\d{1,4})(?:\+(\d{1,4}))?", text, re.ASCII)
        steps = [int(one or 0) for one in found.groups()] if found else [MAX_EFFORT + 1]
        if max(steps) > MAX_EFFORT:
            raise ConfigError(
                f"the effort must be a whole number of 0..{MAX_EFFORT}, or two such as 20+10, "
                f"not {value!r}"
            )
        return cls(*steps)

    def __str__(self) -> str:
        return f"{self.motion}+{self.ahead}" if self.ahead else str(self.motion)

    def __bool__(self) -> bool:
        return bool(self.motion or self.ahead)


NO_EFFORT = Effort()


@dataclass(frozen=True)
class FrameEffort:
    """What an encoder tries for one frame, and what it has to know for that.

    Attributes:
        steps: of both kinds.
        shown: the frame's (height, width) without its padding.
        following: the next frame where it is a P frame, [1, 3, H, W], padded. None: no frame refers
            to this one.
        following_quality: [1], its quality index.
    """

    steps: Effort
    shown: tuple[int, int]
    following: Tensor | None = None
    following_quality: Tensor | None = None
