"""Videos through FFmpeg: written by us, or by PyAV alone, and read."""

import re
import subprocess
import warnings
from fractions import Fraction

import numpy as np
import pytest

from codec.errors import VideoError, VideoWarning
from codec.video.ffmpeg import find_ffmpeg
from codec.video.format import VideoFormat
from codec.video.reader import open_reader
from codec.video.writer import open_writer


def levels(reader):
    return [int(frame[0].flat[0]) for frame in reader]


@pytest.mark.parametrize("chroma", ("420", "444", "rgb"))
@pytest.mark.parametrize("depth", (8, 10))
@pytest.mark.parametrize("size", [(1, 1), (17, 13), (160, 144)])
def test_mkv_is_lossless(tmp_path, random_frames, same_frames, chroma, depth, size):
    range = "limited" if depth == 10 else "full"
    format = VideoFormat(*size, Fraction(30000, 1001), chroma, depth, "bt601", range)
    frames = random_frames(format, 3)
    with open_writer(tmp_path / "clip.mkv", format) as writer:
        for frame in frames:
            writer.write(frame)
        assert writer.stored == format
    with open_reader(tmp_path / "clip.mkv") as reader:
        assert reader.format == format and reader.frame_count == 3
        assert same_frames(frames, list(reader))


@pytest.mark.parametrize("matrix", ("bt601", "bt709"))
@pytest.mark.parametrize(
    ("chroma", "depth", "range"),
    [("420", 8, "limited"), ("420", 8, "full"), ("444", 8, "limited"), ("420", 10, "limited")],
)
def test_mp4_is_close_and_tagged(tmp_path, matrix, chroma, depth, range):
    format = VideoFormat(96, 64, 24, chroma, depth, matrix, range)
    peak = format.max_value
    shades = np.linspace(0.1 * peak, 0.9 * peak, 96).astype(format.dtype)
    frame = tuple(
        np.ascontiguousarray(np.broadcast_to(shades[: shape[1]], shape))
        for shape in format.plane_shapes()
    )
    with open_writer(tmp_path / "clip.mp4", format) as writer:
        for _ in (1, 2, 3, 4, 5):
            writer.write(frame)
    with open_reader(tmp_path / "clip.mp4") as reader:
        assert reader.format == format and reader.frame_count == 5
        for got in reader:
            for plane, other in zip(frame, got, strict=True):
                error = (plane.astype(float) - other) / peak
                assert 10 * np.log10(1 / np.mean(error**2)) > 45


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_rate_beyond_ffmpegs_ratios_is_refused(tmp_path, name):
    with pytest.raises(VideoError, match="write .y4m"):
        open_writer(tmp_path / name, VideoFormat(32, 16, Fraction(3000000019, 100000007)))
    assert list(tmp_path.iterdir()) == []


def test_mp4_of_odd_size_and_rgb_become_444(tmp_path, random_frames):
    for format in (VideoFormat(33, 17, 25), VideoFormat(32, 16, 25, "rgb")):
        with open_writer(tmp_path / "clip.mp4", format) as writer:
            writer.write(random_frames(format, 1)[0])
        assert writer.stored.chroma == "444" and writer.stored.range == "limited"
        with open_reader(tmp_path / "clip.mp4") as reader:
            assert reader.format == writer.stored
            assert len(list(reader)) == 1


@pytest.mark.parametrize("suffix", ("mkv", "mp4", "avi", "mov", "ts", "webm"))
@pytest.mark.parametrize("rate", (Fraction(24), Fraction(30000, 1001)))
def test_constant_rates_through_all_containers(tmp_path, make_video, suffix, rate):
    encoder = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(suffix, "libx264")
    path = make_video(
        tmp_path / f"clip.{suffix}",
        [40 + 4 * index for index in range(30)],
        encoder=encoder,
        rate=rate,
        time_base=1 / rate,
    )
    with open_reader(path) as reader:
        assert reader.format.fps == rate
        assert reader.frame_count == 30
        assert np.abs(np.array(levels(reader)) - (40 + 4 * np.arange(30))).max() <= 2
    with open_reader(path, frames=7) as reader:
        assert reader.format.fps == rate and reader.frame_count == 7 and len(list(reader)) == 7


