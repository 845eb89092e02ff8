"""Nothing half-written: errors, interruptions and full disks leave the folder as it was."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from codec.errors import VideoError
from codec.video.format import VideoFormat
from codec.video.reader import open_reader
from codec.video.writer import ClosedPipeError, open_writer

FORMAT = VideoFormat(64, 48, 25)
TARGETS = ("clip.y4m", "clip.yuv", "clip.mp4", "clip.mkv", "clip")


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("error", (KeyboardInterrupt, RuntimeError))
def test_interrupted(tmp_path, random_frames, name, error):
    (tmp_path / "clip.y4m").write_text("what was there before")
    with pytest.raises(error), open_writer(tmp_path / name, FORMAT) as writer:
        writer.write(random_frames(FORMAT, 1)[0])
        assert len(list(tmp_path.iterdir())) == 2  # it is being written, under another name
        assert not (tmp_path / name).exists() or name == "clip.y4m"
        raise error
    assert [path.name for path in tmp_path.iterdir()] == ["clip.y4m"]
    assert (tmp_path / "clip.y4m").read_text() == "what was there before"


@pytest.mark.parametrize("name", TARGETS)
def test_abort_close_and_forgetting(tmp_path, random_frames, name):
    frame = random_frames(FORMAT, 1)[0]
    writer = open_writer(tmp_path / name, FORMAT)
    writer.write(frame)
    writer.abort()
    writer.abort()
    writer.close()
    with pytest.raises(ValueError):
        writer.write(frame)
    writer = open_writer(tmp_path / name, FORMAT)
    writer.write(frame)
    del writer  # neither closed nor aborted
    assert list(tmp_path.iterdir()) == []
    writer = open_writer(tmp_path / name, FORMAT)
    writer.write(frame)
    writer.close()
    writer.close()
    assert writer.frames_written == 1
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", TARGETS)
def test_no_frame_no_file(tmp_path, name):
    with pytest.raises(VideoError, match="no frame"), open_writer(tmp_path / name, FORMAT):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", TARGETS)
def test_a_frame_of_another_format_aborts(tmp_path, random_frames, name):
    other = random_frames(VideoFormat(32, 32, 25), 1)[0]
    with pytest.raises(VideoError), open_writer(tmp_path / name, FORMAT) as writer:
        writer.write(random_frames(FORMAT, 1)[0])
        writer.write(other)
    assert list(tmp_path.iterdir()) == []


def refusal(target, **options):
    with pytest.raises(VideoError) as caught:
        open_writer(target, FORMAT, **options)
    text = str(caught.value)
    assert text and "\n" not in text and str(target).rstrip("/") in text
    return text


def test_unwritable_targets(tmp_path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "there.y4m").write_text("x")
    assert "does not exist" in refusal(tmp_path / "none" / "clip.mp4")
    assert "does not exist" in refusal(tmp_path / "none" / "pictures")
    assert "not a folder" in refusal(tmp_path / "file" / "clip.y4m")
    assert "is a folder" in refusal(tmp_path / "folder.mp4")
    assert "is a file" in refusal(tmp_path / "file")
    assert "none of .y4m" in refusal(tmp_path / "clip.avi")
    assert "exists already" in refusal(tmp_path / "there.y4m", overwrite=False)
    assert "too long" in refusal(tmp_path / ("n" * 300 + ".y4m")).lower()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.mp4", "there.y4m"]


def test_existing_file_is_replaced_at_the_end(tmp_path, random_frames):
    path = tmp_path / "clip.y4m"
    path.write_text("old")
    with open_writer(path, FORMAT) as writer:
        writer.write(random_frames(FORMAT, 1)[0])
        assert path.read_text() == "old"
    with open_reader(path) as reader:
        assert len(list(reader)) == 1


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("there", (True, False))
def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path, random_frames, name, there):
    real = tmp_path / "real"
    real.mkdir()
    if there:
        (real / name).write_text("old") if "." in name else (real / name).mkdir()
    (tmp_path / name).symlink_to(os.path.join("real", name))
    with open_writer(tmp_path / name, FORMAT) as writer:
        writer.write(random_frames(FORMAT, 1)[0])
    assert (tmp_path / name).is_symlink()
    assert [path.name for path in real.iterdir()] == [name]
    assert len(list(tmp_path.iterdir())) == 2
    assert (real / name / "00000.png").exists() or (real / name).stat().st_size > 3


def test_the_present_folder_is_not_replaced(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for target in (".", "./", str(tmp_path)):
        assert "the folder we are in" in refusal(target)
    assert "without a name" in refusal("")
    assert tmp_path.is_dir() and list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
@pytest.mark.parametrize("name", ("clip.y4m", "clip.yuv"))
def test_disk_full(tmp_path, random_frames, name):
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(VideoError, match="disk is full") as caught:
        with open_writer(tmp_path / name, FORMAT) as writer:
            for frame in random_frames(FORMAT, 3):
                writer.write(frame)
    assert "\n" not in str(caught.value)


LIMITED = """
import resource, sys
import numpy as np
from codec.errors import VideoError
from codec.video.format import VideoFormat
from codec.video.writer import open_writer

