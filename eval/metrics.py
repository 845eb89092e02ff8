"""Rate and distortion, one function each, used for every codec alike.

The metrics compare the integer planes that were read with the integer planes that a decoder wrote,
frame by frame; a sequence's figure is the mean of its frames' figures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from codec.errors import VideoError

if TYPE_CHECKING:
    from codec.video.format import Frame, VideoFormat

PSNR_CAP = 100.0
"""dB given to identical planes, and the most any PSNR can be: averages stay finite, JSON valid."""

YUV_WEIGHTS = (6, 1, 1)
"""Weights of Y, U and V in ``psnr_yuv611``: the usual weighting of the HEVC era, also DCVC's."""

YUV_WEIGHTS_411 = (4, 1, 1)
"""Weights of Y, U and V in ``psnr_yuv411``: those of the samples of 4:2:0."""

MS_SSIM_MIN_SIDE = 161
"""MS-SSIM halves the picture four times under an 11-tap window: both sides must exceed 160."""

METRICS = ("psnr_y", "psnr_u", "psnr_v", "psnr_yuv611", "psnr_yuv411", "psnr_rgb", "ms_ssim")
"""What is always measured."""

EXTRA_METRICS = ("vmaf", "xpsnr_y", "xpsnr_u", "xpsnr_v")
"""What is measured when asked for, by ``eval.filter_metrics``."""


def bits_per_pixel(file_bytes: int, width: int, height: int, frames: int) -> float:
    """Bits of a file over the luma pixels of all its frames."""
    return 8.0 * file_bytes / (width * height * frames)


def kilobits_per_second(file_bytes: int, frames: int, fps: Fraction) -> float:
    """1000 bits a second at the video's own frame rate."""
    return 8.0 * file_bytes * float(fps) / frames / 1000.0


def mse_plane(reference: np.ndarray, decoded: np.ndarray) -> float:
    """Mean squared error of two integer planes [H, W] of one shape, in float64.

    Raises VideoError where the shapes differ: a picture is never resized to be measured.
    """
    if reference.shape != decoded.shape:
        raise VideoError(
            f"the decoded plane is {_size(decoded)} and the original {_size(reference)}: "
            "decode at the original size before measuring"
        )
    difference = reference.astype(np.float64) - decoded.astype(np.float64)  # [H, W]
    return float(np.mean(difference * difference))


def psnr(mse: float, bit_depth: int = 8) -> float:
    """PSNR in dB of a mean squared error, peak 2^bit_depth - 1, at most ``PSNR_CAP``.

    The peak is the full code range whatever the range of the video, as HM, VTM and FFmpeg do.
    """
    if mse <= 0.0:
        return PSNR_CAP
    peak = float((1 << bit_depth) - 1)
    return min(PSNR_CAP, 10.0 * float(np.log10(peak * peak / mse)))


def psnr_plane(reference: np.ndarray, decoded: np.ndarray, bit_depth: int = 8) -> float:
    """PSNR in dB of one integer plane [H, W]."""
    return psnr(mse_plane(reference, decoded), bit_depth)


def psnr_yuv611(psnr_y: float, psnr_u: float, psnr_v: float) -> float:
    """(6 PSNR_Y + PSNR_U + PSNR_V) / 8 in dB, of one frame."""
    return _weighted(YUV_WEIGHTS, (psnr_y, psnr_u, psnr_v))


def psnr_yuv411(psnr_y: float, psnr_u: float, psnr_v: float) -> float:
    """(4 PSNR_Y + PSNR_U + PSNR_V) / 6 in dB, of one frame."""
    return _weighted(YUV_WEIGHTS_411, (psnr_y, psnr_u, psnr_v))


def _weighted(weights: tuple[int, int, int], values: tuple[float, float, float]) -> float:
    pairs = zip(weights, values, strict=True)
    return sum(weight * value for weight, value in pairs) / sum(weights)


def rgb8(frame: Frame, video_format: VideoFormat) -> np.ndarray:
    """A frame as 8-bit integer RGB [3, H, W] uint8, through the project's one colour conversion.

    10-bit video is brought to 8-bit RGB too, so that RGB figures mean the same for both.
    """
    from codec.video.colour import frame_to_rgb

    rgb = frame_to_rgb(frame, video_format)  # [1, 3, H, W] float32 in [0, 1]
    return (rgb[0] * 255.0).round().clamp(0, 255).byte().cpu().numpy()