def test_elementary_stream_without_time_stamps(tmp_path, make_video):
    path = make_video(tmp_path / "clip.264", range(50, 60), encoder="libx264", muxer="h264")
    with open_reader(path) as reader:
        assert reader.frame_count == len(levels(reader)) == 10


PLACES = [0, 1, 2, 5, 6, 7, 12, 13]  # in 24ths of a second


@pytest.mark.parametrize("suffix", ("mkv", "mp4"))
def test_variable_rate_is_refused_and_resampled(tmp_path, make_video, suffix):
    path = make_video(
        tmp_path / f"clip.{suffix}",
        range(100, 108),
        pts=[place * 1000 for place in PLACES],
        time_base=Fraction(1, 24000),
        encoder="ffv1" if suffix == "mkv" else "libx264",
    )
    with pytest.raises(VideoError, match="variable frame rate.*resample_fps") as caught:
        open_reader(path)
    assert "\n" not in str(caught.value)
    with open_reader(path, resample_fps=24) as reader:
        assert reader.format.fps == 24
        count = reader.frame_count
        got = levels(reader)
    assert len(got) == count
    #       0    1    2    3    4    5    6    7    8    9   10   11   12   13
    wanted = [100, 101, 102, 102, 103, 103, 104, 105, 105, 105, 106, 106, 106, 107]
    assert np.abs(np.array(got[:14]) - wanted).max() <= (0 if suffix == "mkv" else 1)
    with open_reader(path, resample_fps=24, frames=5) as reader:
        assert reader.frame_count == 5 and len(list(reader)) == 5


def test_a_file_cut_off_between_b_frames(tmp_path, make_video):
    whole = make_video(tmp_path / "clip.mkv", range(40, 140), encoder="libx264")
    data = whole.read_bytes()
    path = tmp_path / "cut.mkv"
    said = set()
    for share in range(40, 60, 2):
        path.write_bytes(data[: len(data) * share // 100])
        try:
            with open_reader(path) as reader:
                assert reader.format.fps == 24
        except VideoError as error:
            found = re.search("cut off: give frames=([0-9]+)", str(error))
            with open_reader(path, frames=int(found[1])) as reader:
                assert len(list(reader)) == reader.frame_count == int(found[1])
            said.add(found[1])
    assert said


def test_a_packet_that_is_not_whole_is_warned_of(tmp_path, make_video):
    """An MP4 with its index in front opens however much of it is there."""
    plain = make_video(tmp_path / "plain.mp4", range(40, 60), encoder="libx264")
    whole, path = tmp_path / "whole.mp4", tmp_path / "cut.mp4"
    options = ["-v", "error", "-i", str(plain), "-c", "copy", "-movflags", "+faststart", str(whole)]
    subprocess.run([find_ffmpeg(), *options], check=True)
    path.write_bytes(whole.read_bytes()[:-5])
    with pytest.warns(VideoWarning, match="cut.mp4 is damaged or cut off"):
        open_reader(path).close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_reader(whole).close()
        open_reader(path, frames=2).close()  # the damage is behind them


def test_the_wanted_frames_decide_whether_the_rate_varies(tmp_path, make_video):
    """A clip whose rate changes after frame 100 is constant for who wants 20."""
    places = [*range(100), *range(100, 160, 2)]
    path = make_video(tmp_path / "clip.mkv", [50] * len(places), pts=places)
    with open_reader(path, frames=20) as reader:
        assert reader.format.fps == 24 and len(list(reader)) == 20
    with pytest.raises(VideoError, match="variable"):
        open_reader(path)


def test_one_frame_clip(tmp_path, make_video):
    path = make_video(tmp_path / "clip.mkv", [99])
    with open_reader(path) as reader:
        assert reader.frame_count == 1 and reader.format.fps == 24
        assert levels(reader) == [99]


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3), (270, 3)])
def test_rotation_is_applied(tmp_path, rotation, turns):
    import av

    picture = np.arange(48 * 64, dtype=np.int64).reshape(48, 64) // 13 % 256
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.set_display_rotation(rotation)
        frame = av.VideoFrame(64, 48, "yuv420p")
        np.frombuffer(frame.planes[0], np.uint8).reshape(48, -1)[:, :64] = picture
        for plane in frame.planes[1:]:
            np.frombuffer(plane, np.uint8)[:] = 128
        frame.pts = 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with open_reader(path) as reader:
        frame = next(reader)
        assert frame[0].shape == (reader.format.height, reader.format.width)
    with av.open(str(path)) as container:
        said = next(container.decode(video=0)).rotation
    assert (round(said / 90) % 4) == turns
    assert np.array_equal(frame[0], np.rot90(picture, turns))  # counterclockwise


