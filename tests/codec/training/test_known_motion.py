"""Pairs made of photographs or training frames: the flow is exact where it says so."""

import pytest
import torch

from codec.layers import warp
from codec.training.known_motion import move_frames, move_photographs
from codec.video.photographs import PHOTOGRAPHS, photograph


@pytest.fixture(scope="module")
def frames():
    pictures = [photograph(name)[..., 100:196, 100:230] for name in PHOTOGRAPHS[:4]]
    return torch.cat(pictures) / 255


def pairs(frames, seed, **options):
    return move_frames(frames, torch.Generator().manual_seed(seed), **options)


@pytest.mark.parametrize("seed", range(3))
def test_the_reference_warped_by_the_flow_is_the_current_frame(frames, seed):
    batch = pairs(frames, seed)
    reference, current = batch.clip.unbind(1)
    error = (warp(reference, batch.flow) - current).square().mean(1)  # [B, H, W]
    seen = batch.visible > 0
    assert 0.5 < seen.float().mean() < 1
    # At the rim of a piece a bilinear sample mixes both layers; elsewhere it is exact.
    assert (error[seen] < 1e-8).float().mean() > 0.95
    assert error[seen].mean() < error[~seen].mean()
    still = (reference - current).square().mean(1)[seen].mean()
    assert error[seen].mean() < 0.3 * still


def test_motion_is_bounded_and_reaches_far(frames):
    lengths = torch.stack(
        [
            pairs(frames, seed, max_motion=20.0).flow.square().sum(1).sqrt().amax((1, 2))
            for seed in range(20)
        ]
    )
    assert lengths.max() <= 20.001
    assert lengths.max() > 14 and lengths.min() < 1.5


def test_pairs_follow_from_the_seed(frames):
    one, same, other = pairs(frames, 1), pairs(frames, 1), pairs(frames, 2)
    assert all(torch.equal(a, b) for a, b in zip(one[:3], same[:3], strict=True))
    assert not torch.equal(one.flow, other.flow)


def test_photographs_move_by_the_flow():
    batch = move_photographs(seed=1, step=5, batch=3, crop=96, max_motion=6.0)
    assert batch.clip.shape == (3, 2, 3, 96, 96) and batch.flow.shape == (3, 2, 96, 96)
    seen = batch.visible[:, None]
    warped = warp(batch.clip[:, 0], batch.flow)
    error = ((warped - batch.clip[:, 1]).square() * seen).sum() / (3 * seen.sum())
    still = ((batch.clip[:, 0] - batch.clip[:, 1]).square() * seen).sum() / (3 * seen.sum())
    assert float(error) < 10**-3.2 and float(error) < 0.25 * float(still)
    again = move_photographs(seed=1, step=5, batch=3, crop=96, max_motion=6.0)
    assert torch.equal(again.clip, batch.clip)
