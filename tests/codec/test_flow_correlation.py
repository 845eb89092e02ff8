"""The flow net on a correlation volume: shapes, known motion, its place in the codec."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from codec.config import FlowConfig
from codec.flow import SpyNet
from codec.flow_correlation import CorrelationFlow
from codec.inter import make_flow_net


def moved_texture(batch: int, size: int, reach: int) -> tuple[Tensor, Tensor, Tensor]:
    """current, reference and the motion [B, 2, 1, 1] between them, in whole pixels."""
    texture = torch.rand(batch, 3, size // 4 + 8, size // 4 + 8)
    texture = F.interpolate(texture, scale_factor=4, mode="bicubic").clamp(0, 1)
    motion = torch.randint(-reach, reach + 1, (batch, 2))
    start = 16 + motion
    current = torch.stack(
        [one[:, y : y + size, x : x + size] for one, (x, y) in zip(texture, start, strict=True)]
    )
    return current, texture[:, :, 16 : 16 + size, 16 : 16 + size], motion.float()[..., None, None]


@pytest.mark.parametrize("size", [(64, 96), (37, 53), (6, 4), (2, 2)])
@pytest.mark.parametrize("top", [1, 2])
def test_a_flow_for_every_level(size, top):
    net = CorrelationFlow(levels=3, widths=(8, 8, 8, 8), top=top)
    current, reference = torch.rand(2, 2, 3, *size)
    flows = net.pyramid(current, reference)
    height, width = size[0] // top, size[1] // top
    for flow in reversed(flows):
        assert flow.shape == (2, 2, height, width) and flow.dtype == torch.float32
        height, width = -(-height // 2), -(-width // 2)
    assert torch.equal(net(current, reference), flows[-1])


def test_all_of_it_learns():
    net = CorrelationFlow(levels=3, widths=(8, 8, 8, 8))
    flows = net.pyramid(*torch.rand(2, 1, 3, 48, 64))
    sum(flow.square().sum() for flow in flows).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_autocast_keeps_the_flow_in_float32():
    net = CorrelationFlow(levels=3, widths=(8, 8, 8, 8))
    frames = torch.rand(2, 1, 3, 48, 64).unbind()
    plain = net(*frames)
    with torch.autocast("cpu", torch.bfloat16):
        flow = net(*frames)
    assert flow.dtype == torch.float32
    torch.testing.assert_close(flow, plain, atol=0.05, rtol=0.05)


def test_a_frame_is_not_influenced_by_its_neighbours_in_the_batch():
    net = CorrelationFlow(levels=3, widths=(8, 8, 8, 8)).eval()
    current, reference = torch.rand(2, 3, 3, 32, 48)
    together = net(current, reference)
    alone = net(current[1:2], reference[1:2])
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def test_it_learns_known_motion():
    """Motion far beyond the finest level's window, found to a fraction of its length."""
    net = CorrelationFlow(levels=3, widths=(16, 16, 16, 16))
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(160):
        current, reference, motion = moved_texture(4, 64, 8)
        loss = 0.0
        for flow in net.pyramid(current, reference):
            factor = current.shape[-1] // flow.shape[-1]
            error = (flow - motion / factor).square().sum(1)
            loss = loss + (error + 1e-4).sqrt().mean() * factor**0.5
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    current, reference, motion = moved_texture(16, 64, 8)
    with torch.no_grad():
        error = (net(current, reference) * net.top - motion).square().sum(1).sqrt().mean()
    assert error < 0.35 * motion.square().sum(1).sqrt().mean()


def test_the_configuration_chooses():
    sizes = {"levels": 3, "widths": (8, 8, 8, 8), "kernel": 3}
    assert isinstance(make_flow_net(FlowConfig(**sizes)), SpyNet)
    net = make_flow_net(FlowConfig(net="correlation", **sizes))
    assert isinstance(net, CorrelationFlow) and net.top == 2
    with pytest.raises(ValueError, match="net"):
        FlowConfig(net="guess")
