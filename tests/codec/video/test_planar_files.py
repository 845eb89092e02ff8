"""y4m and raw .yuv: what is written is read again, and FFmpeg sees the same."""

import io
import itertools
import os
import subprocess
import sys
import tracemalloc
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.errors import VideoError
from codec.video.ffmpeg import find_ffmpeg
from codec.video.format import VideoFormat
from codec.video.reader import open_reader
from codec.video.writer import open_writer
from codec.video.y4m import Y4mSink, open_y4m

FORMATS = st.builds(
    VideoFormat,
    width=st.integers(1, 37),
    height=st.integers(1, 37),
    fps=st.sampled_from([Fraction(25), Fraction(30000, 1001), Fraction(1, 3), Fraction(240)]),
    chroma=st.sampled_from(("420", "444")),
    bit_depth=st.sampled_from((8, 10)),
    matrix=st.sampled_from(("bt601", "bt709")),
    range=st.sampled_from(("limited", "full")),
)


def noise(format, count, seed):
    rng = np.random.default_rng(seed)
    return [
        tuple(
            rng.integers(0, format.max_value + 1, shape).astype(format.dtype)
            for shape in format.plane_shapes()
        )
        for _ in range(count)
    ]


def same(first, second):
    return np.array_equal(first, second) and first.dtype == second.dtype


@given(FORMATS, st.integers(1, 4), st.integers(0, 999))
@settings(deadline=None, max_examples=60)
def test_y4m_round_trip(tmp_path_factory, format, count, seed):
    frames = noise(format, count, seed)
    path = tmp_path_factory.mktemp("y4m") / "clip.y4m"
    with open_writer(path, format) as writer:
        for frame in frames:
            writer.write(frame)
    with open_reader(path) as reader:
        assert reader.format == format  # fps, matrix and range included
        assert reader.frame_count == count
        got = list(reader)
    assert len(got) == count
    for one, other in zip(frames, got, strict=True):
        assert all(same(a, b) for a, b in zip(one, other, strict=True))
        assert all(plane.flags.c_contiguous for plane in other)


