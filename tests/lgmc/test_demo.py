"""`lgmc demo` with a tiny model: the whole round trip, and what it says of it."""

import re
import shutil
from pathlib import Path

import pytest

from codec.bitstream import ContainerReader
from lgmc.main import main


def test_a_clip_of_its_own(model, tmp_path, capfd):
    out = tmp_path / "demo"
    words = ["demo", "--model", model, "--frames", "2", "--out", str(out), "--threads", "1"]
    assert main(words) == 0
    text = capfd.readouterr().out
    assert "every frame is the encoder's own, byte for byte" in text
    assert re.search(r"PSNR Y \d+\.\d\d dB, U \d+\.\d\d dB, V \d+\.\d\d dB", text)
    assert {path.name for path in out.iterdir()} == {"original.y4m", "clip.lgmc", "decoded.y4m"}
    assert all(str(out / name) in text for name in ("original.y4m", "clip.lgmc", "decoded.y4m"))
    with open(out / "clip.lgmc", "rb") as stream:
        assert len(list(ContainerReader(stream))) == 2


def test_a_clip_of_the_user_s(model, clip, tmp_path, capfd):
    words = ["demo", clip, "--model", model, "--frames", "1", "--out", str(tmp_path / "demo")]
    assert main(words) == 0
    assert "for 1 frame of 70x50" in capfd.readouterr().out


@pytest.mark.parametrize("name", ["decoded.y4m", "recon.y4m"])
def test_the_user_s_clip_is_not_written_over(refuses, model, clip, tmp_path, name):
    kept = tmp_path / name
    shutil.copy(clip, kept)
    words = ["demo", str(kept), "--model", model, "--frames", "1", "--out", str(tmp_path)]
    refuses(words, "is the input itself: give another name for the demo's folder, --out")
    assert kept.read_bytes() == Path(clip).read_bytes()


def test_bad_input(refuses, model):
    refuses(["demo", "none.mp4", "--model", model, "--out", "."], "none.mp4 does not exist")
