"""Decoded FFmpeg frames as our planes: the one place where foreign pixel formats are converted.

| decoded                               | becomes                                              |
|---------------------------------------|------------------------------------------------------|
| yuv420p, yuv444p, 8 or 10 bit         | itself, bit for bit (yuvj: full range; alpha dropped) |
| nv12, p010, other layouts of the same | the same samples as three planes                     |
| 4:2:2, 4:4:0, 4:1:1, 4:1:0            | 4:4:4, luma kept, chroma interpolated by swscale      |
| 9, 12, 14, 16 bit                     | 10 bit, by swscale                                   |
| grey                                  | 4:2:0 with neutral chroma, full range if unsaid      |
| RGB, GBR, palette                     | rgb of 8 bit, of 10 where it has more                |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from codec.errors import VideoError
from codec.video.format import Frame

if TYPE_CHECKING:
    import av

_DIRECT = {
    f"{stem}{chroma}p{depth}"
    for chroma in ("420", "444")
    for stem, depths in (("yuv", ("", "10le")), ("yuva", ("", "10le")), ("yuvj", ("",)))
    for depth in depths
}
_FULL = 2  # FFmpeg's code of full range
_FULL_BY_HABIT = ("gray", "ya", "mono")


@dataclass(frozen=True)
class PlanePlan:
    """How a decoded pixel format becomes planes: chroma and bit depth as in VideoFormat; via:
    FFmpeg's name of the format to convert to first, None for none; grey: chroma is made up."""

    chroma: str
    bit_depth: int
    via: str | None = None
    grey: bool = False

    @property
    def dtype(self) -> type[np.unsignedinteger]:
        return np.uint8 if self.bit_depth == 8 else np.uint16


def plan_for(pix_fmt: av.VideoFormat, name: str) -> PlanePlan:
    """The plan for a decoded pixel format; `name` is the source's, for the message.

    Raises VideoError for formats that are no picture in memory (hardware surfaces) or are not
    Y'CbCr, grey or RGB."""
    kind = pix_fmt.name
    if not pix_fmt.components:
        raise VideoError(f"{name}: pixel format {kind} cannot be read: convert it to yuv420p first")
    depth = 8 if max(component.bits for component in pix_fmt.components) <= 8 else 10
    suffix = "" if depth == 8 else "10le"
    if kind.startswith(_FULL_BY_HABIT):
        own = kind in ("gray", "gray10le")
        return PlanePlan("420", depth, None if own else f"gray{suffix}", grey=True)
    if pix_fmt.is_rgb or pix_fmt.has_palette or pix_fmt.is_bayer:
        return PlanePlan("rgb", depth, None if kind == f"gbrp{suffix}" else f"gbrp{suffix}")
    if kind.startswith("xyz") or len(pix_fmt.components) < 3:
        raise VideoError(f"{name}: pixel format {kind} is not read: convert it to yuv420p first")
    halved = pix_fmt.chroma_width(64) == 32 and pix_fmt.chroma_height(64) == 32
    chroma = "420" if halved else "444"
    return PlanePlan(chroma, depth, None if kind in _DIRECT else f"yuv{chroma}p{suffix}")


def is_full_by_habit(kind: str) -> bool:
    """Whether a pixel format means full range where nothing is said."""
    return kind.startswith(_FULL_BY_HABIT)


def planes_of(frame: av.VideoFrame, plan: PlanePlan) -> Frame:
    """The planes of a decoded frame, in the range that it has."""
    if plan.via is not None:
        if plan.via == "gbrp":  # a shuffle of bytes; swscale's own way to gbrp may round
            pixels = frame.to_ndarray(format="rgb24")  # [H, W, 3]
            return tuple(np.ascontiguousarray(pixels[..., channel]) for channel in (0, 1, 2))
        # The same range on both sides means that swscale leaves it alone; it must be full, because
        # swscale takes yuvj and grey as full whatever is said.
        frame = frame.reformat(
            format=plan.via,
            src_color_range=_FULL,
            dst_color_range=_FULL,
            interpolation="BICUBIC",
        )
    if plan.grey:
        grey = _plane(frame.planes[0], plan.dtype)
        half = ((grey.shape[0] + 1) // 2, (grey.shape[1] + 1) // 2)
        neutral = 1 << (plan.bit_depth - 1)
        return grey, np.full(half, neutral, plan.dtype), np.full(half, neutral, plan.dtype)
    first, second, third = (_plane(plane, plan.dtype) for plane in frame.planes[:3])
    if plan.chroma == "rgb":  # FFmpeg keeps G, B, R
        return third, first, second
    return first, second, third


def fill_planes(frame: av.VideoFrame, planes: Frame, rgb: bool) -> None:
    """Copy our planes into an FFmpeg frame of the same planar format."""
    order = (1, 2, 0) if rgb else (0, 1, 2)
    for target, index in zip(frame.planes, order, strict=False):
        view = np.frombuffer(target, planes[index].dtype).reshape(target.height, -1)
        view[:, : target.width] = planes[index]


def _plane(plane: av.video.plane.VideoPlane, dtype: type[np.unsignedinteger]) -> np.ndarray:
    """A copy of one plane without the padding of its lines."""
    lines = np.frombuffer(plane, np.uint8, plane.line_size * plane.height)
    return lines.reshape(plane.height, -1).view(dtype)[:, : plane.width].copy()
