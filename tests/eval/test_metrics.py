"""Metrics: by hand, against FFmpeg's psnr filter, against pytorch-msssim."""

import math
import re
import subprocess
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from codec.errors import VideoError
from codec.video.format import VideoFormat
from eval import metrics


def _format(width, height, **fields):
    return VideoFormat(width=width, height=height, fps=Fraction(25), **fields)


def _noise_frame(video_format, seed):
    rng = np.random.default_rng(seed)
    high = video_format.max_value + 1
    return tuple(
        rng.integers(0, high, shape, dtype=video_format.dtype)
        for shape in video_format.plane_shapes()
    )


def test_mse_and_psnr_by_hand():
    reference = np.array([[10, 20], [30, 40]], dtype=np.uint8)
    decoded = np.array([[11, 18], [30, 43]], dtype=np.uint8)  # errors 1, 2, 0, 3
    assert metrics.mse_plane(reference, decoded) == 14 / 4
    assert metrics.psnr_plane(reference, decoded) == pytest.approx(10 * math.log10(255**2 / 3.5))


def test_unsigned_planes_do_not_wrap():
    black, white = np.zeros((4, 4), np.uint8), np.full((4, 4), 255, np.uint8)
    assert metrics.mse_plane(black, white) == 255**2
    assert metrics.psnr_plane(black, white) == 0.0


def test_the_peak_is_that_of_the_bit_depth():
    reference = np.full((8, 8), 512, np.uint16)
    assert metrics.psnr_plane(reference, reference + 1, 10) == pytest.approx(20 * math.log10(1023))


def test_identical_planes_are_capped_and_nothing_exceeds_the_cap():
    plane = np.full((1080, 1920), 7, np.uint8)
    assert metrics.psnr_plane(plane, plane) == metrics.PSNR_CAP == 100.0
    nearly = plane.copy()
    nearly[0, 0] += 1  # 111 dB if it were not capped
    assert metrics.psnr_plane(plane, nearly) == 100.0


def test_yuv_weights_are_6_1_1():
    assert metrics.psnr_yuv611(40.0, 30.0, 20.0) == pytest.approx((240 + 30 + 20) / 8)


def test_yuv_weights_are_4_1_1():
    assert metrics.psnr_yuv411(40.0, 30.0, 20.0) == pytest.approx((160 + 30 + 20) / 6)


def test_rgb_psnr_is_one_mse_over_three_channels():
    reference = np.full((3, 4, 4), 100, np.uint8)
    decoded = reference.copy()
    decoded[0] += 3  # MSE 9, 0, 0 -> 3
    assert metrics.psnr_rgb(reference, decoded) == pytest.approx(10 * math.log10(255**2 / 3))


def test_planes_of_different_size_are_refused():
    with pytest.raises(VideoError, match="original 3x2"):
        metrics.mse_plane(np.zeros((2, 3), np.uint8), np.zeros((4, 3), np.uint8))


def test_rgb8_of_grey_video_by_hand():
    limited, ten = _format(4, 2), _format(4, 2, bit_depth=10)
    for luma in (125, 126):  # 126.92 and 128.08: rounded up and down
        frame = (np.full((2, 4), luma, np.uint8), *(np.full((1, 2), 128, np.uint8),) * 2)
        grey = round((luma - 16) / 219 * 255)
        assert np.array_equal(metrics.rgb8(frame, limited), np.full((3, 2, 4), grey))
        frame10 = tuple((plane.astype(np.uint16) * 4) for plane in frame)
        assert np.array_equal(metrics.rgb8(frame10, ten), np.full((3, 2, 4), grey))


def test_rgb8_clips_what_lies_outside_the_cube():
    below = (np.zeros((2, 2), np.uint8), *(np.full((1, 1), 128, np.uint8),) * 2)
    assert metrics.rgb8(below, _format(2, 2)).max() == 0
    above = (np.full((2, 2), 255, np.uint8), *(np.full((1, 1), 128, np.uint8),) * 2)
    assert metrics.rgb8(above, _format(2, 2)).min() == 255


def test_rgb_video_has_no_yuv_metrics():
    video_format = _format(16, 16, chroma="rgb")
    first, second = _noise_frame(video_format, 0), _noise_frame(video_format, 1)
    values = metrics.frame_metrics(first, second, video_format)
    expected = metrics.psnr_rgb(np.stack(first), np.stack(second))
    assert values["psnr_rgb"] == pytest.approx(expected)
    assert values["psnr_y"] is values["psnr_yuv611"] is values["ms_ssim"] is None
    narrow = tuple(np.ascontiguousarray(plane[:, :8]) for plane in second)
    with pytest.raises(VideoError, match="is 8x16 and the original 16x16"):
        metrics.frame_metrics(first, narrow, video_format)


