"""What the planes of a frame mean: size, rate, chroma sampling, depth, matrix and range."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from codec.errors import VideoError

# Three planes Y, U, V (or R, G, B), [height, width], C-contiguous: uint8, or uint16 for 10 bit.
Frame = tuple[np.ndarray, np.ndarray, np.ndarray]

MAX_SIDE = 16384  # pixels; beyond it a header is damaged, not large
CHROMAS = ("420", "444", "rgb")
BIT_DEPTHS = (8, 10)
MATRICES = ("bt601", "bt709")
RANGES = ("limited", "full")


@dataclass(frozen=True)
class VideoFormat:
    """The format of every frame of a video.

    width, height: pixels, 1..16384, odd sizes included. fps: frames per second, a positive Fraction
    (int and "30000/1001" are taken too). chroma: "420", "444" or "rgb" (planes R, G, B, always full
    range, matrix kept as "bt709" and without meaning). bit_depth: 8 or 10. matrix: "bt601" or
    "bt709". range: "limited" (black 16, white 235 at 8 bit) or "full" (0, 255).

    Raises VideoError for anything else.
    """

    width: int
    height: int
    fps: Fraction
    chroma: str = "420"
    bit_depth: int = 8
    matrix: str = "bt709"
    range: str = "limited"

    def __post_init__(self) -> None:
        for name in ("width", "height"):
            side = getattr(self, name)
            if isinstance(side, bool) or not isinstance(side, (int, np.integer)):
                raise VideoError(f"the video {name} must be a whole number of pixels, not {side!r}")
            if not 1 <= side <= MAX_SIDE:
                raise VideoError(f"the video {name} must be 1..{MAX_SIDE} pixels, not {side}")
            object.__setattr__(self, name, int(side))
        object.__setattr__(self, "fps", parse_fps(self.fps))
        if self.chroma == "rgb":  # no matrix and no foot- and headroom: say so always the same way
            object.__setattr__(self, "matrix", "bt709")
            object.__setattr__(self, "range", "full")
        for name, allowed in (
            ("chroma", CHROMAS),
            ("bit_depth", BIT_DEPTHS),
            ("matrix", MATRICES),
            ("range", RANGES),
        ):
            check_choice(name, getattr(self, name), allowed)

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        """The type of a sample: np.uint8 or np.uint16."""
        return np.uint8 if self.bit_depth == 8 else np.uint16

    @property
    def max_value(self) -> int:
        """The largest sample: 255 or 1023."""
        return (1 << self.bit_depth) - 1

    def plane_shapes(self) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
        """(height, width) of the three planes; chroma of an odd size is rounded up."""
        full = (self.height, self.width)
        if self.chroma != "420":
            return full, full, full
        half = ((self.height + 1) // 2, (self.width + 1) // 2)
        return full, half, half

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame as raw planes (10 bit takes two bytes a sample)."""
        samples = sum(height * width for height, width in self.plane_shapes())
        return samples * np.dtype(self.dtype).itemsize

    @property
    def pix_fmt(self) -> str:
        """FFmpeg's name of the raw planes, e.g. "yuv420p10le" ("gbrp" for rgb, whose planes FFmpeg
        keeps in the order G, B, R)."""
        if self.chroma == "rgb":
            return "gbrp" if self.bit_depth == 8 else "gbrp10le"
        return f"yuv{self.chroma}p" + ("" if self.bit_depth == 8 else "10le")

    def check_frame(self, frame: Frame) -> None:
        """Raise VideoError unless `frame` is three planes of this format's shapes and type."""
        if len(frame) != 3:
            raise VideoError(f"a frame has three planes, not {len(frame)}")
        for name, plane, shape in zip("123", frame, self.plane_shapes(), strict=True):
            if plane.shape != shape or plane.dtype != self.dtype:
                raise VideoError(
                    f"plane {name} of a frame is {plane.dtype} {plane.shape}, but {self} needs "
                    f"{np.dtype(self.dtype)} {shape}"
                )

    def __str__(self) -> str:
        colour = "rgb" if self.chroma == "rgb" else f"4:{self.chroma[1]}:{self.chroma[2]}"
        meaning = "" if self.chroma == "rgb" else f" {self.matrix} {self.range}"
        return f"{self.width}x{self.height} {colour} {self.bit_depth} bit{meaning}"


def check_choice(name: str, value: object, allowed: tuple) -> None:
    """Raise VideoError unless `value` is one of `allowed`."""
    if isinstance(value, bool) or value not in allowed:
        choices = ", ".join(str(one) for one in allowed)
        raise VideoError(f"{name.replace('_', ' ')} must be one of {choices}, not {value!r}")


def parse_fps(value: object) -> Fraction:
    """A frame rate as a Fraction from an int, Fraction, float or a string like "25", "23.976" or
    "30000/1001". Raises VideoError unless it is positive and at most 1000."""
    try:
        if isinstance(value, float):
            value = Fraction(value).limit_denominator(1001)
        fps = Fraction(value)
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        raise VideoError(f"frame rate {value!r} is not a number such as 25 or 30000/1001") from None
    if not 0 < fps <= 1000:
        raise VideoError(f"frame rate {fps} is out of range: give one above 0 and at most 1000")
    return fps
