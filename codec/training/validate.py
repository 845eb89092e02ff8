"""Validation: rate and quality of held-out clips, by the estimate that equals the real bytes."""

import copy

import torch

from codec.training.data import Clip
from codec.video_codec import FrameCoder, VideoCodec

QUALITIES = (8, 24, 40, 56)


@torch.no_grad()
def validate(
    codec: VideoCodec, clips: list[Clip], frames: int = 8, size: int = 256
) -> dict[str, float]:
    """bpp and PSNR (dB) of I and P frames at a few qualities, averaged over clips.

    ``loss`` is the mean over qualities of (lambda * MSE + bpp) / sqrt(lambda): what checkpoints are
    compared by.
    """
    probe = copy.deepcopy(codec).eval()
    probe.update()
    device = next(probe.parameters()).device
    result: dict[str, float] = {}
    losses = []
    for quality in QUALITIES:
        rates: dict[str, list[float]] = {"I": [], "P": []}
        errors: dict[str, list[float]] = {"I": [], "P": []}
        motion: list[float] = []
        for clip in clips:
            side = min(size, clip.height, clip.width) // 2 * 2
            top, left = (clip.height - side) // 4 * 2, (clip.width - side) // 4 * 2
            video = clip.read(0, min(frames, clip.frames), top, left, side).to(device)
            coder = FrameCoder(probe, side, side)
            for t, frame in enumerate(video):
                level = codec.frame_quality(quality, t)
                bits, decoded = coder.estimate(frame[None], t == 0, level)
                kind = "I" if t == 0 else "P"
                rates[kind].append(sum(bits.values()) / side**2)
                errors[kind].append(float((decoded - frame[None]).square().mean()))
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
                mse = sum(errors[kind]) / len(errors[kind])
                losses.append((weight * mse + bpp) / weight**0.5)
        if motion:
            result[f"q{quality}/P/bpp_motion"] = sum(motion) / len(motion)
    result["loss"] = sum(losses) / len(losses)
    return result
