"""Training clips that lie on the accelerator: a batch costs a gather there and nothing here.

The cuts are those of :class:`ClipSampler`, so a step sees the same pixels wherever the clips lie.
"""

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from codec.config import AugmentConfig
from codec.errors import ConfigError
from codec.training.data import CachedClip, Clip, ClipSampler, Cut
from codec.training.data.shrink import shrink
from codec.video.colour import codes_to_rgb


class ResidentSampler(ClipSampler):
    """A sampler whose clips were copied to ``device`` once: 1.5 bytes a pixel.

    Args:
        clips: decoded video files, all 8-bit 4:2:0 with the same matrix and range.
        seed: of the run.
        device: where the planes lie and batches are made.
        augment, order: of :class:`ClipSampler`.

    Raises:
        ConfigError: a clip of another kind.
    """

    def __init__(
        self,
        clips: list[Clip],
        seed: int,
        device: torch.device,
        augment: AugmentConfig | None = None,
        order: Literal["random", "epochs"] = "random",
    ):
        super().__init__(clips, seed, augment, order)
        self._format = _common_format(clips)
        planes = [torch.from_numpy(np.array(clip.planes)).flatten() for clip in clips]
        lengths = torch.tensor([0] + [plane.numel() for plane in planes])
        self._origin = lengths.cumsum(0)[:-1]  # [clips] where a clip begins
        self._frame = torch.tensor([clip.format.frame_bytes for clip in clips])
        self._size = torch.tensor([(clip.height, clip.width) for clip in clips])
        self._samples = torch.cat(planes).to(device)
        self._device = device

    def read(self, cuts: list[Cut], frames: int, crop: int) -> Tensor:
        """As :meth:`ClipSampler.read`, on the device."""
        sides = [cut.side or crop for cut in cuts]
        if set(sides) == {crop}:
            clip = self._squares(cuts, frames, crop)
        else:
            samples: list[Tensor | None] = [None] * len(cuts)
            for side in set(sides):  # squares of one size are gathered together
                places = [place for place, one in enumerate(sides) if one == side]
                squares = self._squares([cuts[place] for place in places], frames, side)
                for place, square in zip(places, squares, strict=True):
                    samples[place] = square if side == crop else shrink(square, crop)
            clip = torch.stack(samples)
        flips = torch.tensor([cut.flips for cut in cuts]).to(self._device)
        for column, axis in enumerate((1, 3, 4)):
            turned = flips[:, column].view(-1, 1, 1, 1, 1)
            clip = torch.where(turned, clip.flip(axis), clip)
        return clip

    def _squares(self, cuts: list[Cut], frames: int, side: int) -> Tensor:
        """What the cuts lie on, [B, T, 3, side, side], before it is scaled and turned round."""
        number = torch.tensor([cut.clip for cut in cuts])
        corner = torch.tensor([(cut.top, cut.left) for cut in cuts])  # [B, 2]
        height, width = self._size[number].unbind(1)
        taken = torch.tensor([(cut.start, cut.every) for cut in cuts])
        moment = taken[:, :1] + torch.arange(frames) * taken[:, 1:]  # [B, T]
        first = self._origin[number][:, None] + moment * self._frame[number][:, None]
        half_height, half_width = (height + 1) // 2, (width + 1) // 2
        blue = first + (height * width)[:, None]
        red = blue + (half_height * half_width)[:, None]
        luma = self._planes(first, width, corner, side)  # [B, T, side, side]
        half = corner // 2
        chroma = torch.stack(
            [self._planes(start, half_width, half, side // 2) for start in (blue, red)], 2
        )  # [B, T, 2, side / 2, side / 2]
        rgb = codes_to_rgb(luma.flatten(0, 1), chroma.flatten(0, 1), self._format).clamp_(0, 1)
        return rgb.view(len(cuts), frames, 3, side, side)

    def _planes(self, start: Tensor, stride: Tensor, corner: Tensor, size: int) -> Tensor:
        """Squares [B, T, size, size] of planes that begin at ``start`` [B, T], float32."""
        top, left = corner.unbind(1)
        start = (start + (top * stride + left)[:, None]).to(self._device)
        inside = torch.arange(size, device=self._device)
        rows = stride.to(self._device)[:, None] * inside  # [B, size]
        index = start[:, :, None, None] + rows[:, None, :, None] + inside
        return self._samples[index].float()


def _common_format(clips: list[Clip]):
    """The format of all clips but for their sizes and rates."""
    meanings = set()
    for clip in clips:
        form = clip.format if isinstance(clip, CachedClip) else None
        if form is None or form.chroma != "420" or form.bit_depth != 8:
            raise ConfigError(
                f"training.data.resident: {clip.name} is not 8-bit 4:2:0 video; set it to false"
            )
        meanings.add((form.matrix, form.range))
    if len(meanings) > 1:
        raise ConfigError(
            f"training.data.resident: clips differ in matrix or range ({sorted(meanings)}); "
            "set it to false"
        )
    return clips[0].format
