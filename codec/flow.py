"""Flow nets: from two frames to the motion that is coded. Only encoders run them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from codec.layers import resize, resize_flow, warp


class _FlowLevel(nn.Module):
    """Five convolutions that correct the flow at one level of the pyramid (ReLU between)."""

    def __init__(self, widths: tuple[int, int, int, int], kernel: int):
        super().__init__()
        channels = (8, *widths, 2)
        for i in range(5):
            conv = nn.Conv2d(channels[i], channels[i + 1], kernel, padding=kernel // 2)
            # torch's default shrinks a signal threefold a layer: a fresh net would see no motion.
            nn.init.kaiming_normal_(conv.weight, nonlinearity="relu" if i < 4 else "linear")
            nn.init.zeros_(conv.bias)
            self.add_module(f"conv{i + 1}", conv)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 5):
            x = F.relu(getattr(self, f"conv{i}")(x))
        return self.conv5(x)


class SpyNet(nn.Module):
    """Spatial pyramid flow net (Ranjan and Black 2017) as DCVC-TCM uses it.

    An average-pooled pyramid; at each level, from coarse to fine, the flow so far is doubled, the
    reference is warped by it and a small net adds a correction.

    Args:
        levels: of the pyramid.
        widths: channels inside a level.
        kernel: size of its convolutions.
        top: the finest level is at 1 / top of the frame; the flow is returned at that size.
    """

    def __init__(
        self,
        levels: int = 4,
        widths: tuple[int, int, int, int] = (32, 64, 32, 16),
        kernel: int = 7,
        top: int = 1,
    ):
        super().__init__()
        self.top = top
        self.levels = nn.ModuleList(_FlowLevel(widths, kernel) for _ in range(levels))

    def forward(self, current: Tensor, reference: Tensor) -> Tensor:
        """Flow [B, 2, H / top, W / top] in pixels of that grid: current(p) ~ reference(p + flow).

        Args:
            current, reference: [B, 3, H, W] in [0, 1].
        """
        return self.pyramid(current, reference)[-1]

    def pyramid(self, current: Tensor, reference: Tensor) -> list[Tensor]:
        """The flows of all levels, coarse to fine, each in pixels of its own grid."""
        if self.top > 1:
            current = F.avg_pool2d(current, self.top)
            reference = F.avg_pool2d(reference, self.top)
        pyramid = [(current, reference)]
        for _ in self.levels[1:]:
            # Where the size is odd or tiny the pool rounds up, so that no level is empty.
            current = F.avg_pool2d(current, 2, ceil_mode=True)
            reference = F.avg_pool2d(reference, 2, ceil_mode=True)
            pyramid.append((current, reference))
        batch, _, height, width = current.shape
        flow = current.new_zeros(batch, 2, height, width)
        flows = []
        for number, (level, (frame, other)) in enumerate(
            zip(self.levels, reversed(pyramid), strict=True)
        ):
            if number:
                flow = resize_flow(flow, 2.0)[..., : frame.shape[2], : frame.shape[3]]
            correction = level(torch.cat((frame, warp(other, flow), flow), 1))
            flow = flow + correction.float()
            flows.append(flow)
        return flows


def to_full_size(flow: Tensor, factor: int) -> Tensor:
    """Bring a flow at 1 / factor of the frame to the frame's size and pixels."""
    return flow if factor == 1 else resize_flow(flow, float(factor))


def flow_pyramid(flow: Tensor, levels: int) -> list[Tensor]:
    """The flow at 1, 1/2, 1/4 .. of its size, each in pixels of its grid, as DCVC-TCM halves it."""
    pyramid = [flow]
    for _ in range(levels - 1):
        pyramid.append(resize(pyramid[-1], 0.5) / 2)
    return pyramid
