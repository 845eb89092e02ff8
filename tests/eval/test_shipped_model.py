"""The model that ships is a real codec: rate range, order, P frames that pay, honest estimates."""

import math
import os
import subprocess
import sys

import numpy as np
import pytest

from codec.models import available, describe, load
from codec.session import encode
from codec.video import open_reader
from codec.video.colour import frame_to_rgb
from codec.video.synthetic import write_synthetic
from codec.video_codec import FrameCoder
from eval.bdrate import bd_delta
from eval.metrics import psnr_rgb, rgb8

QUALITIES = (0, 8, 16, 24, 32, 40, 48, 56, 63)
FRAMES = 6


@pytest.fixture(scope="module")
def model():
    return load("lite")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "pan.y4m"
    write_synthetic("pan", path, 320, 192, FRAMES, seed=3)
    return path


def psnr(original, decoded) -> list[float]:
    """RGB PSNR in dB of every frame of the second file."""
    with open_reader(decoded) as other, open_reader(original) as one:
        return [
            psnr_rgb(rgb8(a, one.format), rgb8(b, other.format))
            for b, a in zip(other, one, strict=False)
        ]


@pytest.fixture(scope="module")
def coded(clip, model, tmp_path_factory):
    """(quality, intra period) -> bytes and PSNR of every frame."""
    folder = tmp_path_factory.mktemp("coded")
    points = {}
    for period in (0, 1):
        for quality in QUALITIES:
            recon = folder / "recon.y4m"
            report = encode(
                clip,
                folder / "s.lgmc",
                model=model,
                quality=quality,
                intra_period=period,
                recon=recon,
                digests=False,
            )
            points[quality, period] = [f["bytes"] for f in report.frames], psnr(clip, recon)
    return points


def test_card_and_size():
    about = describe("lite")
    assert about["default"] and about["stages"] == ["local", "shifted", "global"]
    assert about["bytes"] <= 12_000_000
    assert {"data", "schedule", "results", "trained"} <= set(about["card"])
    assert list(available()) == sorted(available())


@pytest.mark.parametrize("period", [0, 1], ids=["P frames", "all intra"])
def test_rate_moves_by_more_than_six(coded, period):
    smallest, largest = (sum(coded[q, period][0]) for q in (0, 63))
    assert largest > 6 * smallest


@pytest.mark.parametrize("period", [0, 1], ids=["P frames", "all intra"])
def test_quality_rises_with_every_step(coded, period):
    means = [np.mean(coded[q, period][1]) for q in QUALITIES]
    assert means == sorted(means) and len(set(means)) == len(means)
    rates = [sum(coded[q, period][0]) for q in QUALITIES]
    assert rates == sorted(rates)


def test_a_p_frame_costs_at_most_half_an_i_frame_of_its_quality(coded):
    """Wherever one of our I frames has that PSNR; the best P frames are better than any I frame."""
    intra_db = [np.mean(coded[q, 1][1]) for q in QUALITIES]
    intra_log = [math.log(np.mean(coded[q, 1][0])) for q in QUALITIES]
    shares = {}
    for quality in QUALITIES:
        sizes, decibels = coded[quality, 0]
        p_bytes, p_db = np.mean(sizes[1:]), np.mean(decibels[1:])
        if intra_db[0] <= p_db <= intra_db[-1]:
            shares[quality] = p_bytes / math.exp(np.interp(p_db, intra_db, intra_log))
    assert len(shares) >= 6
    assert max(shares.values()) <= 0.5, shares


def test_it_beats_sending_every_frame_as_intra(coded):
    def curve(period):
        return [(sum(coded[q, period][0]), np.mean(coded[q, period][1])) for q in QUALITIES]

    delta = bd_delta(curve(1), curve(0), anchor_name="all intra", test_name="P frames")
    assert delta.rate_percent < -30


def test_estimate_is_the_files_size(model, tmp_path):
    """Within half a percent at 832x480, two at 416x240."""
    for (width, height), bound in (((832, 480), 0.005), ((416, 240), 0.02)):
        path = tmp_path / f"{width}.y4m"
        write_synthetic("mixed", path, width, height, 3, seed=2)
        encoder, estimator = (FrameCoder(model.codec, height, width) for _ in range(2))
        real = estimated = 0.0
        with open_reader(path) as reader:
            for number, frame in enumerate(reader):
                rgb = frame_to_rgb(frame, reader.format).clamp(0, 1)
                payload, _ = encoder.encode(rgb, number == 0, 40)
                bits, _ = estimator.estimate(rgb, number == 0, 40)
                real += 8 * len(payload)
                estimated += sum(bits.values())
        assert abs(real / estimated - 1) < bound, (width, real, estimated)


OWN: dict[str, str] = {}
SSE41 = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"}


def lgmc(*arguments, threads: int, **environment: str) -> None:
    """The command in a process of its own, on so many threads and such instructions."""
    command = [sys.executable, "-m", "lgmc", *map(str, arguments), "--threads", str(threads)]
    done = subprocess.run(
        command,
        env={**os.environ, **environment, "OMP_NUM_THREADS": str(threads)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoder", [(2, OWN), (1, SSE41)], ids=["2 own", "1 sse41"])
def test_its_streams_decode_under_any_arithmetic(clip, tmp_path, encoder):
    """Encoded with one setting of threads and instructions, decoded with all others."""
    threads, instructions = encoder
    stream, recon = tmp_path / "s.lgmc", tmp_path / "recon.y4m"
    options = ("--recon", recon, "--quality", 40, "--frames", 3)
    lgmc("encode", clip, stream, *options, threads=threads, **instructions)
    encoded = np.mean(psnr(clip, recon))
    for threads, instructions in ((1, OWN), (2, OWN), (1, SSE41), (2, SSE41)):
        out = tmp_path / "out.y4m"
        lgmc("decode", stream, out, threads=threads, **instructions)
        assert abs(np.mean(psnr(clip, out)) - encoded) < 0.01
        out.unlink()


def test_real_clips_are_coded_better_than_all_intra(model, real_clips, tmp_path):
    """On a moving real clip: the same PSNR for fewer bytes than intra alone."""
    clip = next(path for path in sorted(real_clips.rglob("*.mkv")) if "car_shadow" in path.name)
    curves = {}
    for period in (0, 1):
        rate, decibels = [], []
        for quality in (8, 24, 40, 56):
            recon = tmp_path / "recon.y4m"
            report = encode(
                clip,
                tmp_path / "s.lgmc",
                model=model,
                quality=quality,
                intra_period=period,
                frames=8,
                recon=recon,
            )
            rate.append(report.bytes)
            decibels.append(np.mean(psnr(clip, recon)))
        curves[period] = list(zip(rate, decibels, strict=True))
    delta = bd_delta(curves[1], curves[0], anchor_name="all intra", test_name="P frames")
    assert delta.rate_percent < 0
