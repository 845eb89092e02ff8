"""VMAF and XPSNR: by hand where a hand can, and as the filters say over two plain files."""

import json
import math
import subprocess
from fractions import Fraction

import numpy as np
import pytest

from codec.errors import ConfigError, VideoError
from codec.video.ffmpeg import find_ffmpeg
from codec.video.format import VideoFormat
from codec.video.synthetic import write_synthetic
from eval.filter_metrics import FilterMetrics, check_filters, read_vmaf, read_xpsnr
from eval.run import evaluate

BOTH = ("vmaf", "xpsnr")


def _grey(video, luma):
    values = (luma, 0, 0)
    shapes = video.plane_shapes()
    return tuple(np.full(s, v, video.dtype) for s, v in zip(shapes, values, strict=True))


def _measured(names, video, pairs):
    with FilterMetrics(names, video, find_ffmpeg()) as filters:
        for original, decoded in pairs:
            filters.add(original, decoded)
        return filters.values()


def test_xpsnr_of_black_by_hand():
    """On black every block has the least activity, 2^(8-6), and so the weight 1/4."""
    video = VideoFormat(width=64, height=48, fps=25)
    pairs = [(_grey(video, 0), _grey(video, 3)), (_grey(video, 0), _grey(video, 0))]
    values = _measured(("xpsnr",), video, pairs)
    share = 64 * 48 / (3840 * 2160)
    weight = math.sqrt(16 * 2**7 / math.sqrt(share)) / 4
    by_hand = 10 * math.log10(255**2 / (3**2 * weight))
    assert values["xpsnr_y"] == [pytest.approx(by_hand, abs=1e-4), 100.0]
    assert values["xpsnr_u"] == [100.0, 100.0]
    assert set(values) == {"xpsnr_y", "xpsnr_u", "xpsnr_v"}


def test_xpsnr_that_is_no_number_is_none_and_not_perfect():
    line = "n:    1  XPSNR y: {}  XPSNR u: inf  XPSNR v: 40.5\n"
    values = read_xpsnr(line.format("nan") + line.format("-nan") + line.format("39.5"))
    assert values["xpsnr_y"] == [None, None, 39.5] and values["xpsnr_u"] == [100.0] * 3
    assert values["xpsnr_v"] == [40.5] * 3


