"""Colour conversion: the one place where Y'CbCr becomes R'G'B' and back.

Matrices are ITU-R BT.601-7 and BT.709-6, quantised as in their section 3 (limited) or over all
codes (full, as JFIF). `frame_to_rgb` does not clamp: codes beyond the nominal black and white, and
Y'CbCr triples outside the RGB cube, come out slightly below 0 or above 1, and therefore
`rgb_to_frame(frame_to_rgb(frame))` gives every 8- and 10-bit frame back bit for bit, 4:4:4 and
4:2:0 alike. Who needs [0, 1] clamps it.

4:2:0 chroma is sited as in MPEG-2, H.264 and HEVC by default: on the even luma columns, half way
between two luma rows. See `chroma_sampling` for the filters.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from codec.video.chroma_sampling import columns_down, rows_down, upsample
from codec.video.format import Frame, VideoFormat

_KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def frame_to_rgb(frame: Frame, format: VideoFormat, device: str | torch.device = "cpu") -> Tensor:
    """The R'G'B' picture of a frame.

    frame: planes as `format` says. Returns [1, 3, H, W] float32 on `device`, nominally in [0, 1];
    not clamped (see the module's text). Raises VideoError for planes of another shape or type.
    """
    format.check_frame(frame)
    planes = [_to_tensor(plane, device) for plane in frame]
    if format.chroma == "rgb":
        return torch.stack(planes).mul_(1.0 / format.max_value)[None]
    return codes_to_rgb(planes[0][None], torch.stack(planes[1:])[None], format)


def codes_to_rgb(luma: Tensor, chroma: Tensor, format: VideoFormat) -> Tensor:
    """Y'CbCr codes -> R'G'B', for a batch of pictures of any size (that of `format` is not read).

    luma: [B, H, W]; chroma: [B, 2, h, w], Cb and Cr, half the size for 4:2:0; both float32 on any
    device, and overwritten. Returns [B, 3, H, W] float32, nominally in [0, 1]; not clamped.
    """
    y_offset, y_scale, c_offset, c_scale = _quantisation(format)
    kr, kb = _KR_KB[format.matrix]
    kg = 1.0 - kr - kb
    batch, height, width = luma.shape
    y = luma.sub_(y_offset).div_(y_scale)  # [B, H, W]
    chroma = chroma.sub_(c_offset).div_(c_scale)  # [B, 2, h, w]
    if format.chroma == "420":
        chroma = upsample(chroma.flatten(0, 1), height, width).view(batch, 2, height, width)
    cb, cr = chroma.unbind(1)  # [B, H, W]
    rgb = torch.empty((batch, 3, height, width), device=luma.device)
    red, green, blue = rgb.unbind(1)
    torch.add(y, cr, alpha=2 * (1 - kr), out=red)
    torch.add(y, cb, alpha=2 * (1 - kb), out=blue)
    torch.add(y, cb, alpha=-2 * (1 - kb) * kb / kg, out=green)
    green.add_(cr, alpha=-2 * (1 - kr) * kr / kg)
    return rgb


def rgb_to_frame(rgb: Tensor, format: VideoFormat) -> Frame:
    """The frame nearest to an R'G'B' picture: the inverse of `frame_to_rgb`.

    rgb: [1, 3, H, W] or [3, H, W], floating point, any device, nominally in [0, 1]. Samples are
    rounded to nearest and clipped to the codes of the bit depth (0..255, 0..1023); an rgb within
    [0, 1] stays within limited range's nominal codes by itself. Returns planes on the CPU.
    """
    if rgb.dim() == 4:
        if rgb.shape[0] != 1:
            raise ValueError(f"rgb_to_frame takes one picture, not a batch of {rgb.shape[0]}")
        rgb = rgb[0]
    if tuple(rgb.shape) != (3, format.height, format.width):
        raise ValueError(f"an rgb picture of shape {tuple(rgb.shape)} is not {format}")
    rgb = rgb.detach().float()
    red, green, blue = rgb  # [H, W] each
    top = format.max_value
    if format.chroma == "rgb":
        return tuple(_to_codes(plane * top, 0.0, format) for plane in (red, green, blue))
    y_offset, y_scale, c_offset, c_scale = _quantisation(format)
    kr, kb = _KR_KB[format.matrix]
    y = (red * kr).add_(green, alpha=1 - kr - kb).add_(blue, alpha=kb)
    coloured, grey = rgb[0::2], y  # R' and B'
    if format.chroma == "420":
        coloured, grey = rows_down(coloured), rows_down(grey)
    chroma = coloured - grey  # [2, H or h, W]: R' - Y', B' - Y'
    if format.chroma == "420":
        chroma = columns_down(chroma)  # [2, h, w]
    scales = y.new_tensor([c_scale / (2 * (1 - weight)) for weight in (kr, kb)])
    cr, cb = _to_codes(chroma.mul_(scales[:, None, None]), c_offset, format)
    return _to_codes(y.mul_(y_scale), y_offset, format), cb, cr


def convert_frame(frame: Frame, source: VideoFormat, target: VideoFormat) -> Frame:
    """A frame of `source` as one of `target`: chroma, depth, matrix and range may differ, the size
    may not. Planes that mean the same in both formats are returned as they are."""
    meaning = ("chroma", "bit_depth", "matrix", "range")
    if all(getattr(source, name) == getattr(target, name) for name in meaning):
        return frame
    return rgb_to_frame(frame_to_rgb(frame, source), target)


def _quantisation(format: VideoFormat) -> tuple[float, float, float, float]:
    """(offset, scale) of Y' and of the colour differences, in codes of the bit depth."""
    step = 1 << (format.bit_depth - 8)
    if format.range == "limited":
        return 16.0 * step, 219.0 * step, 128.0 * step, 224.0 * step
    return 0.0, float(format.max_value), 128.0 * step, float(format.max_value)


def _to_tensor(plane: np.ndarray, device: str | torch.device) -> Tensor:
    """A float32 copy of a plane; samples travel to the device as integers."""
    if plane.dtype == np.uint16:
        plane = plane.view(np.int16)  # 10-bit samples fit, and every back end converts int16
    if not plane.flags.writeable:  # torch warns of read-only memory, even if it is only read
        plane = plane.copy()
    return torch.from_numpy(plane).to(device).to(torch.float32)


def _to_codes(samples: Tensor, offset: float, format: VideoFormat) -> np.ndarray:
    """Samples plus an offset, rounded and clipped to codes; `samples` is overwritten."""
    kind = torch.uint8 if format.bit_depth == 8 else torch.int16
    # A conversion to integers cuts off: with a half added it rounds.
    codes = samples.add_(offset + 0.5).clamp_(0, format.max_value + 0.5).to(kind)
    codes = codes.cpu().contiguous().numpy()
    return codes if format.bit_depth == 8 else codes.view(np.uint16)
