"""Lite's frame transforms: 4x4 patches in and out, features at 1/4, 1/8 and 1/16 only.

One encoder and one decoder serve both kinds of frame. The intra codec gives them a frame; the P
codec gives them what is left of a frame after motion compensation, and contexts that are added to
the trunk at 1/4 and 1/8. The context layers begin at zero, so a P codec may start from the weights
of the intra codec: as a coder of the prediction error that then learns to use its contexts.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.compensation.global_attention import GlobalAttention
from codec.entropy.gains import make_gain
from codec.layers import (
    ResidualStack,
    conv1,
    conv3,
    linear_trunk,
    subpixel_conv1,
    zero_start,
)

Features = list[Tensor] | None


class PatchEncoder(nn.Module):
    """4x4 patches -> 1/4 -> 1/8 -> y at 1/16: a linear trunk with residual blocks on it.

    Args:
        channels: of the trunk at 1/4 and 1/8.
        latent: channels M of y.
        depth: residual blocks at each scale.
        gains: per-channel gains by quality at 1/4.
        contexts: channels of the contexts at 1/4 and 1/8, None for an intra codec.
        heads: of the attention that asks the reference at 1/8 with the trunk's own feature as the
            query, 0 for none.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        latent: int,
        depth: int,
        gains: bool,
        contexts: tuple[int, int] | None = None,
        heads: int = 0,
    ):
        super().__init__()
        fine, coarse = channels
        self.enter = conv3(3 * 16, fine)
        self.gain = make_gain(gains, fine)
        self.fine_body = ResidualStack(fine, depth)
        self.down = conv3(fine, coarse, 2)
        self.coarse_body = ResidualStack(coarse, depth)
        self.leave = conv3(coarse, latent, 2)
        linear_trunk(self.enter, self.down, self.leave)
        if contexts is not None:
            self.fine_context = zero_start(conv3(contexts[0], fine))
            self.coarse_context = zero_start(conv1(contexts[1], coarse))
        self.attention = GlobalAttention(coarse, contexts[1], heads) if heads else None

    def forward(
        self,
        x: Tensor,
        quality: Tensor,
        contexts: Features = None,
        references: Features = None,
    ) -> Tensor:
        """y [B, M, H/16, W/16] of a zero-centred picture [B, 3, H, W]."""
        x = self.enter(F.pixel_unshuffle(x, 4))
        if contexts is not None:
            x = x + self.fine_context(contexts[0])
        x = self.down(self.fine_body(x * self.gain(quality).to(x.dtype)))
        if contexts is not None:
            x = x + self.coarse_context(contexts[1])
        if self.attention is not None:
            x = self.attention(x, references[1])
        return self.leave(self.coarse_body(x))


class PatchDecoder(nn.Module):
    """The encoder's mirror. Arguments as of :class:`PatchEncoder`.

    Args:
        depths: residual blocks at 1/8 and at 1/4.
    """

    def __init__(
        self,
        channels: tuple[int, int],
        latent: int,
        depths: tuple[int, int],
        gains: bool,
        contexts: tuple[int, int] | None = None,
        heads: int = 0,
    ):
        super().__init__()
        fine, coarse = channels
        self.up1 = subpixel_conv1(latent, coarse)
        self.coarse_body = ResidualStack(coarse, depths[0])
        self.up2 = subpixel_conv1(coarse, fine)
        self.gain = make_gain(gains, fine)
        self.fine_body = ResidualStack(fine, depths[1])
        self.leave = conv3(fine, 3 * 16)
        linear_trunk(self.up1, self.up2, self.leave)
        if contexts is not None:
            self.coarse_context = zero_start(conv1(contexts[1], coarse))
            self.fine_context = zero_start(conv3(contexts[0], fine))
        self.attention = GlobalAttention(coarse, contexts[1], heads) if heads else None

    def forward(
        self,
        y_hat: Tensor,
        quality: Tensor,
        contexts: Features = None,
        references: Features = None,
    ) -> tuple[Tensor, Tensor]:
        """The zero-centred picture [B, 3, H, W] and the features at 1/4 that it was made of."""
        x = self.up1(y_hat)
        if contexts is not None:
            x = x + self.coarse_context(contexts[1])
        if self.attention is not None:
            x = self.attention(x, references[1])
        x = self.up2(self.coarse_body(x))
        if contexts is not None:
            x = x + self.fine_context(contexts[0])
        feature = self.fine_body(x * self.gain(quality).to(x.dtype))
        return F.pixel_shuffle(self.leave(feature), 4).float(), feature


class TemporalPrior(nn.Module):
    """Contexts -> what they say of y: [B, T, H/16, W/16]."""

    def __init__(self, contexts: tuple[int, int], out: int):
        super().__init__()
        self.fine = conv3(contexts[0], contexts[0], 2)
        self.join = conv3(contexts[0] + contexts[1], out, 2)

    def forward(self, contexts: list[Tensor]) -> Tensor:
        fine, coarse = contexts
        x = F.leaky_relu(self.fine(fine), 0.01)
        return F.leaky_relu(self.join(torch.cat((x, coarse), 1)), 0.01)