@given(FORMATS, st.integers(1, 4), st.integers(0, 999))
@settings(deadline=None, max_examples=60)
def test_raw_round_trip(tmp_path_factory, format, count, seed):
    frames = noise(format, count, seed)
    path = tmp_path_factory.mktemp("raw") / "clip.yuv"
    with open_writer(path, format) as writer:
        for frame in frames:
            writer.write(frame)
    wanted = b"".join(
        plane.astype(plane.dtype.newbyteorder("<")).tobytes() for frame in frames for plane in frame
    )
    assert path.read_bytes() == wanted
    reader = open_reader(
        path,
        size=f"{format.width}x{format.height}",
        fps=format.fps,
        pix_fmt=format.pix_fmt,
        matrix=format.matrix,
        range=format.range,
    )
    with reader:
        assert reader.format == format and reader.frame_count == count
        for one, other in zip(frames, reader, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize(
    ("chroma", "depth", "range"), itertools.product(("420", "444"), (8, 10), ("limited", "full"))
)
def test_ffmpeg_reads_our_y4m(tmp_path, random_frames, chroma, depth, range):
    """Through FFmpeg's own demuxer: same pixel format, range, rate and samples."""
    import av

    format = VideoFormat(34, 22, Fraction(30000, 1001), chroma, depth, "bt709", range)
    frames = random_frames(format, 2)
    path = tmp_path / "clip.y4m"
    with open_writer(path, format) as writer:
        for frame in frames:
            writer.write(frame)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == format.fps
        for frame, theirs in zip(frames, container.decode(stream), strict=True):
            assert theirs.format.name == format.pix_fmt
            assert theirs.color_range == {"limited": 1, "full": 2}[range]
            for plane, other in zip(frame, theirs.planes, strict=True):
                lines = np.frombuffer(other, np.uint8).reshape(other.height, -1).view(format.dtype)
                assert np.array_equal(lines[:, : other.width], plane)


@pytest.mark.parametrize("pix_fmt", ("yuv420p", "yuv444p", "yuv420p10le", "yuv444p10le"))
def test_y4m_from_ffmpeg_by_pipe(pix_fmt):
    """The program's y4m on a pipe, read as `-`; the reader takes no more than it is asked for."""
    ffmpeg = [find_ffmpeg(), "-v", "error", "-f", "lavfi", "-i", "testsrc2=s=50x38:r=10:d=0.5"]
    process = subprocess.Popen(
        [*ffmpeg, "-pix_fmt", pix_fmt, "-strict", "-1", "-f", "yuv4mpegpipe", "-"],
        stdout=subprocess.PIPE,
    )
    with process:
        with open_y4m(process.stdout, "the pipe") as reader:
            assert reader.format.pix_fmt == pix_fmt
            assert reader.frame_count is None
            assert (reader.format.width, reader.format.height) == (50, 38)
            assert reader.format.fps == 10
            assert sum(1 for _ in reader) == 5


@pytest.mark.filterwarnings("ignore::codec.errors.VideoWarning")
def test_header_words():
    def header(words):
        stream = io.BytesIO(b"YUV4MPEG2 " + words + b"\nFRAME\n" + bytes(5000))
        return open_y4m(stream, "it").format

    assert header(b"W8 H4 F25:1").pix_fmt == "yuv420p"
    assert header(b"W8 H4 F25:1 C420jpeg XCOLORRANGE=FULL").range == "full"
    assert header(b"W8 H4 F25:1 C420mpeg2").range == "limited"
    assert header(b"W8 H4 F25:1 C420paldv Ip A128:117").chroma == "420"
    assert header(b"W8 H4 F25:1 C444p10 XYSCSS=444P10").bit_depth == 10
    assert header(b"W8 H4 F25:1").matrix == "bt601"
    assert header(b"W1920 H1080 F25:1").matrix == "bt709"
    assert header(b"W720 H576 F25:1").matrix == "bt601"
    assert header(b"W8 H4 F25:1 XMATRIX=BT709").matrix == "bt709"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"YUV4MPEG2",
        b"YUV4MPEG3 W8 H4 F25:1\n",
        b"YUV4MPEG2 W8 F25:1\n",
        b"YUV4MPEG2 W-8 H4 F25:1\n",
        b"YUV4MPEG2 W99999999999999999999 H4 F25:1\n",
        b"YUV4MPEG2 W8 H4\n",
        b"YUV4MPEG2 W8 H4 F0:0\n",
        b"YUV4MPEG2 W8 H4 Fx:1\n",
        b"YUV4MPEG2 W8 H4 F25:1 C422\n",
        b"YUV4MPEG2 W8 H4 F25:1 C420p12\n",
        b"YUV4MPEG2 W8 H4 F25:1\n",
        b"YUV4MPEG2 W8 H4 F25:1\nFRAM\n" + bytes(48),
        b"YUV4MPEG2 W8 H4 F25:1\nFRAME\n" + bytes(47),
        b"YUV4MPEG2 W8 H4 F25:1\nFRAME\n" + bytes(48) + b"FRA",
        b"YUV4MPEG2 W8 H4 F25:1\nFRAME\n" + bytes(48) + b"FRAME\n",
        b"YUV4MPEG2 W2 H2 F25:1 C444p10\nFRAME\n" + b"\xff" * 24,
        b"\xff" * 9000,
    ],
)
def test_damaged_y4m(data):
    with pytest.raises(VideoError) as caught:
        list(open_y4m(io.BytesIO(data), "clip.y4m"))
    assert "\n" not in str(caught.value) and "clip.y4m" in str(caught.value)


@given(st.binary(max_size=300))
@settings(deadline=None, max_examples=100)
def test_any_bytes_after_the_magic_give_frames_or_a_sentence(tail):
    try:
        for _ in open_y4m(io.BytesIO(b"YUV4MPEG2 W2 H2 F25:1" + tail), "x"):
            pass
    except VideoError as exc:
        assert "\n" not in str(exc)