format = VideoFormat(320, 240, 25)
rng = np.random.default_rng(0)
frames = [tuple(rng.integers(0, 256, s, dtype=np.uint8) for s in format.plane_shapes())
          for _ in range(8)]
resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))
for name in sys.argv[1:]:
    try:
        with open_writer(name, format) as writer:
            for frame in frames:
                writer.write(frame)
        print("written", name)
    except VideoError as exc:
        print("refused", exc)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a limit on the size of files")
def test_system_refuses_to_write_on(tmp_path):
    """A limit of 60,000 bytes a file stands for a disk that fills up while each kind is written."""
    targets = [str(tmp_path / name) for name in TARGETS]
    result = subprocess.run(
        [sys.executable, "-c", LIMITED, *targets], capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert len(lines) == len(targets)
    for line, target in zip(lines, targets, strict=True):
        assert line.startswith("refused") and target in line
    assert list(tmp_path.iterdir()) == []


PIPED = """
import sys
import numpy as np
from codec.video.format import VideoFormat
from codec.video.writer import open_writer

format = VideoFormat(64, 48, 25)
frame = tuple(np.zeros(shape, np.uint8) for shape in format.plane_shapes())
try:
    with open_writer("-", format) as writer:
        for _ in range(int(sys.argv[1])):
            writer.write(frame)
except BrokenPipeError as exc:
    print(type(exc).__name__, exc, file=sys.stderr)
    sys.exit(3)
"""


def test_standard_output():
    result = subprocess.run([sys.executable, "-c", PIPED, "2"], capture_output=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(b"YUV4MPEG2 W64 H48 F25:1")
    assert result.stdout.count(b"FRAME\n") == 2


def test_a_reader_that_goes_away():
    """As when ffplay is closed: our error, catchable as BrokenPipeError, and no noise at exit."""
    with subprocess.Popen(
        [sys.executable, "-c", PIPED, "2000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(100)
        process.stdout.close()
        noise = process.stderr.read().decode()
        assert process.wait(timeout=120) == 3
    assert noise == "ClosedPipeError standard output: nobody reads it any more\n"
    assert issubclass(ClosedPipeError, VideoError)


def test_terminal_is_spared(monkeypatch):
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(closed=False, isatty=lambda: True))
    with pytest.raises(VideoError, match="terminal"):
        open_writer("-", FORMAT)


def test_permissions_are_those_of_any_new_file(tmp_path, random_frames):
    (tmp_path / "plain").write_text("x")
    with open_writer(tmp_path / "clip.y4m", FORMAT) as writer:
        writer.write(random_frames(FORMAT, 1)[0])
    assert (tmp_path / "clip.y4m").stat().st_mode == (tmp_path / "plain").stat().st_mode
