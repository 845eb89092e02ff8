"""Smoothing a flow: what it does to the picture's agreement and to the flow."""

import pytest
import torch
import torch.nn.functional as F

from codec.layers import warp
from codec.motion_variational import _inside, smoothed

SETTINGS = {"stiffness": 0.1, "edge": 0.5, "rounds": 3, "sweeps": 10}


def textures(height: int = 40, width: int = 48) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    small = torch.rand(1, 3, height // 4, width // 4, generator=generator)
    return F.interpolate(small, size=(height, width), mode="bicubic").clamp(0, 1)


def test_an_exact_smooth_flow_stays():
    reference = textures()
    flow = torch.full((1, 2, 40, 48), 1.5)
    current = warp(reference, flow)
    new = smoothed(current, reference, flow, **SETTINGS)
    assert (new - flow)[..., 6:-6, 6:-6].abs().max() < 0.05


def test_moves_towards_agreement():
    reference = textures()
    true = torch.full((1, 2, 40, 48), 1.2)
    current = warp(reference, true)
    new = smoothed(current, reference, true - 0.7, **{**SETTINGS, "stiffness": 0.03})
    before, after = (
        (warp(reference, flow) - current)[..., 6:-6, 6:-6].square().mean()
        for flow in (true - 0.7, new)
    )
    assert after < 0.05 * before


def test_flat_pictures_leave_only_smoothness():
    """Nothing to agree on: only the ties are left, and differences shrink."""
    flat = torch.full((1, 3, 8, 8), 0.5)
    generator = torch.Generator().manual_seed(0)
    flow = 0.1 * torch.randn(1, 2, 8, 8, generator=generator)
    new = smoothed(flat, flat, flow, stiffness=0.1, edge=0.5, rounds=1, sweeps=400)
    assert (new.std((2, 3)) < 0.05 * flow.std((2, 3))).all()


def test_sweeps_come_to_an_end():
    """Where they do, every pixel is the solution for its neighbours."""
    generator = torch.Generator().manual_seed(2)
    reference = textures(12, 16)
    current = warp(reference, torch.full((1, 2, 12, 16), 0.4))
    flow = 0.3 * torch.rand(1, 2, 12, 16, generator=generator)
    one, many, more = (
        smoothed(current, reference, flow, stiffness=0.2, edge=0.5, rounds=1, sweeps=sweeps)
        for sweeps in (1, 2000, 2001)
    )
    assert not torch.allclose(one, many, atol=1e-3)
    torch.testing.assert_close(many, more, atol=1e-5, rtol=0)


def test_stiffer_is_smoother():
    generator = torch.Generator().manual_seed(4)
    reference = textures()
    current = warp(reference, torch.randn(1, 2, 40, 48, generator=generator))
    rough = []
    for stiffness in (0.01, 0.1, 1.0):
        flow = smoothed(
            current, reference, torch.zeros(1, 2, 40, 48), **{**SETTINGS, "stiffness": stiffness}
        )
        rough.append((flow[..., 1:] - flow[..., :-1]).abs().mean())
    assert rough[0] > rough[1] > rough[2]


def test_a_sudden_change_of_brightness_moves_little():
    reference = textures()
    flow = smoothed(reference + 0.1, reference, torch.zeros(1, 2, 40, 48), **SETTINGS)
    assert flow.abs().mean() < 0.3


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (8, 8)])
def test_vectors_that_leave_the_picture_and_tiny_pictures_stay_finite(size):
    picture = torch.rand(2, 3, *size)
    for start in (0.0, 1e4, -1e4):
        flow = smoothed(picture, picture.flip(0), torch.full((2, 2, *size), start), **SETTINGS)
        assert flow.isfinite().all()


def test_a_vector_that_leaves_the_picture_agrees_with_nothing():
    flow = torch.zeros(1, 2, 3, 4)
    assert _inside(flow).all()
    flow[:, 0], flow[:, 1] = 1.0, -1.0
    expected = torch.zeros(1, 1, 3, 4)
    expected[..., 1:, :3] = 1
    assert torch.equal(_inside(flow), expected)
    flow[:, 0], flow[:, 1] = -0.5, 0.5
    expected = torch.zeros(1, 1, 3, 4)
    expected[..., :2, 1:] = 1
    assert torch.equal(_inside(flow), expected)