def psnr_rgb(reference: np.ndarray, decoded: np.ndarray) -> float:
    """PSNR in dB of two 8-bit RGB pictures [3, H, W]: one MSE over the three channels."""
    if reference.ndim != 3 or reference.shape[0] != 3:
        raise ValueError(f"psnr_rgb takes [3, H, W], not {reference.shape}")
    rows = (reference.reshape(-1, reference.shape[-1]), decoded.reshape(-1, decoded.shape[-1]))
    return psnr_plane(*rows)


def ms_ssim(reference: np.ndarray, decoded: np.ndarray) -> float | None:
    """MS-SSIM in [0, 1] of two 8-bit RGB pictures [3, H, W]; None where a side is <= 160 pixels.

    Source: pytorch-msssim with its defaults (11-tap Gaussian of sigma 1.5, five scales), the mean
    over the three channels.
    """
    if min(reference.shape[-2:]) < MS_SSIM_MIN_SIDE:
        return None
    import torch
    from pytorch_msssim import ms_ssim as measure

    pair = [torch.from_numpy(np.ascontiguousarray(p)).float()[None] for p in (reference, decoded)]
    with torch.no_grad():
        return float(measure(pair[0], pair[1], data_range=255.0, size_average=True))


def ms_ssim_db(value: float) -> float:
    """-10 log10(1 - MS-SSIM) in dB, at most ``PSNR_CAP``: the scale on which its BD is computed."""
    remainder = 1.0 - value
    if remainder <= 0.0:
        return PSNR_CAP
    return min(PSNR_CAP, -10.0 * float(np.log10(remainder)))


def frame_metrics(
    reference: Frame, decoded: Frame, video_format: VideoFormat
) -> dict[str, float | None]:
    """All of ``METRICS`` for one frame; None where one has no meaning for this video.

    Y, U and V are None for RGB video, MS-SSIM for a side of at most 160 pixels.
    """
    values: dict[str, float | None] = dict.fromkeys(METRICS)
    if video_format.chroma == "rgb":
        for plane, other in zip(reference, decoded, strict=True):
            mse_plane(plane, other)  # the shapes are checked on the planes themselves
    else:
        planes = zip(reference, decoded, strict=True)
        y, u, v = (psnr_plane(a, b, video_format.bit_depth) for a, b in planes)
        values.update(psnr_y=y, psnr_u=u, psnr_v=v, psnr_yuv611=psnr_yuv611(y, u, v))
        values["psnr_yuv411"] = psnr_yuv411(y, u, v)
    original, result = rgb8(reference, video_format), rgb8(decoded, video_format)
    values["psnr_rgb"] = psnr_rgb(original, result)
    values["ms_ssim"] = ms_ssim(original, result)
    return values


def measure(
    reference: Iterable[Frame],
    decoded: Iterable[Frame],
    video_format: VideoFormat,
    also: Callable[[Frame, Frame], None] = lambda original, decoded: None,
) -> list[dict[str, float | None]]:
    """``frame_metrics`` of every pair of frames, in order, holding one pair at a time.

    also: given every pair too. Raises VideoError where the two do not have the same number of
    frames: a codec that drops or repeats one would otherwise be measured against the wrong
    pictures.
    """
    rows: list[dict[str, float | None]] = []
    originals: Iterator[Frame] = iter(reference)
    results: Iterator[Frame] = iter(decoded)
    while True:
        original, result = next(originals, None), next(results, None)
        if original is None and result is None:
            return rows
        if original is None or result is None:
            longer = "more" if original is None else "fewer"
            raise VideoError(
                f"the codec gave back {longer} frames than it was given ({len(rows)} "
                "agree): its points cannot be measured"
            )
        rows.append(frame_metrics(original, result, video_format))
        also(original, result)


def average(rows: list[dict[str, float | None]]) -> dict[str, float | None]:
    """The mean over frames of each metric; None where a frame has none."""
    means: dict[str, float | None] = {}
    for name in rows[0] if rows else METRICS:
        values = [row[name] for row in rows]
        missing = not values or any(value is None for value in values)
        means[name] = None if missing else float(np.mean(values))
    return means


def _size(plane: np.ndarray) -> str:
    return "x".join(str(side) for side in reversed(plane.shape))
