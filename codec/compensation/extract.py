"""From the propagated reference to features at several scales, before they are warped."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers import ResBlock, ResidualStack, conv1, conv3


class TcmExtractor(nn.Module):
    """DCVC-TCM: features at 1, 1/2 and 1/4 of the frame."""

    def __init__(self, channels: int):
        super().__init__()
        self.from_frame = conv3(3, channels)
        self.from_feature = conv1(channels, channels)
        self.conv1 = conv3(channels, channels)
        self.res_block1 = ResBlock(channels)
        self.conv2 = conv3(channels, channels, 2)
        self.res_block2 = ResBlock(channels)
        self.conv3 = conv3(channels, channels, 2)
        self.res_block3 = ResBlock(channels)

    def forward(
        self, frame: Tensor, feature: Tensor | None, begins: Tensor | None = None
    ) -> list[Tensor]:
        """Features, fine to coarse.

        Args:
            frame: the last decoded frame [B, 3, H, W].
            feature: the last frame's propagated feature, None after an I frame.
            begins: samples [B] for which the last frame was an I frame, None for none of them.
        """
        x = _entered(frame, feature, begins, self.from_frame, self.from_feature)
        fine = self.res_block1(self.conv1(x))
        middle = self.res_block2(self.conv2(fine))
        return [fine, middle, self.res_block3(self.conv3(middle))]


class LiteExtractor(nn.Module):
    """Features at 1/4 and 1/8; nothing at full size."""

    def __init__(self, feature: int, channels: tuple[int, int]):
        super().__init__()
        fine, coarse = channels
        self.from_frame = conv3(3 * 16, fine)
        self.from_feature = conv1(feature, fine)
        self.down = conv3(fine, coarse, 2)
        self.body = ResidualStack(coarse, 1)

    def forward(
        self, frame: Tensor, feature: Tensor | None, begins: Tensor | None = None
    ) -> list[Tensor]:
        fine = _entered(frame, feature, begins, self._from_patches, self.from_feature)
        return [fine, self.body(F.leaky_relu(self.down(fine), 0.01))]

    def _from_patches(self, frame: Tensor) -> Tensor:
        return self.from_frame(F.pixel_unshuffle(frame, 4))


def _entered(
    frame: Tensor,
    feature: Tensor | None,
    begins: Tensor | None,
    from_frame: Callable[[Tensor], Tensor],
    from_feature: Callable[[Tensor], Tensor],
) -> Tensor:
    """Of each sample the feature, or the frame where there is none."""
    if feature is None:
        return from_frame(frame)
    if begins is None:
        return from_feature(feature)
    return torch.where(begins.view(-1, 1, 1, 1), from_frame(frame), from_feature(feature))
