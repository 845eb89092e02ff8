"""Validation: rate and quality of held-out clips, by the estimate that equals the real bytes."""

import copy

import torch
from torch import Tensor

from codec.training.data import Clip
from codec.training.loss import MS_SSIM_SCALE, distortion_of
from codec.video_codec import FrameCoder, VideoCodec

QUALITIES = (8, 24, 40, 56)


def evaluation_copy(codec: VideoCodec) -> VideoCodec:
    """The codec as it would be exported: in evaluation mode, with tables of its own."""
    probe = copy.deepcopy(codec).eval()
    probe.update()
    return probe


def middle_square(clip: Clip, frames: int, size: int) -> Tensor:
    """The first frames of a clip, at most ``frames``: [T, 3, s, s] cut out of the middle.

    ``s`` is even, at most ``size`` and at most the clip's shorter side.
    """
    side = min(size, clip.height, clip.width) // 2 * 2
    top, left = (clip.height - side) // 4 * 2, (clip.width - side) // 4 * 2
    return clip.read(0, min(frames, clip.frames), top, left, side)


@torch.no_grad()
def validate(
    codec: VideoCodec,
    clips: list[Clip],
    frames: int = 8,
    size: int = 256,
    distortion: str = "mse",
) -> dict[str, float]:
    """bpp and PSNR (dB) of I and P frames at a few qualities, averaged over clips.

    ``loss`` is the mean over qualities and the two kinds of frames of
    (lambda * distortion + bpp) / sqrt(lambda): what checkpoints are compared by. With ``ms-ssim``
    for the distortion it is that of the training loss, and there is ``ms_ssim`` beside the PSNR.
    """
    distorted = distortion_of(distortion)
    probe = evaluation_copy(codec)
    device = next(probe.parameters()).device
    result: dict[str, float] = {}
    losses = []
    for quality in QUALITIES:
        rates: dict[str, list[float]] = {"I": [], "P": []}
        errors: dict[str, list[float]] = {"I": [], "P": []}
        losses_of: dict[str, list[float]] = {"I": [], "P": []}
        motion: list[float] = []
        for clip in clips:
            video = middle_square(clip, frames, size).to(device)
            side = video.shape[-1]
            coder = FrameCoder(probe, side, side)
            for t, frame in enumerate(video):
                level = codec.frame_quality(quality, t)
                bits, decoded = coder.estimate(frame[None], t == 0, level)
                kind = "I" if t == 0 else "P"
                rates[kind].append(sum(bits.values()) / side**2)
                errors[kind].append(float((decoded - frame[None]).square().mean()))
                losses_of[kind].append(float(distorted(decoded, frame[None])))
                if t:
                    moved = bits.get("motion", 0.0) + bits.get("motion_hyper", 0.0)
                    motion.append(moved / side**2)
        weight = float(codec.lambda_of(quality))
        for kind in "IP":
            if rates[kind]:
                bpp = sum(rates[kind]) / len(rates[kind])
                decibels = -10 * torch.log10(torch.tensor(errors[kind]).clamp(min=1e-10))
                result[f"q{quality}/{kind}/bpp"] = bpp
                result[f"q{quality}/{kind}/psnr"] = float(decibels.mean())
                lost = sum(losses_of[kind]) / len(losses_of[kind])
                if distortion == "ms-ssim":
                    result[f"q{quality}/{kind}/ms_ssim"] = 1 - lost * MS_SSIM_SCALE
                losses.append((weight * lost + bpp) / weight**0.5)
        if motion:
            result[f"q{quality}/P/bpp_motion"] = sum(motion) / len(motion)
    result["loss"] = sum(losses) / len(losses)
    return result
