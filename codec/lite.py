"""Lite's frame transforms: 4x4 patches in and out, features at 1/4, 1/8 and 1/16 only."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.entropy.gains import make_gain
from codec.layers import ResidualStack, conv1, conv3, linear_trunk, subpixel_conv1


class ContextualEncoder(nn.Module):
    """Frame [B, 3, H, W] and contexts -> y [B, M, H/16, W/16]."""

    def __init__(self, channels: tuple[int, int], latent: int, gains: bool):
        super().__init__()
        fine, coarse = channels
        self.enter = conv3(3 * 16 + fine, fine)
        self.gain = make_gain(gains, fine)
        self.fine_body = ResidualStack(fine, 1)
        self.down = conv3(fine, coarse, 2)
        self.join = conv1(2 * coarse, coarse)
        self.coarse_body = ResidualStack(coarse, 1)
        self.leave = conv3(coarse, latent, 2)
        linear_trunk(self.enter, self.down, self.join, self.leave)

    def forward(self, frame: Tensor, contexts: list[Tensor], quality: Tensor) -> Tensor:
        fine, coarse = contexts
        patches = F.pixel_unshuffle(frame - 0.5, 4).to(fine.dtype)
        x = self.enter(torch.cat((patches, fine), 1))
        x = self.fine_body(x * self.gain(quality).to(x.dtype))
        x = self.join(torch.cat((self.down(x), coarse), 1))
        return self.leave(self.coarse_body(x))


class ContextualDecoder(nn.Module):
    """y_hat and contexts -> frame (not clamped) and the propagated feature [B, C, H/4, W/4].

    The frame is the warped reference plus what the decoder adds to it.
    """

    def __init__(self, channels: tuple[int, int], latent: int, depth: int, gains: bool):
        super().__init__()
        fine, coarse = channels
        self.up1 = subpixel_conv1(latent, coarse)
        self.join1 = conv1(2 * coarse, coarse)
        self.coarse_body = ResidualStack(coarse, 1)
        self.up2 = subpixel_conv1(coarse, fine)
        self.join2 = conv1(2 * fine, fine)
        self.gain = make_gain(gains, fine)
        self.fine_body = ResidualStack(fine, depth)
        self.leave = conv3(fine, 3 * 16)
        linear_trunk(self.up1, self.join1, self.up2, self.join2)
        with torch.no_grad():
            self.leave.weight.mul_(0.1)
            self.leave.bias.zero_()

    def forward(
        self, y_hat: Tensor, contexts: list[Tensor], warped_frame: Tensor, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        fine, coarse = contexts
        x = self.join1(torch.cat((self.up1(y_hat), coarse), 1))
        x = self.join2(torch.cat((self.up2(self.coarse_body(x)), fine), 1))
        feature = self.fine_body(x * self.gain(quality).to(x.dtype))
        added = F.pixel_shuffle(self.leave(feature), 4)
        return warped_frame + added.float(), feature


class TemporalPrior(nn.Module):
    """Contexts -> what they say of y: [B, T, H/16, W/16]."""

    def __init__(self, channels: tuple[int, int], out: int):
        super().__init__()
        self.fine = conv3(channels[0], channels[1] // 2, 2)
        self.join = conv3(channels[1] + channels[1] // 2, out, 2)

    def forward(self, contexts: list[Tensor]) -> Tensor:
        fine, coarse = contexts
        x = F.leaky_relu(self.fine(fine), 0.01)
        return F.leaky_relu(self.join(torch.cat((x, coarse), 1)), 0.01)
