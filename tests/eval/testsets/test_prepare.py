"""Frames by a named recipe: what the pixels are, and that results carry the name."""

import subprocess
from fractions import Fraction

import numpy as np
import pytest

from codec.errors import ConfigError, VideoError
from codec.video import open_reader
from codec.video.ffmpeg import find_ffmpeg
from codec.video.synthetic import write_synthetic
from eval.metrics import rgb8
from eval.run import evaluate
from eval.sequences import find_sequences
from eval.testsets.prepare import prepare
from eval.testsets.prepared import read_prepared


@pytest.fixture
def clip(tmp_path):
    """A raw clip under the name of a test sequence, whose size nobody states."""
    path = tmp_path / "set" / "BlowingBubbles_416x240_50.yuv"
    path.parent.mkdir()
    write_synthetic("pan", path, 416, 240, 3)
    return path


def _pictures(folder):
    with open_reader(folder) as reader:
        return [np.stack(frame) for frame in reader]


def test_the_recipe_of_tcm_is_the_command_of_its_readme(tmp_path, clip):
    lines = []
    prepared = prepare(clip.parent, tmp_path / "out", "tcm-bt601", frames=2, report=lines.append)
    assert lines == ["BlowingBubbles_416x240_50: 2 frames"]
    made = prepared.sequences["BlowingBubbles_416x240_50"]
    assert (made.fps, made.frames, made.test_set) == ("50", 2, "HEVC-D")
    folder = tmp_path / "out" / "BlowingBubbles_416x240_50"
    assert [path.name for path in sorted(folder.iterdir())] == ["im00001.png", "im00002.png"]
    words = "-v error -pix_fmt yuv420p -s 416x240 -i".split()
    plain = tmp_path / "plain"
    plain.mkdir()
    command = [find_ffmpeg(), *words, str(clip), "-f", "image2", str(plain / "im%05d.png")]
    subprocess.run(command, check=True)
    expected = _pictures(plain)[:2]
    assert all(np.array_equal(a, b) for a, b in zip(_pictures(folder), expected, strict=True))


def test_bt709_is_ours_and_another_picture(tmp_path, clip):
    prepare(clip, tmp_path / "out", "bt709", frames=1)
    prepare(clip, tmp_path / "other", "tcm-bt601", frames=1)
    folder = tmp_path / "out" / "BlowingBubbles_416x240_50"
    with open_reader(clip, size=(416, 240), fps=50, pix_fmt="yuv420p", matrix="bt709") as reader:
        expected = rgb8(next(iter(reader)), reader.format)
    assert np.array_equal(_pictures(folder)[0], expected)
    (by_bt601,) = _pictures(tmp_path / "other" / folder.name)
    assert np.abs(by_bt601.astype(int) - expected).max() > 5


def test_what_is_there_is_left_and_what_does_not_fit_is_said(tmp_path, clip):
    out, lines = tmp_path / "out", []
    prepare(clip, out, "bt709", frames=1)
    prepare(clip, out, "bt709", frames=1, report=lines.append)
    assert lines == ["BlowingBubbles_416x240_50: there already, 1 frames"]
    for other in (2, None):
        with pytest.raises(VideoError, match="exists already: take it away"):
            prepare(clip, out, "bt709", frames=other)
    with pytest.raises(ConfigError, match="holds frames by bt709: choose another folder"):
        prepare(clip, out, "tcm-bt601")
    with pytest.raises(ConfigError, match="no recipe 'x'"):
        prepare(clip, out, "x")
    (out / "prepared.json").write_text("{")
    with pytest.raises(VideoError, match="is damaged: prepare the frames again"):
        read_prepared(out)
    with pytest.raises(VideoError, match="RGB already"):
        prepare(out / clip.stem, tmp_path / "twice", "tcm-bt601")


def test_results_carry_the_recipe_and_the_rate(tmp_path, monkeypatch):
    monkeypatch.setattr("eval.plot.plot_rd", lambda *_, **__: [])
    write_synthetic("pan", tmp_path / "pan.y4m", 64, 48, 2, fps=50)
    from lgmc.main import main

    words = ["data", "prepare", str(tmp_path / "pan.y4m"), str(tmp_path / "out")]
    assert main([*words, "--recipe", "tcm-bt601"]) == 0
    (sequence,) = find_sequences(tmp_path / "out")
    assert sequence.format.fps == Fraction(50)
    (given,) = find_sequences(tmp_path / "out", fps=10)
    assert given.format.fps == Fraction(10)
    common = {"anchors": ["x264-medium"], "qps": (30,), "out": tmp_path / "results"}
    conditions = evaluate(tmp_path / "out", **common).results[0].conditions
    assert conditions.prepared["recipe"] == "tcm-bt601"
    assert conditions.prepared["ffmpeg"]
    assert evaluate(tmp_path / "pan.y4m", **common).results[0].conditions.prepared is None