@pytest.mark.parametrize(("side", "measured"), [(160, False), (161, True)])
def test_ms_ssim_only_above_160_pixels(side, measured):
    picture = np.random.default_rng(0).integers(0, 256, (3, side, 200), dtype=np.uint8)
    value = metrics.ms_ssim(picture, picture)
    assert (value is not None) == measured
    if measured:
        assert value == pytest.approx(1.0, abs=1e-6)


def test_ms_ssim_is_that_of_pytorch_msssim():
    import torch
    from pytorch_msssim import ms_ssim

    rng = np.random.default_rng(3)
    base = rng.integers(30, 220, (3, 180, 200))
    noisy = (base + rng.integers(-20, 21, base.shape)).astype(np.uint8)
    base = base.astype(np.uint8)
    tensors = [torch.from_numpy(p.astype(np.float32)).unsqueeze(0) for p in (base, noisy)]
    expected = float(ms_ssim(*tensors, data_range=255))
    assert 0.5 < expected < 0.999
    assert metrics.ms_ssim(base, noisy) == pytest.approx(expected, abs=1e-6)


def test_ms_ssim_in_db():
    assert metrics.ms_ssim_db(0.99) == pytest.approx(20.0)
    assert metrics.ms_ssim_db(1.0) == metrics.PSNR_CAP


def test_a_sequence_is_the_mean_of_its_frames_and_counts_must_agree():
    video_format = _format(16, 8)
    frames = [_noise_frame(video_format, seed) for seed in range(4)]
    rows = metrics.measure(frames[:2], frames[2:], video_format)
    single = [
        metrics.frame_metrics(a, b, video_format)
        for a, b in zip(frames[:2], frames[2:], strict=True)
    ]
    assert rows == single
    mean = metrics.average(rows)
    assert mean["psnr_y"] == pytest.approx((rows[0]["psnr_y"] + rows[1]["psnr_y"]) / 2)
    for row in rows:
        y, u, v = (row[f"psnr_{plane}"] for plane in "yuv")
        assert row["psnr_yuv611"] == pytest.approx((6 * y + u + v) / 8)
        assert row["psnr_yuv411"] == pytest.approx((4 * y + u + v) / 6)
    assert mean["ms_ssim"] is None
    with pytest.raises(VideoError, match="fewer frames"):
        metrics.measure(frames[:2], frames[:1], video_format)
    with pytest.raises(VideoError, match="more frames"):
        metrics.measure(frames[:1], frames[:2], video_format)


@pytest.mark.parametrize(
    "fields", [{}, {"chroma": "444"}, {"bit_depth": 10}, {"chroma": "444", "bit_depth": 10}]
)
def test_psnr_agrees_with_ffmpeg(tmp_path, fields):
    from codec.video.ffmpeg import find_ffmpeg

    video_format = _format(34, 22, **fields)
    rng = np.random.default_rng(5)
    reference, decoded = [], []
    for seed in range(3):
        frame = _noise_frame(video_format, seed)
        reference.append(frame)
        strength = 2 + 5 * seed
        moved = [
            np.clip(p + rng.integers(-strength, strength + 1, p.shape), 0, video_format.max_value)
            for p in frame
        ]
        decoded.append(tuple(plane.astype(video_format.dtype) for plane in moved))
    inputs = []
    for name, frames in (("decoded", decoded), ("reference", reference)):
        path = tmp_path / f"{name}.yuv"
        path.write_bytes(b"".join(plane.tobytes() for frame in frames for plane in frame))
        inputs += ["-f", "rawvideo", "-pix_fmt", video_format.pix_fmt, "-s", "34x22", "-i", path]
    log = tmp_path / "log"
    graph = f"[0:v][1:v]psnr,metadata=print:file={log}"
    subprocess.run(
        [find_ffmpeg(), "-v", "error", "-nostdin", *inputs, "-lavfi", graph, "-f", "null", "-"],
        check=True,
    )
    found = re.findall(r"lavfi\.psnr\.psnr\.([yuv])=([\d.]+)", log.read_text())
    assert len(found) == 9
    rows = metrics.measure(reference, decoded, video_format)
    for index, (plane, value) in enumerate(found):
        assert rows[index // 3][f"psnr_{plane}"] == pytest.approx(float(value), abs=1e-3)


_planes = arrays(np.uint8, (5, 7))


@settings(deadline=None, max_examples=25)
@given(_planes, _planes)
def test_psnr_is_symmetric_and_bounded(first, second):
    value = metrics.psnr_plane(first, second)
    assert value == metrics.psnr_plane(second, first)
    assert 0.0 <= value <= metrics.PSNR_CAP
    assert (value == metrics.PSNR_CAP) == np.array_equal(first, second)


@settings(deadline=None, max_examples=25)
@given(st.floats(1e-3, 255.0**2), st.floats(1.001, 100.0))
def test_more_error_is_less_psnr(mse, factor):
    assert metrics.psnr(mse * factor) < metrics.psnr(mse)
