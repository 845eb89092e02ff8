import subprocess
import sys

import pytest

from codec.errors import VideoError
from codec.video.ffmpeg import find_ffmpeg


def test_the_bundled_program_runs(monkeypatch):
    monkeypatch.delenv("FFMPEG", raising=False)
    result = subprocess.run([find_ffmpeg(), "-version"], capture_output=True, text=True)
    assert result.stdout.startswith("ffmpeg version")


def test_the_environment_comes_first(monkeypatch):
    monkeypatch.setenv("FFMPEG", sys.executable)
    assert find_ffmpeg() == sys.executable
    monkeypatch.setenv("FFMPEG", "/nowhere/ffmpeg")
    with pytest.raises(VideoError, match="FFMPEG is set to /nowhere/ffmpeg"):
        find_ffmpeg()


def test_the_system_comes_last(monkeypatch, tmp_path):
    monkeypatch.delenv("FFMPEG", raising=False)
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)  # not installed
    program = tmp_path / "ffmpeg"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_ffmpeg() == str(program)
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    with pytest.raises(VideoError, match="imageio-ffmpeg"):
        find_ffmpeg()