def ffmpeg(*words):
    """Run the FFmpeg program."""
    command = [find_ffmpeg(), "-v", "error", *map(str, words)]
    subprocess.run(command, check=True)


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
@pytest.mark.parametrize("flips", [(), ("h",), ("v",), ("h", "v")], ids="".join)
def test_poses_are_those_of_the_ffmpeg_program(tmp_path, random_frames, same_frames, turn, flips):
    stored, marked, shown = (tmp_path / name for name in ("a.mp4", "b.mp4", "c.y4m"))
    format = VideoFormat(64, 48, 25)
    with open_writer(stored, format) as writer:
        writer.write(random_frames(format, 1)[0])
    said = ["-display_rotation", turn, *(f"-display_{flip}flip" for flip in flips)]
    ffmpeg(*said, "-i", stored, "-c", "copy", marked)
    ffmpeg("-i", marked, shown)
    with open_reader(marked) as ours, open_reader(shown) as theirs:
        assert same_frames(list(ours), list(theirs))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["-vf", "setfield=tff", "-flags", "+ildct+ilme"], "interlaced"),
        (["-vf", "setsar=16/11"], "pixels of 16:11"),
        (["-vf", "setsar=1"], None),
    ],
)
@pytest.mark.parametrize("name", ["b.mp4", "b.y4m"])
def test_what_is_not_heeded_is_told(tmp_path, make_video, name, options, says):
    path = make_video(tmp_path / "a.mkv", [50, 60])
    ffmpeg("-i", path, *options, tmp_path / name)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with open_reader(tmp_path / name) as reader:
            assert len(list(reader)) == 2
    told = [str(warning.message) for warning in caught if warning.category is VideoWarning]
    assert [says in line and name in line for line in told] == ([True] if says else [])


def test_odd_rotation_is_refused(tmp_path, make_video):
    path = make_video(tmp_path / "clip.mov", [50], encoder="libx264", rotation=30)
    with pytest.raises(VideoError, match="quarter turns"):
        open_reader(path)


@pytest.mark.parametrize(
    ("pix_fmt", "encoder", "wanted"),
    [
        ("yuv422p", "ffv1", "4:4:4 8 bit"),
        ("yuv440p", "ffv1", "4:4:4 8 bit"),
        ("yuv411p", "ffv1", "4:4:4 8 bit"),
        ("yuva420p", "ffv1", "4:2:0 8 bit"),
        ("yuv422p10le", "ffv1", "4:4:4 10 bit"),
        ("yuv420p12le", "ffv1", "4:2:0 10 bit"),
        ("yuv444p16le", "ffv1", "4:4:4 10 bit"),
        ("gray", "ffv1", "4:2:0 8 bit"),
        ("gray10le", "ffv1", "4:2:0 10 bit"),
        ("yuvj422p", "mjpeg", "4:4:4 8 bit"),
        ("yuvj420p", "mjpeg", "4:2:0 8 bit"),
    ],
)
def test_other_pixel_formats_keep_their_luma(tmp_path, make_video, pix_fmt, encoder, wanted):
    depth = 16 if "16" in pix_fmt else 12 if "12" in pix_fmt else 10 if "10" in pix_fmt else 8
    path = make_video(
        tmp_path / "clip.mkv",
        [60 << (depth - 8), 180 << (depth - 8)],
        encoder=encoder,
        pix_fmt=pix_fmt,
        dtype=np.uint8 if depth == 8 else np.uint16,
    )
    with open_reader(path) as reader:
        assert wanted in str(reader.format)
        full = pix_fmt.startswith(("yuvj", "gray"))
        assert reader.format.range == ("full" if full else "limited")
        scale = 1 if depth == 8 else 4
        assert np.abs(np.array(levels(reader)) - [60 * scale, 180 * scale]).max() <= scale - 1 + (
            encoder == "mjpeg"
        )


