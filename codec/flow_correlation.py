"""The flow net on a correlation volume. Only encoders run it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers import conv3, resize_flow, warp
from kernels import correlation


def _begin(conv: nn.Conv2d, nonlinearity: str) -> nn.Conv2d:
    """He initialisation without bias: a signal keeps its size from layer to layer."""
    nn.init.kaiming_normal_(conv.weight, a=0.1, nonlinearity=nonlinearity)
    nn.init.zeros_(conv.bias)
    return conv


class _Features(nn.Sequential):
    """Two convolutions of one level of the feature pyramid, the first with its stride."""

    def __init__(self, in_channels: int, channels: int, stride: int):
        super().__init__(
            _begin(conv3(in_channels, channels, stride), "leaky_relu"),
            nn.LeakyReLU(0.1),
            _begin(conv3(channels, channels), "linear"),
        )


class _Decoder(nn.Sequential):
    """Five convolutions from volume, features and flow to the flow's correction at one level."""

    def __init__(self, in_channels: int, widths: tuple[int, int, int, int], kernel: int):
        channels = (in_channels, *widths, 2)
        layers: list[nn.Module] = []
        for i in range(5):
            conv = nn.Conv2d(channels[i], channels[i + 1], kernel, padding=kernel // 2)
            layers.append(_begin(conv, "leaky_relu" if i < 4 else "linear"))
            if i < 4:
                layers.append(nn.LeakyReLU(0.1))
        with torch.no_grad():
            # A fresh net says "no motion" rather than something large that no window can undo.
            layers[-1].weight.mul_(0.1)
        super().__init__(*layers)


class CorrelationFlow(nn.Module):
    """Pyramid, warp and cost volume (PWC-Net, Sun et al. 2018), light.

    Both frames go through one pyramid of learned features. At each level, from coarse to fine, the
    flow so far is doubled, the reference's features are warped by it, and a small net corrects the
    flow from the cosine similarities of each pixel with the (2 * radius + 1)^2 pixels round it.
    Cosine, so that neither brightness nor contrast of a place decides how well it seems to match.

    Args:
        levels: of the pyramid; it reaches about radius * 2^(levels - 1) pixels of the finest level.
        widths: channels inside a decoder; the features have as many as the widest.
        kernel: size of the decoders' convolutions.
        top: the finest level is at 1 / top of the frame; the flow is returned at that size.
        radius: of the correlation volume.
    """

    def __init__(
        self,
        levels: int = 5,
        widths: tuple[int, int, int, int] = (32, 32, 24, 16),
        kernel: int = 3,
        top: int = 2,
        radius: int = 3,
    ):
        super().__init__()
        self.top = top
        self.radius = radius
        channels = max(widths)
        self.features = nn.ModuleList(
            _Features(channels if i else 3, channels, 2 if i else 1) for i in range(levels)
        )
        self.decoders = nn.ModuleList(
            _Decoder((2 * radius + 1) ** 2 + channels + 2, widths, kernel) for _ in range(levels)
        )

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """Flow [B, 2, H / top, W / top] in pixels of that grid: current(p) ~ reference(p + flow).

        Args:
            current, reference: [B, 3, H, W] in [0, 1].
        """
        return self.pyramid(current, reference)[-1]

    def pyramid(self, current: Tensor, reference: Tensor) -> list[Tensor]:
        """The flows of all levels, coarse to fine, each in pixels of its own grid."""
        frames = torch.cat((current, reference))  # one batch: the features are the same net's
        if self.top > 1:
            frames = F.avg_pool2d(frames, self.top)
        x = frames - 0.5
        pyramid = []
        for level in self.features:
            x = level(x)
            pyramid.append(_unit_length(x).chunk(2))
        batch, _, height, width = pyramid[-1][0].shape
        flow = current.new_zeros(batch, 2, height, width, dtype=torch.float32)
        flows = []
        for decoder, (own, other) in zip(self.decoders, reversed(pyramid), strict=True):
            if flows:
                flow = resize_flow(flow, 2.0)[..., : own.shape[2], : own.shape[3]]
                other = warp(other, flow)
            volume = correlation(own, other, self.radius, normalise=False)
            volume = F.leaky_relu(volume, 0.1).to(own.dtype)
            flow = flow + decoder(torch.cat((volume, own, flow.to(own.dtype)), 1)).float()
            flows.append(flow)
        return flows


def _unit_length(x: Tensor) -> Tensor:
    """Each pixel's feature vector divided by its length, so that products are cosines."""
    return x * torch.rsqrt(x.float().square().sum(1, keepdim=True) + 1e-6).to(x.dtype)
