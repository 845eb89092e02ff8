"""The motion that synthetic clips claim is the motion that their frames show."""

from fractions import Fraction

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import VideoError
from codec.video.format import VideoFormat
from codec.video.photographs import PHOTOGRAPHS, photograph, texture
from codec.video.synthetic import KINDS, random_pair, synthetic_clip, write_synthetic

MOVING = [kind for kind in KINDS if kind != "still"]


def warp(previous: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """previous [3, H, W] at p + flow [2, H, W] for every pixel p, float32 [3, H, W]."""
    _, height, width = flow.shape
    y, x = np.mgrid[:height, :width]
    x, y = (x + flow[0]) * 2 / (width - 1) - 1, (y + flow[1]) * 2 / (height - 1) - 1
    grid = torch.from_numpy(np.stack((x, y), axis=-1)).float().unsqueeze(0)
    image = torch.from_numpy(previous).float().unsqueeze(0)
    return F.grid_sample(image, grid, align_corners=True, padding_mode="border")[0].numpy()


def psnr(a: np.ndarray, b: np.ndarray, where: np.ndarray) -> float:
    error = (a.astype(np.float64) - b.astype(np.float64))[:, where]
    return 10 * np.log10(255**2 / max(np.mean(error**2), 1e-9))


@pytest.mark.parametrize("kind", MOVING)
@pytest.mark.parametrize("size", [(131, 95), (208, 121)])
def test_warped_by_its_flow_a_frame_is_the_next(kind, size):
    for seed in range(3):
        clip = synthetic_clip(kind, *size, frames=8, seed=seed)
        for t in (1, 7):
            previous, current = clip.frame(t - 1), clip.frame(t)
            flow, visible = clip.flow(t), clip.visible(t)
            assert flow.dtype == np.float32 and flow.shape == (2, size[1], size[0])
            assert visible.dtype == bool and visible.mean() > 0.7
            warped = psnr(warp(previous, flow), current, visible)
            assert warped > 34
            assert warped > psnr(previous, current, visible) + 4
            assert warped > psnr(warp(previous, -flow), current, visible) + 6


def test_still_is_still():
    clip = synthetic_clip("still", 65, 33, frames=5, seed=3)
    first = clip.frame(0)
    assert first.std() > 5
    assert all(np.array_equal(frame, first) for frame in clip)
    assert not clip.flow(4).any() and clip.visible(4).all()


def test_cut_outs_have_their_own_motion_and_hide_what_is_behind():
    clip = synthetic_clip("occluder", 160, 120, frames=3, seed=0)
    flow, visible = clip.flow(1), clip.visible(1)
    background = flow[:, 0, 0][:, None, None]
    cut_out = np.hypot(*(flow - background)) > 0.5
    assert 0.03 < cut_out.mean() < 0.5
    # Uncovered background: its flow leads to a pixel that shows the cut-out.
    previous, current = clip.frame(0), clip.frame(1)
    assert psnr(warp(previous, flow), current, ~visible) < 28


@pytest.mark.parametrize("kind", KINDS)
def test_the_seed_decides_everything(kind):
    def render(seed):
        return np.stack(list(synthetic_clip(kind, 49, 35, frames=3, seed=seed)))

    assert np.array_equal(render(5), render(5))
    assert not np.array_equal(render(5), render(6))


def test_a_frame_depends_on_its_index_alone():
    clip = synthetic_clip("mixed", 64, 48, frames=6, seed=1)
    late = clip.frame(5)
    assert np.array_equal(late, list(clip.frames_rgb)[5])
    assert len(clip) == clip.frame_count == len(list(clip)) == 6


@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 200), (1920, 16)])
def test_any_size(size):
    clip = synthetic_clip("layers", *size, frames=2)
    assert clip.frame(1).shape == (3, size[1], size[0])
    assert np.isfinite(clip.flow(1)).all()


def test_what_cannot_be_made_is_refused():
    with pytest.raises(VideoError, match="pan"):
        synthetic_clip("wobbly", 64, 64, 4)
    for width, height, frames in ((0, 64, 4), (64, -1, 4), (64, 64, 0)):
        with pytest.raises(VideoError):
            synthetic_clip("pan", width, height, frames)
    clip = synthetic_clip("pan", 16, 16, 2)
    for call, t in ((clip.frame, 2), (clip.frame, -1), (clip.flow, 0), (clip.visible, 2)):
        with pytest.raises(IndexError):
            call(t)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**32),
    height=st.integers(48, 131),
    width=st.integers(48, 131),
    max_motion=st.floats(0.5, 24),
)
def test_random_pairs_keep_their_bound_and_their_flow_is_true(seed, height, width, max_motion):
    pair = random_pair(np.random.default_rng(seed), height, width, max_motion)
    previous, current, flow, visible = pair
    assert previous.dtype == current.dtype == np.uint8
    assert previous.shape == current.shape == (3, height, width)
    assert flow.dtype == np.float32 and flow.shape == (2, height, width)
    assert visible.dtype == bool and visible.shape == (height, width)
    assert np.hypot(*flow).max() <= max_motion
    if visible.mean() > 0.1:
        assert psnr(warp(previous, flow), current, visible) > 32
    again = random_pair(np.random.default_rng(seed), height, width, max_motion)
    assert all(np.array_equal(a, b) for a, b in zip(pair, again, strict=True))


def test_random_pairs_span_small_and_large_motion():
    rng = np.random.default_rng(0)
    peaks = [np.hypot(*random_pair(rng, 64, 64, 16.0)[2]).max() for _ in range(60)]
    assert min(peaks) < 2 and max(peaks) > 8
    assert len(set(peaks)) == 60


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_the_photographs_are_there_and_have_content(name):
    image = photograph(name)
    assert image.shape[:2] == (1, 3) and min(image.shape[-2:]) >= 300
    assert 0 <= image.min() and image.max() <= 255 and image.std() > 10
    coarse = texture(name, 4.0)
    assert coarse.shape == image.shape
    assert abs(coarse.mean() - image.mean()) < 2  # a low-pass keeps the mean
    assert coarse.diff(dim=-1).abs().mean() < image.diff(dim=-1).abs().mean()


def test_planes_in_a_format():
    clip = synthetic_clip("pan", 33, 21, frames=2, fps=Fraction(30000, 1001))
    assert clip.format.fps == Fraction(30000, 1001) and clip.format.chroma == "rgb"
    assert np.array_equal(np.stack(next(clip.frames())), clip.frame(0))
    format = VideoFormat(33, 21, Fraction(24), "420", 10, "bt709", "limited")
    for frame in clip.frames(format):
        format.check_frame(frame)
        assert 64 <= frame[0].min() and frame[0].max() <= 940
    with pytest.raises(VideoError, match="33x21"):
        next(clip.frames(VideoFormat(32, 21, Fraction(24))))


@pytest.mark.parametrize(("name", "chroma", "depth"), [("a.y4m", "420", 8), ("b.y4m", "444", 10)])
def test_written_clips_are_read_back(tmp_path, name, chroma, depth):
    from codec.video import open_reader

    path = tmp_path / name
    clip = write_synthetic("rotation", path, 35, 27, 3, seed=2, chroma=chroma, bit_depth=depth)
    with open_reader(path) as reader:
        assert (reader.format.chroma, reader.format.bit_depth) == (chroma, depth)
        read = list(reader)
        expected = list(clip.frames(reader.format))
    assert len(read) == len(expected) == 3
    for one, other in zip(read, expected, strict=True):
        for plane, same in zip(one, other, strict=True):
            assert np.array_equal(plane, same)
