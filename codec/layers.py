"""Blocks that every transform of the codec shares.

Tensors are float, ``[B, C, H, W]``. No block normalises over the batch or over pixels, so a frame's
output does not depend on its neighbours in a batch nor on the size of the picture.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv3(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    """3x3 convolution, zero padded: size / stride."""
    return nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1)


def conv1(in_channels: int, out_channels: int) -> nn.Conv2d:
    """1x1 convolution."""
    return nn.Conv2d(in_channels, out_channels, 1)


def depthwise3(channels: int) -> nn.Conv2d:
    """3x3 convolution of each channel by itself; the border is repeated."""
    return nn.Conv2d(channels, channels, 3, padding=1, groups=channels, padding_mode="replicate")


def zero_start(layer: nn.Conv2d) -> nn.Conv2d:
    """A convolution that gives zero before it has learned: what it is added to starts unchanged."""
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def transposed_conv3(in_channels: int, out_channels: int, stride: int = 2) -> nn.ConvTranspose2d:
    """3x3 transposed convolution: size * stride."""
    return nn.ConvTranspose2d(
        in_channels, out_channels, 3, stride=stride, padding=1, output_padding=stride - 1
    )


def subpixel_conv1(in_channels: int, out_channels: int, factor: int = 2) -> nn.Sequential:
    """1x1 convolution and pixel shuffle: size * factor."""
    return nn.Sequential(conv1(in_channels, out_channels * factor**2), nn.PixelShuffle(factor))


def linear_trunk(*modules: nn.Module) -> None:
    """Begin the convolutions of a trunk as orthogonal maps without a bias.

    Where nothing but residual blocks stands between them, the transform starts close to a linear
    one that keeps lengths, so that a quantisation step means the same at both ends and training
    starts from a transform code instead of from noise.
    """
    for module in modules:
        for layer in module.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight)
                nn.init.zeros_(layer.bias)


def subpixel_conv3(in_channels: int, out_channels: int, factor: int = 2) -> nn.Sequential:
    """3x3 convolution and pixel shuffle: size * factor."""
    return nn.Sequential(conv3(in_channels, out_channels * factor**2), nn.PixelShuffle(factor))


class ResBlock(nn.Module):
    """``x + last(conv3(act(conv3(first(x)))))``, the residual block of DCVC-TCM.

    Args:
        channels: of input and output.
        slope: of the leaky ReLUs.
        first_activation: whether ``first`` is a leaky ReLU or nothing.
        last_activation: whether ``last`` is a leaky ReLU or nothing.
        bottleneck: half the channels between the two convolutions.
    """

    def __init__(
        self,
        channels: int,
        slope: float = 0.01,
        first_activation: bool = True,
        last_activation: bool = False,
        bottleneck: bool = False,
    ):
        super().__init__()
        inner = channels // 2 if bottleneck else channels
        self.slope = slope
        self.first_activation = first_activation
        self.last_activation = last_activation
        self.conv1 = conv3(channels, inner)
        self.conv2 = conv3(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.leaky_relu(x, self.slope) if self.first_activation else x
        out = self.conv2(F.leaky_relu(self.conv1(out), self.slope))
        if self.last_activation:
            out = F.leaky_relu(out, self.slope)
        return x + out


class ResidualStack(nn.Sequential):
    """``depth`` residual blocks that begin near the identity, their last convolutions small."""

    def __init__(self, channels: int, depth: int):
        blocks = [ResBlock(channels, first_activation=False) for _ in range(depth)]
        for block in blocks:
            with torch.no_grad():
                block.conv2.weight.mul_(0.1)
                block.conv2.bias.zero_()
        super().__init__(*blocks)


def pad_to_multiple(x: Tensor, multiple: int, mode: str = "replicate") -> Tensor:
    """Pad right and bottom so that height and width divide by ``multiple``.

    ``mode`` is ``replicate`` (repeats the border: cheap to code) or ``zeros`` (as DCVC-TCM).
    """
    height, width = x.shape[-2:]
    right, bottom = -width % multiple, -height % multiple
    if not right and not bottom:
        return x
    if mode == "zeros":
        return F.pad(x, (0, right, 0, bottom))
    return F.pad(x, (0, right, 0, bottom), mode=mode)


def warp(x: Tensor, flow: Tensor) -> Tensor:
    """Backward bilinear warp: ``out(p) = x(p + flow(p))``, clamped at the border.

    Args:
        x: [B, C, H, W].
        flow: [B, 2, H, W] in pixels of this grid, channel 0 = x, 1 = y. What is not a number counts
            as no motion: grid_sample would read and write outside its tensors.
    """
    _, _, height, width = x.shape
    flow = torch.nan_to_num(flow.float())
    columns = torch.arange(width, device=x.device, dtype=torch.float32)
    rows = torch.arange(height, device=x.device, dtype=torch.float32)
    grid_x = (columns + flow[:, 0]) * (2.0 / max(width - 1, 1)) - 1.0  # [B, H, W]
    grid_y = (rows[:, None] + flow[:, 1]) * (2.0 / max(height - 1, 1)) - 1.0
    grid = torch.stack((grid_x, grid_y), dim=-1)  # [B, H, W, 2]
    warped = F.grid_sample(
        x.float(), grid, mode="bilinear", padding_mode="border", align_corners=True
    )
    return warped.to(x.dtype)


def resize(x: Tensor, factor: float) -> Tensor:
    """Bilinear resize by ``factor`` (pixel centres kept: align_corners=False)."""
    return F.interpolate(x, scale_factor=factor, mode="bilinear", align_corners=False)


def resize_flow(flow: Tensor, factor: float) -> Tensor:
    """Resize a flow field and its vectors, so that it stays in pixels of its own grid."""
    return resize(flow, factor) * factor


def round_straight_through(x: Tensor) -> Tensor:
    """Round to the nearest integer; the gradient passes as if nothing had happened."""
    return x + (torch.round(x) - x).detach()
