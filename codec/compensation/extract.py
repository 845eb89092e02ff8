"""From the propagated reference to features at several scales, before they are warped."""

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

    def forward(self, frame: Tensor, feature: Tensor | None) -> list[Tensor]:
        """Features, fine to coarse.

        Args:
            frame: the last decoded frame [B, 3, H, W].
            feature: the last frame's propagated feature, None after an I frame.
        """
        x = self.from_frame(frame) if feature is None else self.from_feature(feature)
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

    def forward(self, frame: Tensor, feature: Tensor | None) -> list[Tensor]:
        if feature is None:
            fine = self.from_frame(F.pixel_unshuffle(frame, 4))
        else:
            fine = self.from_feature(feature)
        return [fine, self.body(F.leaky_relu(self.down(fine), 0.01))]