@pytest.mark.parametrize(
    "fields", [{}, {"bit_depth": 10}, {"chroma": "444", "fps": Fraction(60000, 1001)}]
)
def test_both_are_what_the_filters_say_over_two_files(tmp_path, fields):
    video = VideoFormat(**{"width": 72, "height": 66, "fps": 25, **fields})
    rng = np.random.default_rng(1)
    pairs = []
    for shift in range(3):
        original, decoded = [], []
        for height, width in video.plane_shapes():
            y, x = np.mgrid[:height, :width]
            wave = (np.sin((x + 3 * shift) / 5) + np.cos(y / 7) + 2) / 4 * video.max_value
            noise = rng.normal(0, video.max_value / 40, wave.shape) * (x > width / 2)
            original.append(wave.astype(video.dtype))
            decoded.append(np.clip(wave + noise, 0, video.max_value).astype(video.dtype))
        pairs.append((tuple(original), tuple(decoded)))
    inputs = {}
    for index, name in enumerate(("original", "decoded")):
        path = tmp_path / f"{name}.yuv"
        path.write_bytes(b"".join(plane.tobytes() for pair in pairs for plane in pair[index]))
        raw = f"-f rawvideo -pix_fmt {video.pix_fmt} -s 72x66 -framerate {video.fps} -i"
        inputs[name] = [*raw.split(), path.name]
    graphs = {
        "libvmaf=log_fmt=json:log_path=v.json": ("decoded", "original"),
        "xpsnr=stats_file=x.log": ("original", "decoded"),
    }
    for graph, (first, second) in graphs.items():
        words = [find_ffmpeg(), *inputs[first], *inputs[second], "-lavfi", f"[0][1]{graph}"]
        command = [*words, "-f", "null", "-"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    values = _measured(BOTH, video, pairs)
    assert values["vmaf"] == read_vmaf((tmp_path / "v.json").read_text())["vmaf"]
    pooled = json.loads((tmp_path / "v.json").read_text())["pooled_metrics"]["vmaf"]["mean"]
    assert np.mean(values["vmaf"]) == pytest.approx(pooled, abs=1e-5)
    assert 0 < min(values["vmaf"]) < 97
    expected = read_xpsnr((tmp_path / "x.log").read_text())
    assert {name: values[name] for name in expected} == expected
    assert len(set(values["xpsnr_y"])) == 3


def test_odd_sizes_rgb_and_pictures_too_small_for_xpsnr():
    odd = VideoFormat(width=67, height=45, fps=25)
    assert _measured(("xpsnr",), odd, [(_grey(odd, 0), _grey(odd, 9))])["xpsnr_y"][0] < 60
    rgb = VideoFormat(width=64, height=48, fps=25, chroma="rgb")
    assert _measured(BOTH, rgb, [(_grey(rgb, 9), _grey(rgb, 9))])["xpsnr_v"] == [100.0]
    small = VideoFormat(width=32, height=32, fps=25)
    values = _measured(("xpsnr",), small, [(_grey(small, 0), _grey(small, 3))])
    assert values == {"xpsnr_y": [None], "xpsnr_u": [None], "xpsnr_v": [None]}


def test_what_cannot_be_asked_for_is_said(tmp_path):
    with pytest.raises(ConfigError, match="no metric 'lpips' to ask for: choose from vmaf, xpsnr"):
        check_filters(("lpips",), find_ffmpeg())
    stub = tmp_path / "ffmpeg"
    stub.write_text('#!/bin/sh\necho " TS psnr VV->V"\n')
    stub.chmod(0o755)
    with pytest.raises(ConfigError, match="no filter libvmaf: leave vmaf out"):
        check_filters(("vmaf",), str(stub))
    stub = tmp_path / "broken"
    asked = 'case "$*" in *filters*) echo " TS xpsnr VV->V"; exit 0; esac'
    stub.write_text(f"#!/bin/sh\n{asked}\necho as a test wants >&2\nexit 3\n")
    stub.chmod(0o755)
    video = VideoFormat(width=64, height=48, fps=25)
    with pytest.raises(VideoError, match="measuring xpsnr failed: as a test wants"):
        with FilterMetrics(("xpsnr",), video, str(stub)) as filters:
            filters.add(_grey(video, 0), _grey(video, 0))
            filters.values()


def test_an_evaluation_has_them_when_asked_and_keeps_what_it_had(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr("eval.plot.plot_rd", lambda *_, metric, **__: drawn.append(metric) or [])
    write_synthetic("pan", tmp_path / "pan.y4m", 64, 48, 3)
    common = {"anchors": ["x264-medium"], "qps": (24, 38), "out": tmp_path / "out"}
    plain = evaluate(tmp_path / "pan.y4m", intra_period=2, **common).results[0].points
    asked = evaluate(tmp_path / "pan.y4m", intra_period=2, metrics=BOTH, **common)
    points = asked.results[0].points
    assert [point.metrics["vmaf"] is not None for point in points] == [True, True]
    assert "vmaf" not in plain[0].metrics and points[0].bytes == plain[0].bytes
    rows = points[0].per_frame.metrics
    assert points[0].metrics["xpsnr_y"] == pytest.approx(np.mean(rows["xpsnr_y"]))
    assert drawn[-4:] == ["psnr_rgb", "psnr_yuv611", "vmaf", "xpsnr_y"]
    again = evaluate(tmp_path / "pan.y4m", intra_period=2, **common).results[0].points
    assert again == plain
    kinds = points[0].by_type()
    assert [kinds[kind]["frames"] for kind in "IP"] == [2, 1]
    assert kinds["I"]["psnr_y"] == pytest.approx((rows["psnr_y"][0] + rows["psnr_y"][2]) / 2)
    assert kinds["P"]["bytes"] == points[0].per_frame.bytes[1]
    assert kinds["P"]["ms_ssim"] is None
    header, *_ = (tmp_path / "out" / "points.csv").read_text().splitlines()
    assert {"bytes_i", "psnr_rgb_p", "vmaf", "encode_peak_mib"} <= set(header.split(","))
