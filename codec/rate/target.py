"""What the user asks of the rate, checked."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from numbers import Real

from codec.errors import ConfigError

DEFAULT_BUFFER = 1.0
"""Seconds; what players and x264's users take for streaming lie between one and two."""


_PREFIXES = {"": 1, "k": 1000, "K": 1000, "M": 1000**2, "G": 1000**3}


def bits_per_second(text: str) -> float:
    """``800k``, ``1.5M`` or ``1200000`` in bits a second, as FFmpeg takes them.

    Raises:
        ConfigError: it is no such rate, or not above 0.
    """
    found = re.fullmatch(r"(\d+\.?\d*|\.\d+)([kKMG]?)", text.strip())
    value = float(found[1]) * _PREFIXES[found[2]] if found else 0.0
    if not value > 0:
        raise ConfigError(f"{text!r} is not a bit rate such as 800k or 1.5M, in bits a second")
    return value


@dataclass(frozen=True)
class RateTarget:
    """An average rate, a rate that a buffer is drained at, or both.

    Attributes:
        bitrate: of the whole file in bits a second, None: no average is asked for, and frames have
            the quality of the video wherever the buffer lets them.
        max_bitrate: at which the encoder's buffer is drained, in bits a second. None: one pass
            takes ``bitrate``; two passes have no buffer, unless ``buffer`` asks for one.
        buffer: its size in seconds at that rate, above 0; None: ``DEFAULT_BUFFER``.
        two_pass: code the video once at constant quality, to know what its frames take.

    Raises:
        ConfigError: neither rate is given, a value is not above 0, the largest rate is below the
            average, or two passes are asked for without an average.
    """

    bitrate: float | None = None
    max_bitrate: float | None = None
    buffer: float | None = None
    two_pass: bool = False

    def __post_init__(self) -> None:
        for what, value in (
            ("bit rate", self.bitrate),
            ("largest bit rate", self.max_bitrate),
            ("buffer", self.buffer),
        ):
            if value is None:
                continue
            if not isinstance(value, Real):
                raise ConfigError(f"the {what} must be a number above 0, not {value!r}")
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"the {what} must be above 0, not {value!r}")
        if self.bitrate is None and self.max_bitrate is None:
            raise ConfigError("rate control needs a bit rate: give --bitrate or --max-bitrate")
        if self.two_pass and self.bitrate is None:
            raise ConfigError("two passes aim at an average rate: give --bitrate")
        if self.bitrate and self.max_bitrate and self.max_bitrate < self.bitrate:
            raise ConfigError(
                f"the largest bit rate {self.max_bitrate:g} is below the average of "
                f"{self.bitrate:g}: raise --max-bitrate or lower --bitrate"
            )

    @property
    def drain(self) -> float | None:
        """Bits a second at which the buffer is drained; None: there is no buffer."""
        if self.max_bitrate is not None:
            return self.max_bitrate
        if self.two_pass and self.buffer is None:
            return None
        return self.bitrate

    @property
    def buffer_bits(self) -> float | None:
        """Size of the buffer in bits; None: there is none."""
        drain = self.drain
        return None if drain is None else drain * (self.buffer or DEFAULT_BUFFER)