def test_grey_has_neutral_chroma(tmp_path, make_video):
    path = make_video(tmp_path / "clip.mkv", [77], pix_fmt="gray10le", dtype=np.uint16)
    with open_reader(path) as reader:
        y, u, v = next(reader)
    assert (y == 77).all() and (u == 512).all() and (v == 512).all()


@pytest.mark.parametrize(
    ("size", "code", "matrix"),
    [
        ((64, 48), 1, "bt709"),
        ((64, 48), 5, "bt601"),
        ((64, 48), 6, "bt601"),
        ((64, 48), 4, "bt601"),
        ((64, 48), 2, "bt601"),
        ((720, 576), 2, "bt601"),
        ((1280, 64), 2, "bt709"),
        ((64, 600), 2, "bt709"),
    ],
)
def test_matrix_by_tag_or_by_size(tmp_path, make_video, size, code, matrix):
    path = make_video(
        tmp_path / "clip.mkv", [50], encoder="libx264", size=size, tags=[("colorspace", code)]
    )
    with open_reader(path) as reader:
        assert reader.format.matrix == matrix
    with open_reader(path, matrix="bt709", range="full") as reader:
        assert (reader.format.matrix, reader.format.range) == ("bt709", "full")


@pytest.mark.parametrize(("code", "range"), [(1, "limited"), (2, "full"), (0, "limited")])
def test_range_by_tag(tmp_path, make_video, code, range):
    path = make_video(tmp_path / "c.mkv", [50], encoder="libx264", tags=[("color_range", code)])
    with open_reader(path) as reader:
        assert reader.format.range == range


def test_bt2020_is_refused_unless_overridden(tmp_path, make_video):
    path = make_video(tmp_path / "clip.mkv", [50], encoder="libx264", tags=[("colorspace", 9)])
    with pytest.raises(VideoError, match="BT.2020.*matrix=bt709"):
        open_reader(path)
    with open_reader(path, matrix="bt709") as reader:
        assert reader.format.matrix == "bt709" and len(list(reader)) == 1


def test_change_of_size_on_the_way(tmp_path, make_video):
    """Two elementary streams of different sizes, one after the other."""
    first = make_video(tmp_path / "a.264", [50, 51], encoder="libx264", muxer="h264")
    second = make_video(tmp_path / "b.264", [52], encoder="libx264", muxer="h264", size=(32, 32))
    path = tmp_path / "both.264"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    with open_reader(path) as reader, pytest.raises(VideoError, match="changes its size"):
        list(reader)


def test_colours_from_the_ffmpeg_program_arrive(tmp_path):
    """A red RGB picture, converted to tagged BT.601 by the program, is red again here."""
    from codec.video.colour import frame_to_rgb

    path = tmp_path / "red.mkv"
    ffmpeg(
        "-f", "lavfi", "-i", "color=c=red:s=64x48:r=24:d=0.1",
        "-vf", "scale=out_color_matrix=bt601:out_range=limited,format=yuv444p",
        "-colorspace", "smpte170m", "-color_range", "tv", "-c:v", "ffv1", path,
    )  # fmt: skip
    with open_reader(path) as reader:
        assert reader.format.matrix == "bt601"
        rgb = frame_to_rgb(next(reader), reader.format)
    red, green, blue = rgb[0].mean((1, 2)).tolist()
    assert red > 0.98 and abs(green) < 0.02 and abs(blue) < 0.02
