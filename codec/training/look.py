"""What a codec makes of one fixed held-out clip, as pictures and histograms: for TensorBoard.

A few frames are coded once more beside a validation; no step of training does anything for it.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from codec.drawing import colour_wheel, flow_colours, heat, over_pixels
from codec.entropy.coders import Prior, RateEstimate
from codec.entropy.priors import ConditionalPrior
from codec.flow import to_full_size
from codec.training.data import Clip
from codec.training.validate import evaluation_copy, middle_square
from codec.video_codec import VideoCodec

QUALITY = 32
FRAMES = 4


@dataclass
class Look:
    """The last frame of the clip's beginning, and the symbols of all its frames.

    Attributes:
        pictures: [H, W, 3] in 0..1 by name: ``frame``, ``reconstruction``, ``bits_<group>`` and,
            where it is a P frame, ``flow``. Bits are of blocks, for the groups ``intra`` or
            ``motion`` and ``residual``, each map scaled to its own maximum; the flow is scaled to
            its longest vector and has the wheel of its colours in a corner.
        figures: what the pictures are scaled to: ``longest_flow`` in pixels and, by group,
            ``dearest_block_<group>`` in bits of a block of 16 x 16; ``coded_share_<part>``, the
            share of the part's symbols that are in the stream.
        symbols: integers by part of the bitstream, those that are in the stream.
        scales: log2 of the scale of every symbol's density by part; a hyper latent has none, its
            densities are the channels'.
    """

    pictures: dict[str, np.ndarray] = field(default_factory=dict)
    figures: dict[str, float] = field(default_factory=dict)
    symbols: dict[str, np.ndarray] = field(default_factory=dict)
    scales: dict[str, np.ndarray] = field(default_factory=dict)


@torch.no_grad()
def look(codec: VideoCodec, clips: list[Clip], size: int = 256) -> Look:
    """Code the first frames of the first clip, by name, at quality 32.

    Args:
        codec: as it trains; it is left as it is.
        clips: held out, at least one.
        size: of the square that is cut out of the middle, at most.
    """
    clip = min(clips, key=lambda one: one.name)
    probe = evaluation_copy(codec)
    device = next(probe.parameters()).device
    video = middle_square(clip, FRAMES, size).to(device)
    height, width = video.shape[-2:]
    shape = probe.latent_size(height, width)
    seen = Look()
    kept: dict[str, list[_Coded]] = {}
    state = flow = None
    for t, frame in enumerate(video):
        coder = _Keeping()
        level = torch.tensor([probe.frame_quality(QUALITY, t)], dtype=torch.float32, device=device)
        padded = probe.pad(frame[None]).contiguous(memory_format=torch.channels_last)
        if state is None:
            state = probe.code_intra(padded, coder, level, shape)
        else:
            out = probe.code_inter(padded, state, coder, level, shape)
            state, flow = out.state, to_full_size(out.flow, probe.config.inter.flow.top)
        for part, coded in coder.coded.items():
            kept.setdefault(part, []).append(coded)

    seen.pictures["frame"] = _picture(frame)
    seen.pictures["reconstruction"] = _picture(state.frame[0, :, :height, :width])
    if flow is not None:
        field_ = flow[0, :, :height, :width].float().cpu().numpy()
        seen.pictures["flow"] = _with_wheel(flow_colours(field_))
        seen.figures["longest_flow"] = float(np.hypot(*field_).max())
    for group, bits in _bits_by_group(coder.maps, (height, width)).items():
        seen.pictures[f"bits_{group}"] = heat(bits)
        seen.figures[f"dearest_block_{group}"] = float(bits.max()) * 16**2
    for part, all_coded in kept.items():
        symbols = np.concatenate([one.symbols.ravel() for one in all_coded])
        inside = np.concatenate([one.inside.ravel() for one in all_coded])
        seen.symbols[part] = symbols[inside]
        seen.figures[f"coded_share_{part}"] = float(inside.mean())
        scales = [one.scales.ravel() for one in all_coded if one.scales is not None]
        if scales:
            seen.scales[part] = np.log2(np.concatenate(scales))
    return seen


@dataclass
class _Coded:
    """Symbols of a latent, which of them are in the stream, and the scales of their densities."""

    symbols: np.ndarray
    inside: np.ndarray
    scales: np.ndarray | None


class _Keeping(RateEstimate):
    """The estimate that validation goes by, which also keeps what it priced, by part."""

    def __init__(self) -> None:
        super().__init__(account=True)
        self.coded: dict[str, _Coded] = {}

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        symbols = super().code(residual, index, prior, part)
        values = symbols.cpu().numpy()
        if isinstance(prior, ConditionalPrior):
            index = prior.clamp(torch.round(index.float()))
            inside = (index >= prior.first_coded).cpu().numpy()
            self.coded[part] = _Coded(values, inside, prior.scale(index).cpu().numpy())
        else:
            self.coded[part] = _Coded(values, np.ones(values.shape, bool), None)
        return symbols


def _bits_by_group(maps: dict[str, np.ndarray], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Bits a pixel [H, W] of each latent and its hyper latent together."""
    groups: dict[str, np.ndarray] = {}
    for part, bits in maps.items():
        group = part.removesuffix("_hyper")
        groups[group] = groups.get(group, 0.0) + over_pixels(bits, size, part)
    return groups


def _picture(frame: Tensor) -> np.ndarray:
    return frame.clamp(0, 1).permute(1, 2, 0).float().cpu().numpy()


def _with_wheel(colours: np.ndarray) -> np.ndarray:
    """The colours of directions in the lower right corner, an eighth of the picture high."""
    side = max(16, min(colours.shape[:2]) // 8)
    colours = colours.copy()
    colours[-side:, -side:] = colour_wheel(side)
    return colours
