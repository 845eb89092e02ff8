"""What happened in one P frame: motion, matches, attention, bits and errors, as arrays.

Decodes a stream up to the frame with its model, and looks at the stages of compensation on the way.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from codec.drawing import over_pixels
from codec.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from codec.inter import InterOutput
    from codec.video_codec import VideoCodec


@dataclass
class Search:
    """What a shifted search found at one scale.

    Attributes:
        shift: mean of the matches weighed, less the flow they were sought round, [2, h, w] pixels
            of the scale.
        places: of every match from its window's middle, [N, 2]; weights [N] beside them.
        older: share of the weight that went to the second reference, 0 where there is none.
    """

    shift: np.ndarray
    places: np.ndarray
    weights: np.ndarray
    older: float


@dataclass
class Explanation:
    """One P frame. Pictures are [H, W, 3] in 0..1, fields [2, H, W] in pixels (x, y).

    Attributes:
        number: of the frame in the stream.
        decoded, reference, warped: the frame, the one before it, and that one brought over.
        original: the frame as it was, None where it is not at hand.
        flow: decoded flow at the size of the frame.
        searches: by scale, 0 the finest.
        attention: by scale, [C, h, w] maps of the summaries.
        bits: by part, bits a pixel [H, W] where the latent that paid for it lies.
        errors: mean squared error to the original (else to the decoded frame) by stage, in order:
            ``reference``, ``local``, ``shifted`` (the frame as the search says), ``decoded``.
    """

    number: int
    decoded: np.ndarray
    reference: np.ndarray
    warped: np.ndarray
    original: np.ndarray | None
    flow: np.ndarray
    searches: dict[int, Search] = field(default_factory=dict)
    attention: dict[int, np.ndarray] = field(default_factory=dict)
    bits: dict[str, np.ndarray] = field(default_factory=dict)
    errors: dict[str, np.ndarray] = field(default_factory=dict)

    def figures(self) -> dict:
        """PSNR in dB by stage, bits a pixel by part, longest vectors."""
        return {
            "frame": self.number,
            "compared_with": "decoded" if self.original is None else "original",
            "psnr": {
                stage: float(-10 * np.log10(max(float(error.mean()), 1e-10)))
                for stage, error in self.errors.items()
            },
            "bpp": {part: float(bits.mean()) for part, bits in self.bits.items()},
            "longest_flow": float(np.hypot(*self.flow).max()),
            "longest_correction": {
                str(scale): float(np.hypot(*search.shift).max())
                for scale, search in self.searches.items()
            },
        }


def explain(
    stream: str | Path,
    number: int,
    *,
    model: str | None = None,
    original: str | Path | None = None,
    device: str = "cpu",
    reader_options: dict | None = None,
) -> Explanation:
    """Decode up to frame ``number`` (from 0) and say what its compensation did.

    Raises:
        ConfigError: there is no such frame, it is an I frame, or the original is of another size.
    """
    import torch

    from codec.bitstream.packets import PacketType
    from codec.entropy.coders import StreamDecoder
    from codec.session import Decoding
    from codec.video_codec import FrameCoder

    with Decoding(stream, model, device, partial=False, verify=False) as decoding:
        form, codec = decoding.format, decoding.codec
        coder = FrameCoder(codec, form.height, form.width)
        for count, packet in enumerate(decoding.packets()):
            intra = packet.type is PacketType.INTRA
            if count < number:
                coder.decode(packet.payload, intra, packet.quality)
                continue
            if intra:
                raise ConfigError(f"frame {number} of {stream} is an I frame: choose a P frame")
            before = coder.state
            decoder = StreamDecoder(packet.payload, account=True)
            level = torch.tensor([packet.quality], dtype=torch.float32, device=device)
            with torch.inference_mode(), _watched(codec) as seen:
                out = codec.code_inter(None, before, decoder, level, coder.size)
                size = (form.height, form.width)
                real = _original(original, number, size, device, reader_options or {})
                return _assemble(number, codec, before.frame, out, seen, decoder.maps, size, real)
    raise ConfigError(f"{stream} has no frame {number}: frames are counted from 0")


@contextmanager
def _watched(codec: VideoCodec) -> Iterator[dict]:
    """Inputs of the shifted and global stages while they run, by kind and scale."""
    seen: dict = {}
    stages = codec.inter.compensation
    hooks = []
    for kind, modules in (("shifted", stages.shifted), ("global", stages.attention)):
        for scale, module in modules.items():
            hooks.append(module.register_forward_pre_hook(_note(seen, kind, int(scale))))
    for side in (codec.inter.encoder, codec.inter.decoder):
        if getattr(side, "attention", None) is not None:
            hooks.append(side.attention.register_forward_pre_hook(_note(seen, "global", -1)))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _note(seen: dict, kind: str, scale: int):
    return lambda module, inputs: seen.__setitem__((kind, scale), (module, inputs))


def _assemble(
    number: int,
    codec: VideoCodec,
    reference: Tensor,
    out: InterOutput,
    seen: dict,
    maps: dict[str, np.ndarray],
    size: tuple[int, int],
    original: Tensor | None,
) -> Explanation:
    from codec.flow import to_full_size

    height, width = size
    flow = to_full_size(out.flow, codec.config.inter.flow.top)
    pictures = {"reference": reference, "local": out.warped_frame.clamp(0, 1)}
    searches, attention = {}, {}
    for (kind, scale), (module, inputs) in sorted(seen.items()):
        if kind == "global":
            attention[scale] = module.maps(inputs[1])[0].float().cpu().numpy()
            continue
        weights, offsets = module.matches(*inputs)
        searches[scale] = found_by(weights, offsets, inputs[2])
        pictures["shifted"] = followed(reference, flow, searches[scale].shift)
    pictures["decoded"] = out.state.frame
    pictures = {name: x[..., :height, :width] for name, x in pictures.items()}
    target = pictures["decoded"] if original is None else original
    errors = {
        name: (x - target)[0].square().mean(0).cpu().numpy()
        for name, x in pictures.items()
        if x is not target
    }
    bits = {part: over_pixels(values, size, part) for part, values in maps.items()}

    def picture(x: Tensor) -> np.ndarray:
        return x[0].permute(1, 2, 0).cpu().numpy()

    return Explanation(
        number,
        picture(pictures["decoded"]),
        picture(pictures["reference"]),
        picture(pictures["local"]),
        None if original is None else picture(original),
        flow[0, :, :height, :width].cpu().numpy(),
        searches,
        attention,
        bits,
        errors,
    )


def found_by(weights: Tensor, offsets: Tensor, flows: Tensor) -> Search:
    """Matches as distances from the flow that they were sought round."""
    import torch

    moved = offsets[..., -2:]  # [B, heads, h, w, K, 2]
    if offsets.shape[-1] == 3:
        which = offsets[..., 0].long()  # [B, heads, h, w, K]
    else:
        which = torch.zeros_like(weights, dtype=torch.long)
    centres = flows.permute(0, 3, 4, 1, 2)  # [B, h, w, R, 2]
    centre = torch.take_along_dim(centres[:, None], which[..., None].expand(*which.shape, 2), dim=4)
    away = moved - centre
    shift = (weights[..., None] * away).sum(4).mean(1)  # [B, h, w, 2]
    return Search(
        shift[0].permute(2, 0, 1).cpu().numpy(),
        away.reshape(-1, 2).cpu().numpy(),
        weights.reshape(-1).cpu().numpy(),
        float((weights * (which > 0)).sum() / weights.sum()),
    )


def followed(reference: Tensor, flow: Tensor, shift: np.ndarray) -> Tensor:
    """The reference brought over by the flow and the search's correction of it."""
    import torch
    import torch.nn.functional as F

    from codec.layers import warp

    field = torch.from_numpy(shift)[None].to(flow.device)
    factor = flow.shape[-1] / field.shape[-1]
    field = F.interpolate(field, flow.shape[-2:], mode="bilinear", align_corners=False) * factor
    return warp(reference, flow + field)


def _original(
    path: str | Path | None,
    number: int,
    size: tuple[int, int],
    device: str,
    options: dict,
) -> torch.Tensor | None:
    """Frame ``number`` of the video that was encoded, [1, 3, H, W]."""
    if path is None:
        return None
    from itertools import islice

    from codec.video import open_reader
    from codec.video.colour import frame_to_rgb

    with open_reader(path, **options) as reader:
        if (reader.format.height, reader.format.width) != size:
            raise ConfigError(f"{path} is {reader.format}, the stream {size[1]}x{size[0]}")
        for frame in islice(reader, number, number + 1):
            return frame_to_rgb(frame, reader.format, device).clamp(0, 1)
    raise ConfigError(f"{path} has no frame {number}")
