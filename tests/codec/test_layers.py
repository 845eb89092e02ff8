"""Blocks that every transform shares."""

import pytest
import torch

from codec.layers import depthwise3, pad_to_multiple, warp, zero_start


def test_a_whole_pixel_warp_reads_the_pixel():
    x = torch.arange(48.0).view(1, 2, 4, 6)
    flow = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1).expand(1, 2, 4, 6)
    out = warp(x, flow)
    assert torch.allclose(out[..., 1:, :4], x[..., :3, 2:], atol=1e-5)
    assert torch.allclose(out[..., 0, :4], x[..., 0, 2:], atol=1e-5)  # clamped at the border


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
def test_a_flow_that_is_no_number_reads_inside_the_picture(value):
    x = torch.rand(1, 3, 9, 7, requires_grad=True)
    flow = torch.zeros(1, 2, 9, 7)
    flow[0, :, 4, 3] = value
    out = warp(x, flow.requires_grad_())
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(x.grad).all()
    if value != value:
        assert torch.allclose(out[..., 4, 3], x[..., 4, 3], atol=1e-6)


def test_padding_repeats_the_border():
    x = torch.rand(1, 3, 5, 9)
    padded = pad_to_multiple(x, 8)
    assert padded.shape == (1, 3, 8, 16)
    assert torch.equal(padded[..., :5, :9], x)
    assert torch.equal(padded[..., 7, 15], x[..., 4, 8])


def test_what_begins_at_zero_gives_zero():
    layer = zero_start(depthwise3(4))
    assert not layer(torch.rand(1, 4, 6, 6)).any()
