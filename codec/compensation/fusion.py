"""Fusion: the contexts of all scales joined, coarse to fine, each as a residual."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers import ResBlock, ResidualStack, conv1, conv3, subpixel_conv3


class TcmFusion(nn.Module):
    """DCVC-TCM's multi-scale context fusion; what it finds is added to each warped context."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv3_up = subpixel_conv3(channels, channels)
        self.res_block3_up = ResBlock(channels)
        self.conv3_out = conv3(channels, channels)
        self.res_block3_out = ResBlock(channels)
        self.conv2_up = subpixel_conv3(channels * 2, channels)
        self.res_block2_up = ResBlock(channels)
        self.conv2_out = conv3(channels * 2, channels)
        self.res_block2_out = ResBlock(channels)
        self.conv1_out = conv3(channels * 2, channels)
        self.res_block1_out = ResBlock(channels)

    def forward(self, contexts: list[Tensor], warped_frame: Tensor) -> list[Tensor]:
        fine, middle, coarse = contexts
        up = self.res_block3_up(self.conv3_up(coarse))
        coarse_out = self.res_block3_out(self.conv3_out(coarse))
        joined = torch.cat((up, middle), 1)
        up = self.res_block2_up(self.conv2_up(joined))
        middle_out = self.res_block2_out(self.conv2_out(joined))
        fine_out = self.res_block1_out(self.conv1_out(torch.cat((up, fine), 1)))
        return [fine + fine_out, middle + middle_out, coarse + coarse_out]


class LiteFusion(nn.Module):
    """Two scales; the warped frame itself joins the finer one as 48 channels of 4x4 patches."""

    def __init__(self, channels: tuple[int, int]):
        super().__init__()
        fine, coarse = channels
        self.coarse_body = ResidualStack(coarse, 1)
        self.up = conv1(coarse, 4 * (fine // 2))
        self.join = conv3(fine + fine // 2 + 3 * 16, fine)
        self.fine_body = ResidualStack(fine, 1)

    def forward(self, contexts: list[Tensor], warped_frame: Tensor) -> list[Tensor]:
        fine, coarse = contexts
        coarse = self.coarse_body(coarse)
        up = F.pixel_shuffle(self.up(coarse), 2)
        patches = F.pixel_unshuffle(warped_frame, 4).to(fine.dtype)
        joined = self.join(torch.cat((fine, up, patches), 1))
        return [fine + self.fine_body(joined), coarse]
