"""Colour against the formulas of BT.601 and BT.709 in float64, against swscale, and against itself:
what goes to RGB and back must be the same bits."""

import itertools
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import VideoError
from codec.video.chroma_sampling import columns_down, rows_down, upsample
from codec.video.colour import convert_frame, frame_to_rgb, rgb_to_frame
from codec.video.format import VideoFormat

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}


def reference_yuv(rgb, format):
    """[3, H, W] float64 R'G'B' -> Y'CbCr codes, unrounded, as the recommendations print it."""
    red, green, blue = rgb
    kr, kb = KR_KB[format.matrix]
    y = kr * red + (1 - kr - kb) * green + kb * blue
    cb = (blue - y) / (2 * (1 - kb))
    cr = (red - y) / (2 * (1 - kr))
    scale = 2 ** (format.bit_depth - 8)
    if format.range == "limited":
        return np.stack((219 * y + 16, 224 * cb + 128, 224 * cr + 128)) * scale
    top = 2**format.bit_depth - 1
    return np.stack((y * top, cb * top + 128 * scale, cr * top + 128 * scale))


@pytest.mark.parametrize(
    ("matrix", "range", "depth"), itertools.product(KR_KB, ("limited", "full"), (8, 10))
)
def test_rgb_to_yuv_is_the_recommendation(matrix, range, depth):
    format = VideoFormat(64, 48, 25, "444", depth, matrix, range)
    rgb = np.random.default_rng(1).random((3, 48, 64))
    wanted = reference_yuv(rgb, format)
    got = np.stack(rgb_to_frame(torch.from_numpy(rgb)[None], format)).astype(np.float64)
    # The codes are those of rounding, but for ties that float32 may see on the other side.
    assert np.abs(got - wanted).max() < 0.5 + 1e-3
    assert np.array_equal(np.stack(rgb_to_frame(torch.from_numpy(rgb), format)), got)


@pytest.mark.parametrize(
    ("matrix", "range", "depth"), itertools.product(KR_KB, ("limited", "full"), (8, 10))
)
def test_yuv_to_rgb_inverts_the_recommendation(matrix, range, depth, random_frames):
    format = VideoFormat(40, 30, 25, "444", depth, matrix, range)
    frame = random_frames(format, 1)[0]
    rgb = frame_to_rgb(frame, format)
    assert rgb.shape == (1, 3, 30, 40) and rgb.dtype == torch.float32
    back = reference_yuv(rgb[0].double().numpy(), format)
    assert np.abs(back - np.stack(frame)).max() < 2e-3


@pytest.mark.parametrize("matrix", KR_KB)
def test_white_black_and_primaries(matrix):
    format = VideoFormat(4, 1, 25, "444", 8, matrix, "limited")
    colours = torch.tensor([[0, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 1]]).T[:, None].float()
    y, cb, cr = rgb_to_frame(colours, format)
    assert y[0, :2].tolist() == [16, 235] and cb[0, :2].tolist() == cr[0, :2].tolist() == [128, 128]
    assert cr[0, 2] == 240 and cb[0, 3] == 240  # red and blue reach the ends of their axes
    assert y[0, 2] == {"bt601": 81, "bt709": 63}[matrix]


@given(
    width=st.integers(1, 33),
    height=st.integers(1, 33),
    chroma=st.sampled_from(("420", "444", "rgb")),
    depth=st.sampled_from((8, 10)),
    matrix=st.sampled_from(("bt601", "bt709")),
    range=st.sampled_from(("limited", "full")),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=150)
def test_round_trip_is_exact_for_every_code(width, height, chroma, depth, matrix, range, seed):
    """Also for codes outside the nominal range and colours outside the RGB cube, which uniform
    noise is full of."""
    format = VideoFormat(width, height, 25, chroma, depth, matrix, range)
    rng = np.random.default_rng(seed)
    frame = tuple(
        rng.integers(0, format.max_value + 1, shape).astype(format.dtype)
        for shape in format.plane_shapes()
    )
    kept = [plane.copy() for plane in frame]
    back = rgb_to_frame(frame_to_rgb(frame, format), format)
    for before, original, after in zip(kept, frame, back, strict=True):
        assert np.array_equal(before, original)  # the caller's planes are not touched
        assert np.array_equal(original, after) and original.dtype == after.dtype
        assert after.flags.c_contiguous


@pytest.mark.parametrize("depth", (8, 10))
def test_every_444_code_triple_on_a_grid(depth):
    """All of a coarse grid through the cube of codes, its corners included."""
    top = 2**depth - 1
    axis = np.unique(np.linspace(0, top, 52).round().astype(int))
    grid = np.stack(np.meshgrid(axis, axis, axis)).reshape(3, -1, len(axis) ** 2)
    for matrix, range in itertools.product(KR_KB, ("limited", "full")):
        format = VideoFormat(grid.shape[2], grid.shape[1], 25, "444", depth, matrix, range)
        frame = tuple(np.ascontiguousarray(plane).astype(format.dtype) for plane in grid)
        back = rgb_to_frame(frame_to_rgb(frame, format), format)
        assert all(np.array_equal(a, b) for a, b in zip(frame, back, strict=True))