def test_first_frame_of_an_endless_pipe(monkeypatch, random_frames):
    """One frame has been sent and the pipe stays open: it must come out without the next."""
    format = VideoFormat(16, 16, 25)
    read_end, write_end = os.pipe()
    with os.fdopen(write_end, "wb", buffering=0) as sender, os.fdopen(read_end, "rb") as pipe:
        stdin = SimpleNamespace(buffer=pipe, closed=False, isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", stdin)
        frames = random_frames(format, 2)
        sink = Y4mSink(sender, format)
        sink.write(frames[0])
        reader = open_reader("-")
        assert np.array_equal(next(reader)[0], frames[0][0])
        sink.write(frames[1])
        assert np.array_equal(next(reader)[0], frames[1][0])
        reader.close()
        assert not pipe.closed  # standard input is not ours to close


def test_memory_does_not_grow_with_the_clip(tmp_path, random_frames):
    format = VideoFormat(128, 128, 25)
    frame = random_frames(format, 1)[0]
    path = tmp_path / "long.y4m"
    tracemalloc.start()
    try:
        with open_writer(path, format) as writer:
            for _ in range(200):
                writer.write(frame)
        with open_reader(path) as reader:
            assert sum(1 for _ in reader) == 200
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30 * format.frame_bytes


def test_frames_limit_and_resampling_of_a_constant_rate(tmp_path, random_frames):
    format = VideoFormat(8, 8, 30)
    frames = random_frames(format, 6)
    path = tmp_path / "clip.y4m"
    with open_writer(path, format) as writer:
        for frame in frames:
            writer.write(frame)
    with open_reader(path, frames=4) as reader:
        assert reader.frame_count == 4 and len(list(reader)) == 4
    with open_reader(path, frames=99) as reader:
        assert reader.frame_count == 6 and len(list(reader)) == 6
    with open_reader(path, resample_fps=15) as reader:
        assert reader.format.fps == 15 and reader.frame_count == 3
        got = [frame[0] for frame in reader]
    assert all(np.array_equal(a, frames[i][0]) for a, i in zip(got, (0, 2, 4), strict=True))
    with open_reader(path, resample_fps=60, frames=5) as reader:
        assert reader.frame_count == 5
        got = [frame[0] for frame in reader]
    assert all(np.array_equal(a, frames[i][0]) for a, i in zip(got, (0, 0, 1, 1, 2), strict=True))


def test_raw_of_another_size(tmp_path):
    path = tmp_path / "clip.yuv"
    path.write_bytes(bytes(1000))
    with pytest.raises(VideoError) as caught:
        open_reader(path, size="16x16", fps=25, pix_fmt="yuv420p")
    text = str(caught.value)
    assert "1000 bytes" in text and "384" in text and "16x16" in text and "\n" not in text


def test_raw_needs_to_be_told(tmp_path):
    path = tmp_path / "clip.yuv"
    path.write_bytes(bytes(384))
    for given_, missing in (
        ({}, "size, fps, pix_fmt"),
        ({"size": (16, 16), "pix_fmt": "yuv420p"}, "fps"),
    ):
        with pytest.raises(VideoError, match=missing):
            open_reader(path, **given_)
    for wrong in ({"pix_fmt": "nv12"}, {"size": "16"}, {"size": "16x"}, {"size": "0x16"}):
        options = {"size": (16, 16), "fps": 25, "pix_fmt": "yuv420p", **wrong}
        with pytest.raises(VideoError):
            open_reader(path, **options)
    reader = open_reader(path, size=(16, 16), fps=25, pix_fmt="yuvj420p")
    assert reader.format.range == "full"
    reader.close()


def test_raw_under_another_name(tmp_path):
    path = tmp_path / "clip.bin"
    path.write_bytes(bytes(384 * 2))
    with open_reader(path, size=(16, 16), fps=25, pix_fmt="yuv420p") as reader:
        assert len(list(reader)) == 2
    said = "with a size or pix_fmt is read as raw video, .* give fps, pix_fmt too .*, or leave size"
    with pytest.raises(VideoError, match=said):
        open_reader(path, size=(16, 16))
    with pytest.raises(VideoError, match="is raw video, which has no header: give fps too .*p[)]$"):
        open_reader(path.rename(path.with_suffix(".yuv")), size=(16, 16), pix_fmt="yuv420p")


def test_y4m_that_only_ffmpeg_reads(tmp_path):
    """4:2:2 in a y4m file goes to FFmpeg and arrives as 4:4:4."""
    path = tmp_path / "clip.y4m"
    body = b"FRAME\n" + bytes([77] * 32 + [90] * 16 + [160] * 16)
    path.write_bytes(b"YUV4MPEG2 W8 H4 F25:1 Ip C422\n" + body * 2)
    with open_reader(path) as reader:
        assert reader.format.chroma == "444"
        frames = list(reader)
    assert len(frames) == 2
    assert [np.unique(plane).tolist() for plane in frames[0]] == [[77], [90], [160]]
