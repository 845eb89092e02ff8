"""DCVC-TCM's frame transforms at full size (Sheng et al., TMM 2022; papers.md section 2)."""

import torch
from compressai.layers import GDN
from torch import Tensor, nn

from codec.compensation.global_attention import GlobalAttention
from codec.layers import ResBlock, conv3, subpixel_conv3


def _bottleneck(channels: int) -> ResBlock:
    return ResBlock(
        channels, slope=0.1, first_activation=False, last_activation=True, bottleneck=True
    )


class ContextualEncoder(nn.Module):
    """Frame [B, 3, H, W] and contexts -> y [B, M, H/16, W/16].

    Args:
        channels, latent: N and M.
        heads: of the attention at 1/4 with the encoder's feature as the query, 0 for none.
    """

    def __init__(self, channels: int, latent: int, heads: int = 0):
        super().__init__()
        self.conv1 = conv3(3 + channels, channels, 2)
        self.gdn1 = GDN(channels)
        self.res1 = _bottleneck(2 * channels)
        self.conv2 = conv3(2 * channels, channels, 2)
        self.gdn2 = GDN(channels)
        self.res2 = _bottleneck(2 * channels)
        self.conv3 = conv3(2 * channels, channels, 2)
        self.gdn3 = GDN(channels)
        self.conv4 = conv3(channels, latent, 2)
        self.attention = GlobalAttention(2 * channels, channels, heads) if heads else None

    def forward(self, frame: Tensor, contexts: list[Tensor], references: list[Tensor]) -> Tensor:
        fine, middle, coarse = contexts
        x = self.gdn1(self.conv1(torch.cat((frame, fine), 1)))
        x = self.res1(torch.cat((x, middle), 1))
        x = self.gdn2(self.conv2(x))
        x = self.res2(torch.cat((x, coarse), 1))
        if self.attention is not None:
            x = self.attention(x, references[2])
        return self.conv4(self.gdn3(self.conv3(x)))


class ContextualDecoder(nn.Module):
    """y_hat and contexts -> frame (not clamped) and the feature that the next frame sees."""

    def __init__(self, channels: int, latent: int, heads: int = 0):
        super().__init__()
        out = channels // 2
        self.up1 = subpixel_conv3(latent, channels)
        self.gdn1 = GDN(channels, inverse=True)
        self.up2 = subpixel_conv3(channels, channels)
        self.gdn2 = GDN(channels, inverse=True)
        self.res1 = _bottleneck(2 * channels)
        self.up3 = subpixel_conv3(2 * channels, channels)
        self.gdn3 = GDN(channels, inverse=True)
        self.res2 = _bottleneck(2 * channels)
        self.up4 = subpixel_conv3(2 * channels, out)
        self.feature = nn.Sequential(
            conv3(out + channels, channels), ResBlock(channels), ResBlock(channels)
        )
        self.frame = conv3(channels, 3)
        self.attention = GlobalAttention(2 * channels, channels, heads) if heads else None

    def forward(
        self, y_hat: Tensor, contexts: list[Tensor], references: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        fine, middle, coarse = contexts
        x = self.gdn1(self.up1(y_hat))
        x = self.gdn2(self.up2(x))
        x = self.res1(torch.cat((x, coarse), 1))
        if self.attention is not None:
            x = self.attention(x, references[2])
        x = self.gdn3(self.up3(x))
        x = self.up4(self.res2(torch.cat((x, middle), 1)))
        feature = self.feature(torch.cat((x, fine), 1))
        return self.frame(feature), feature


class TemporalPrior(nn.Module):
    """Contexts -> what they say of y: [B, 2M, H/16, W/16]."""

    def __init__(self, channels: int, latent: int):
        super().__init__()
        self.conv1 = conv3(channels, channels, 2)
        self.gdn1 = GDN(channels)
        self.conv2 = conv3(2 * channels, latent, 2)
        self.gdn2 = GDN(latent)
        self.conv3 = conv3(latent + channels, latent * 3 // 2, 2)
        self.gdn3 = GDN(latent * 3 // 2)
        self.conv4 = conv3(latent * 3 // 2, latent * 2, 2)

    def forward(self, contexts: list[Tensor]) -> Tensor:
        fine, middle, coarse = contexts
        x = self.gdn1(self.conv1(fine))
        x = self.gdn2(self.conv2(torch.cat((x, middle), 1)))
        x = self.gdn3(self.conv3(torch.cat((x, coarse), 1)))
        return self.conv4(x)
