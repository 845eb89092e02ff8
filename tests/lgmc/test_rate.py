"""encode at a bit rate, by the command: with the model that ships, on a small clip."""

import json
import os

import pytest

from codec.session import decode
from lgmc.encode import RATE_MISSED
from lgmc.main import main

FRAMES, FPS = 24, 24


@pytest.fixture(scope="module")
def pan(tmp_path_factory) -> str:
    from codec.video.synthetic import write_synthetic

    path = tmp_path_factory.mktemp("clip") / "pan.y4m"
    write_synthetic("pan", path, 96, 64, FRAMES)
    return str(path)


@pytest.mark.parametrize("passes", [(), ("--two-pass",)])
def test_a_bit_rate_is_met(pan, passes, tmp_path, capsys):
    target = str(tmp_path / "a.lgmc")
    words = ["encode", pan, target, "--bitrate", "0.02M", "--intra-period", "12", *passes]
    assert main([*words, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    size = os.path.getsize(target)
    assert report["outcome"]["bitrate"] == pytest.approx(8 * size * FPS / FRAMES)
    assert report["outcome"]["bitrate"] == pytest.approx(20e3, rel=0.05)
    assert len(list(decode(target, verify=True))) == FRAMES
    # What the frames were given is what `inspect` lists.
    assert main(["inspect", target, "--no-parts", "--json"]) == 0
    inspected = json.loads(capsys.readouterr().out)
    assert [f["quality"] for f in inspected["frames"]] == [f["quality"] for f in report["frames"]]
    assert main(["inspect", target, "--no-parts"]) == 0
    chosen = [frame["quality"] for frame in report["frames"] if frame["type"] == "P"]
    assert f"quality {min(chosen)} .. {max(chosen)}" in capsys.readouterr().out


def test_the_summary_says_what_was_chosen(pan, tmp_path, capsys):
    target = str(tmp_path / "a.lgmc")
    assert main(["encode", pan, target, "--max-bitrate", "200k", "--frames", "2"]) == 0
    out, err = capsys.readouterr()
    assert err == "" and "buffer up to" in out and "quality " in out


def test_a_rate_that_is_missed_is_said_in_one_line(pan, tmp_path, capsys):
    target = str(tmp_path / "a.lgmc")
    words = ["encode", pan, target, "--bitrate", "900", "--frames", "8"]
    assert main(words) == RATE_MISSED == 3
    lines = capsys.readouterr().err.splitlines()
    assert all(line.startswith(f"lgmc: {target} is whole, but ") for line in lines)
    assert "above the 0.9 that were asked for" in lines[0]
    assert len(list(decode(target))) == 8


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--two-pass"], "needs a bit rate: give --bitrate"),
        (["--buffer", "2"], "needs a bit rate"),
        (["--max-bitrate", "1M", "--two-pass"], "give --bitrate"),
        (["--bitrate", "2M", "--max-bitrate", "1M"], "raise --max-bitrate or lower --bitrate"),
    ],
)
def test_options_that_do_not_go_together(refuses, pan, options, says):
    refuses(["encode", pan, "out.lgmc", *options], says)


def test_two_passes_of_standard_input(refuses, pan, monkeypatch):
    import io
    import sys
    from pathlib import Path

    piped = io.TextIOWrapper(io.BytesIO(Path(pan).read_bytes()))
    monkeypatch.setattr(sys, "stdin", piped)
    refuses(["encode", "-", "out.lgmc", "--bitrate", "1M", "--two-pass"], "read the video twice")
