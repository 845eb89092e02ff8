"""What is not a video: one line that names the file and says what to do."""

import os
import sys
import wave
from types import SimpleNamespace

import pytest

from codec.errors import VideoError
from codec.video.reader import open_reader


def refusal(source, **options):
    with pytest.raises(VideoError) as caught, open_reader(source, **options) as reader:
        list(reader)
    text = str(caught.value)
    assert text and "\n" not in text
    return text


def test_missing_and_empty(tmp_path):
    assert "does not exist" in refusal(tmp_path / "none.mp4")
    assert "does not exist" in refusal(tmp_path / "none.yuv", size="4x4", fps=1, pix_fmt="yuv420p")
    (tmp_path / "file").write_text("x")
    assert "does not exist" in refusal(tmp_path / "file" / "in.mp4")
    for name in ("empty.mp4", "empty.y4m", "empty.yuv"):
        (tmp_path / name).write_bytes(b"")
        assert name in refusal(tmp_path / name) and "empty" in refusal(tmp_path / name)


@pytest.mark.parametrize("name", ("a.txt", "a.mp4", "a.y4m", "a", "a.nfo", "a.m3u8"))
def test_text(tmp_path, name):
    """FFmpeg itself would draw a .txt as a terminal's screen."""
    path = tmp_path / name
    path.write_text("#EXTM3U\n" if name.endswith("m3u8") else "Dear diary,\nno video today.\n" * 20)
    assert str(path) in refusal(path)


def test_list_of_files_is_not_followed(tmp_path, make_video):
    make_video(tmp_path / "real.mkv", [50])
    path = tmp_path / "list.ffconcat"
    path.write_text("ffconcat version 1.0\nfile real.mkv\n")
    assert str(path) in refusal(path)


def test_sound_only(tmp_path):
    path = tmp_path / "sound.wav"
    with wave.open(str(path), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(16000))
    assert "no video stream" in refusal(path)


@pytest.mark.parametrize("share", (0.02, 0.3, 0.9))
def test_truncated_mp4(tmp_path, make_video, share):
    path = make_video(tmp_path / "clip.mp4", range(40, 80), encoder="libx264")
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])  # its index is at the end
    assert "clip.mp4" in refusal(path)


def test_damaged_frames_give_a_sentence_or_frames(tmp_path, make_video):
    path = make_video(tmp_path / "clip.mkv", range(40, 60))
    data = bytearray(path.read_bytes())
    for place in range(len(data) // 3, len(data), 7):
        data[place] ^= 0x5A
    path.write_bytes(data)
    try:
        with open_reader(path) as reader:
            list(reader)
    except VideoError as exc:
        assert "\n" not in str(exc)


def test_odd_names(tmp_path, make_video):
    """Names that FFmpeg would take for a protocol, an option or a pattern."""
    for name in ("a:b.mkv", "-i.mkv", "100%d.mkv", "sp ace.mkv", "ümläut.mkv"):
        path = make_video(tmp_path / "plain.mkv", [50, 60])
        os.rename(path, tmp_path / name)
        with open_reader(tmp_path / name) as reader:
            assert len(list(reader)) == 2


def test_options_that_do_not_fit(tmp_path, make_video):
    path = make_video(tmp_path / "clip.mkv", [50, 60])
    assert "raw" in refusal(tmp_path, size="4x4")
    assert "resample_fps" in refusal(path, fps=30)
    for options in (
        {"matrix": "bt2020"},
        {"range": "tv"},
        {"frames": 0},
        {"frames": 2.5},
        {"fps": "quick"},
        {"resample_fps": -1},
    ):
        refusal(path, **options)
    with open_reader(path, fps=24) as reader:  # saying what is so anyway is no error
        assert len(list(reader)) == 2


def test_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(closed=False, isatty=lambda: True))
    assert "terminal" in refusal("-")
    monkeypatch.setattr(sys, "stdin", None)
    assert "closed" in refusal("-")


def test_a_closed_reader_gives_nothing(tmp_path, make_video):
    path = make_video(tmp_path / "clip.mkv", [50, 60])
    reader = open_reader(path)
    next(reader)
    reader.close()
    reader.close()
    assert list(reader) == []


def test_importing_the_package_is_cheap():
    import subprocess

    code = "import sys, codec.video; sys.exit(bool({'torch', 'av', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