def test_read_only_planes_are_taken():
    format = VideoFormat(2, 2, 25, "444")
    frame = tuple(np.frombuffer(bytes(range(4)), np.uint8).reshape(2, 2) for _ in range(3))
    assert frame_to_rgb(frame, format).shape == (1, 3, 2, 2)


def test_rgb_beyond_the_cube_is_clipped_to_the_codes():
    format = VideoFormat(2, 1, 25, "444", 8, "bt709", "full")
    y, cb, cr = rgb_to_frame(torch.tensor([[[9.0, -9.0]]] * 3), format)
    assert y.tolist() == [[255, 0]] and cb.tolist() == cr.tolist() == [[128, 128]]


def test_wrong_shapes_are_refused(random_frames):
    format = VideoFormat(4, 4, 25)
    with pytest.raises(VideoError):
        frame_to_rgb(random_frames(VideoFormat(6, 4, 25), 1)[0], format)
    with pytest.raises(ValueError):
        rgb_to_frame(torch.zeros(1, 3, 4, 6), format)
    with pytest.raises(ValueError):
        rgb_to_frame(torch.zeros(2, 3, 4, 4), format)


def test_convert_frame_between_depths_and_ranges():
    source = VideoFormat(5, 3, 25, "420", 8, "bt601", "limited")
    frame = tuple(
        np.full(shape, code, np.uint8)
        for shape, code in zip(source.plane_shapes(), (235, 128, 128), strict=True)
    )
    assert convert_frame(frame, source, source) is frame
    white = convert_frame(frame, source, VideoFormat(5, 3, 25, "rgb"))
    assert all((plane == 255).all() and plane.shape == (3, 5) for plane in white)
    deep = convert_frame(frame, source, VideoFormat(5, 3, 25, "444", 10, "bt709", "full"))
    assert [int(plane[0, 0]) for plane in deep] == [1023, 512, 512]


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**31))
@settings(deadline=None, max_examples=100)
def test_down_inverts_up(height, width, seed):
    chroma = torch.rand(
        (2, (height + 1) // 2, (width + 1) // 2), generator=torch.Generator().manual_seed(seed)
    )
    up = upsample(chroma, height, width)
    assert up.shape == (2, height, width)
    assert (columns_down(rows_down(up)) - chroma).abs().max() < 1e-6


def test_filters_keep_a_plane_and_its_place():
    """A slope must come through both ways without moving: siting is left, between two rows."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(24.0), indexing="ij")
    slope = (3 * columns + 5 * rows)[None]
    sited = 3 * columns[::2, ::2] + 5 * (rows[::2, ::2] + 0.5)
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert torch.allclose(columns_down(rows_down(slope))[inner], sited[None][inner])
    inner = (slice(None), slice(4, -4), slice(4, -4))
    assert torch.allclose(upsample(sited[None], 16, 24)[inner], slope[inner])


def test_subsampling_photographs_costs_less_than_the_plain_pair():
    """4:4:4 -> 4:2:0 -> 4:4:4 of a real picture: better by a decibel than box and repetition."""
    from skimage import data

    picture = torch.from_numpy(data.astronaut()).permute(2, 0, 1).float()[None] / 255
    format = VideoFormat(512, 512, 25)
    frame = rgb_to_frame(picture, format)
    ours = ((frame_to_rgb(frame, format).clamp(0, 1) - picture) ** 2).mean()
    full = rgb_to_frame(picture, VideoFormat(512, 512, 25, "444"))
    boxed = [
        np.repeat(np.repeat(plane.reshape(256, 2, 256, 2).mean((1, 3)), 2, 0), 2, 1)
        for plane in full[1:]
    ]
    plain_frame = (full[0], *(plane.round().astype(np.uint8) for plane in boxed))
    plain_rgb = frame_to_rgb(plain_frame, VideoFormat(512, 512, 25, "444")).clamp(0, 1)
    plain = ((plain_rgb - picture) ** 2).mean()
    assert 10 * torch.log10(plain / ours) > 1.0
    assert -10 * torch.log10(ours) > 40.0


@pytest.mark.parametrize("matrix", KR_KB)
@pytest.mark.parametrize("range", ("limited", "full"))
def test_swscale_agrees(matrix, range):
    """FFmpeg's own conversion of 4:4:4 to RGB, which is rounded more than once: within 2 codes."""
    import av

    format = VideoFormat(64, 48, Fraction(25), "444", 8, matrix, range)
    rgb = torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(3))
    frame = rgb_to_frame(rgb, format)
    picture = av.VideoFrame(64, 48, "yuv444p")
    for target, plane in zip(picture.planes, frame, strict=True):
        np.frombuffer(target, np.uint8).reshape(48, -1)[:, :64] = plane
    code = {"bt601": 5, "bt709": 1}[matrix]
    theirs = picture.reformat(
        format="gbrp",
        src_colorspace=code,
        dst_colorspace=code,
        src_color_range={"limited": 1, "full": 2}[range],
        dst_color_range=2,
    )
    green, blue, red = (
        np.frombuffer(plane, np.uint8).reshape(48, -1)[:, :64] for plane in theirs.planes
    )
    ours = (frame_to_rgb(frame, format).clamp(0, 1) * 255).round()[0].numpy()
    assert np.abs(ours - np.stack((red, green, blue)).astype(float)).max() <= 2
