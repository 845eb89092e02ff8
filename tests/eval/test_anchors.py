"""The anchors with the real encoders, on clips of a few small frames."""

import re
import subprocess
from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest

from codec.errors import ConfigError, VideoError
from codec.video.format import VideoFormat
from codec.video.synthetic import write_synthetic
from eval.anchors import ANCHORS, Anchor, anchor_names, coded_format
from eval.anchors.pictures import read_pictures, shown_frames
from eval.anchors.pixels import as_coded, from_coded
from eval.metrics import average, measure
from eval.sequences import find_sequences

FAST = ("x264-medium", "x265-medium")


def _sequence(folder, width=64, height=48, frames=5, suffix=".y4m", **fields):
    write_synthetic("pan", folder / f"clip{suffix}", width, height, frames, **fields)
    return find_sequences(folder / f"clip{suffix}")[0]


def _coded(anchor, sequence, qp, folder):
    """(Encoded, file, mean metrics) of one point."""
    target = folder / f"{anchor.name}-{qp}{anchor.extension}"
    encoded = anchor.encode(sequence, qp, target)
    with sequence.open() as originals:
        rows = measure(originals, anchor.decode(target, sequence), sequence.format)
    return encoded, target, average(rows)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("x264", ["x264-medium", "x264-veryslow"]),
        ("x265-veryslow, x265", ["x265-veryslow", "x265-medium"]),
        ("all", list(ANCHORS)),
        ("vvenc,hm-ra", ["vvenc-ld", "vvenc-ra", "hm-ra"]),
        ("ra", ["x264-ra", "x265-ra", "svtav1-ra", "libaom-ra", "vvenc-ra"]),
        ("none", []),
    ],
)
def test_names(text, names):
    assert anchor_names(text) == names


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no anchor 'vp8': choose from x264, x265"):
        anchor_names("x264,vp8")


def test_the_papers_arguments_word_for_word(tmp_path):
    video = VideoFormat(width=416, height=240, fps=Fraction(30000, 1001))
    words = Anchor("x265-veryslow", 32).encode_arguments(video, 27, tmp_path / "o.265")
    line = " ".join(words)
    assert "-f rawvideo -framerate 30000/1001 -pix_fmt yuv420p -s 416x240 -i pipe:0" in line
    assert "-c:v libx265 -preset veryslow -tune zerolatency" in line
    assert "-x265-params qp=27:keyint=32:min-keyint=32:scenecut=0" in line
    words = Anchor("x264-medium", 8).encode_arguments(video, 22, tmp_path / "o.264")
    line = " ".join(words)
    assert "-c:v libx264 -preset medium -qp 22 -tune zerolatency" in line
    assert "-x264-params keyint=8:min-keyint=8:scenecut=0:threads=1" in line
    assert "crf" not in line


@pytest.mark.parametrize("name", ANCHORS)
def test_every_anchor_codes_every_frame_with_intra_frames_at_the_period(tmp_path, name):
    sequence = _sequence(tmp_path, frames=9)
    encoded, target, mean = _coded(Anchor(name, 4), sequence, 30, tmp_path)
    assert encoded.frame_types == list("IPPPIPPPI")
    assert 0 < sum(encoded.frame_bytes) <= target.stat().st_size
    assert encoded.arguments[0] == "ffmpeg"
    assert not any(str(tmp_path) in word for word in encoded.arguments)
    assert mean["psnr_y"] > 28
    assert encoded.peak_memory_mib is None or encoded.peak_memory_mib > 0
    assert _decoded_key_frames(Anchor(name), target) == [0, 4, 8]
    assert read_pictures(target).reordered == (not ANCHORS[name].low_delay)
    if target.suffix == ".266":  # no access unit delimiters (type 20), which hold nothing
        units = target.read_bytes().split(b"\0\0\1")[1:]
        assert 20 not in [unit[1] >> 3 for unit in units]


def _decoded_key_frames(anchor, path):
    """What FFmpeg's own decoder says, in the order of display."""
    container = anchor.kind.container
    words = ["-f", container, "-i", str(path), "-vf", "showinfo", "-f", "null", "-"]
    done = subprocess.run([anchor.ffmpeg, "-hide_banner", *words], capture_output=True, text=True)
    keys = re.findall(r"showinfo.* iskey:(\d)", done.stderr)
    return [index for index, key in enumerate(keys) if key == "1"]


@pytest.mark.parametrize("name", ["x265-ra", "svtav1-ld", "libaom-ld", "libaom-ra", "vvenc-ra"])
def test_bits_do_not_depend_on_the_frame_rate(tmp_path, name):
    """What sets a fixed qp apart from a rate factor that counts seconds."""
    slow = _sequence(tmp_path, frames=6, fps=15)
    _, first, _ = _coded(Anchor(name), slow, 34, tmp_path)
    pictures = read_pictures(first).bytes
    _, second, _ = _coded(Anchor(name), _sequence(tmp_path, frames=6, fps=120), 34, tmp_path)
    # parameter sets may spell out the rate and the level
    assert read_pictures(second).bytes[1:] == pictures[1:]


@pytest.mark.parametrize("name", ["svtav1-ld", "svtav1-ra", "libaom-ra", "vvenc-ld", "vvenc-ra"])
def test_period_zero_and_odd_sizes_in_the_encoders_of_today(tmp_path, name):
    sequence = _sequence(tmp_path, width=67, height=65, frames=3)
    encoded, target, mean = _coded(Anchor(name, 0), sequence, 16, tmp_path)
    assert encoded.frame_types == ["I", "P", "P"]
    assert mean["psnr_y"] > 40
    for frame in Anchor(name).decode(target, sequence):
        sequence.format.check_frame(frame)


def test_av1_of_444_and_a_refusal_where_an_encoder_has_only_420(tmp_path):
    sequence = _sequence(tmp_path, frames=2, chroma="444", bit_depth=10)
    _, _, mean = _coded(Anchor("libaom-ld"), sequence, 10, tmp_path)
    assert mean["psnr_u"] > 42
    for name in ("svtav1-ld", "vvenc-ra"):
        with pytest.raises(ConfigError, match=f"{name} codes 4:2:0 only .* 4:4:4 10 bit"):
            Anchor(name).encode(sequence, 30, tmp_path / "o")


def test_8_bit_through_a_10_bit_encoder_is_a_multiplication_and_a_rounding():
    video = VideoFormat(width=3, height=1, fps=25)
    coded = coded_format(video, 10)
    assert (coded.bit_depth, coded.width, coded.height) == (10, 4, 2)
    chroma = np.full((1, 2), 128, np.uint8)
    frame = (np.array([[0, 7, 255]], np.uint8), chroma, chroma)
    (given,) = as_coded([frame], video, coded)
    assert given[0].tolist() == [[0, 28, 1020, 1020], [0, 28, 1020, 1020]]
    assert all(
        np.array_equal(a, b) for a, b in zip(from_coded(given, video, coded), frame, strict=True)
    )
    given[0][0, :3] = (1, 30, 1023)  # 0.25, 7.5, 255.75
    assert from_coded(given, video, coded)[0].tolist() == [[0, 8, 255]]


def test_frame_headers_of_av1_by_hand():
    delimiter = bytes([0b00010010, 0])
    shown = bytes([0b00110010, 2, 0b00110000, 0xFF])  # OBU_FRAME of 2 bytes, inter, show_frame
    hidden = bytes([0b00110110, 0, 0x81, 1, 0b00100000]) + bytes(128)  # extension, size 129
    existing = bytes([0b00011000, 0b10010000])  # OBU_FRAME_HEADER to the end, show_existing_frame
    assert list(shown_frames(delimiter + shown)) == [True]
    assert list(shown_frames(delimiter + hidden + shown)) == [False, True]
    assert list(shown_frames(delimiter + existing)) == [False]


def test_an_encoder_that_this_ffmpeg_lacks_is_one_sentence(tmp_path):
    stub = tmp_path / "ffmpeg"
    stub.write_text('#!/bin/sh\necho "ffmpeg version n1"\necho " V....D libx264 H.264"\n')
    stub.chmod(0o755)
    sequence = _sequence(tmp_path)
    with pytest.raises(VideoError, match=r"\(n1\) has no encoder libvvenc: leave vvenc-ld out"):
        Anchor("vvenc-ld", ffmpeg=stub).encode(sequence, 30, tmp_path / "o.266")


@pytest.mark.parametrize("name", FAST)
def test_a_higher_qp_is_smaller_and_worse(tmp_path, name):
    sequence = _sequence(tmp_path)
    points = [_coded(Anchor(name), sequence, qp, tmp_path) for qp in (18, 30, 42)]
    sizes = [target.stat().st_size for _, target, _ in points]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) == 3
    psnrs = [mean["psnr_y"] for _, _, mean in points]
    assert psnrs == sorted(psnrs, reverse=True)


@pytest.mark.parametrize("name", FAST)
def test_intra_period_zero_is_one_intra_frame(tmp_path, name):
    encoded, _, _ = _coded(Anchor(name, 0), _sequence(tmp_path), 34, tmp_path)
    assert encoded.frame_types == ["I", "P", "P", "P", "P"]


@pytest.mark.parametrize("name", FAST)
@pytest.mark.parametrize(
    "fields",
    [
        {"chroma": "420", "bit_depth": 10},
        {"chroma": "444"},
        {"chroma": "444", "bit_depth": 10, "matrix": "bt601", "range": "full"},
    ],
)
def test_pixel_formats_come_back_as_they_went_in(tmp_path, name, fields):
    sequence = _sequence(tmp_path, frames=2, **fields)
    _, target, mean = _coded(Anchor(name), sequence, 12, tmp_path)
    for frame in Anchor(name).decode(target, sequence):
        sequence.format.check_frame(frame)
    assert mean["psnr_y"] > 42


@pytest.mark.parametrize("name", FAST)
def test_odd_sizes_are_padded_and_cropped(tmp_path, name):
    sequence = _sequence(tmp_path, width=65, height=47, frames=2)
    assert coded_format(sequence.format).width == 66
    _, target, mean = _coded(Anchor(name), sequence, 12, tmp_path)
    frames = list(Anchor(name).decode(target, sequence))
    assert [frame[0].shape for frame in frames] == [(47, 65), (47, 65)]
    assert mean["psnr_y"] > 42


def test_rgb_goes_through_444_and_is_measured_as_rgb(tmp_path):
    write_synthetic("pan", tmp_path / "frames/", 64, 48, 2, chroma="rgb")
    sequence = find_sequences(tmp_path / "frames")[0]
    assert sequence.format.chroma == "rgb"
    _, target, mean = _coded(Anchor("x265-medium"), sequence, 10, tmp_path)
    for frame in Anchor("x265-medium").decode(target, sequence):
        sequence.format.check_frame(frame)
    assert mean["psnr_rgb"] > 40
    assert mean["psnr_y"] is None


def test_the_messages_of_the_encoders_are_not_in_the_file(tmp_path):
    sequence = _sequence(tmp_path, frames=1)
    for name, word in (("x264-medium", b"x264 - core"), ("x265-medium", b"x265 (build")):
        _, target, _ = _coded(Anchor(name), sequence, 30, tmp_path)
        assert word not in target.read_bytes()


def test_x265_with_one_worker_gives_the_bits_of_many(tmp_path, monkeypatch):
    """pools=1 only says how many threads share the work: WPP stays on and the bits stay."""
    sequence = _sequence(tmp_path, width=200, height=136, frames=3)
    anchor = Anchor("x265-medium")
    _, one, _ = _coded(anchor, sequence, 32, tmp_path)
    kind = type(anchor.kind)
    plain = kind.encoder_options

    def without_pools(self, qp, intra_period):
        options = plain(self, qp, intra_period)
        options["x265-params"] = options["x265-params"].replace("pools=1:", "pools=4:")
        return options

    alone = one.read_bytes()
    monkeypatch.setattr(kind, "encoder_options", without_pools)
    _, many, _ = _coded(anchor, sequence, 32, tmp_path)
    assert many.read_bytes() == alone


@pytest.mark.parametrize("qp", [-1, 52])
def test_a_qp_out_of_range_is_refused(tmp_path, qp):
    with pytest.raises(ConfigError, match="a qp of x264-medium is 0..51"):
        Anchor("x264-medium").encode(_sequence(tmp_path), qp, tmp_path / "o.264")


def test_svt_av1_has_no_qp_0_which_ffmpeg_takes_for_none_given(tmp_path):
    sequence = _sequence(tmp_path)
    with pytest.raises(ConfigError, match="a qp of svtav1-ld is 1..63, not 0"):
        Anchor("svtav1-ld").encode(sequence, 0, tmp_path / "o.obu")
    sizes = [_coded(Anchor("svtav1-ld"), sequence, qp, tmp_path)[1].stat().st_size for qp in (1, 9)]
    assert sizes[0] > sizes[1]


@pytest.mark.parametrize("name", ["x264-medium", "x265-medium"])
def test_a_qp_has_one_step_at_8_and_at_10_bit(tmp_path, name):
    """A step of 10 bit is a fourth of one of 8 bit in light, so the same step is the same PSNR."""
    figures = []
    for depth in (8, 10):
        sequence = _sequence(tmp_path, width=128, height=96, bit_depth=depth)
        encoded, _, mean = _coded(Anchor(name), sequence, 32, tmp_path)
        figures.append(mean["psnr_y"])
    assert figures[1] == pytest.approx(figures[0], abs=1.0)
    if name == "x264-medium":
        assert "44" in encoded.arguments and "32" not in encoded.arguments


def test_what_the_encoder_refuses_is_one_line_with_its_reason(tmp_path):
    sequence = _sequence(tmp_path)
    with pytest.raises(VideoError, match="x264-medium at qp 30 failed: .*no-such-folder") as caught:
        Anchor("x264-medium").encode(sequence, 30, tmp_path / "no-such-folder" / "o.264")
    assert "\n" not in str(caught.value)


def test_a_missing_program_is_said(tmp_path):
    sequence = _sequence(tmp_path)
    with pytest.raises(VideoError, match=r"does not start: install FFmpeg or set \$FFMPEG"):
        Anchor("x264-medium", ffmpeg=tmp_path / "none").encode(sequence, 30, tmp_path / "o.264")


def test_a_damaged_stream_is_not_decoded_to_wrong_frames_in_silence(tmp_path):
    sequence = _sequence(tmp_path)
    anchor = Anchor("x264-medium")
    _, target, _ = _coded(anchor, sequence, 20, tmp_path)
    target.write_bytes(target.read_bytes()[:200])
    with pytest.raises(VideoError), sequence.open() as originals:
        measure(originals, anchor.decode(target, sequence), sequence.format)


def test_a_decoder_left_half_way_leaves_no_process(tmp_path):
    sequence = _sequence(tmp_path)
    anchor = Anchor("x264-medium")
    _, target, _ = _coded(anchor, sequence, 20, tmp_path)
    frames = anchor.decode(target, sequence)
    first = next(frames)
    frames.close()
    assert next(frames, None) is None
    assert first[0].dtype == np.uint8


def test_abort_ends_what_runs_and_what_would_start(tmp_path, monkeypatch):
    sequence = _sequence(tmp_path)
    anchor = Anchor("x264-medium")
    with sequence.open() as reader:
        frame = next(iter(reader))

    @contextmanager
    def endless(self):
        def frames():
            yield frame
            anchor.abort()
            while True:
                yield frame

        yield frames()

    monkeypatch.setattr(type(sequence), "open", endless)
    with pytest.raises(VideoError, match="failed"):
        anchor.encode(sequence, 30, tmp_path / "o.264")
    with pytest.raises(VideoError, match="was stopped"):
        anchor.encode(sequence, 30, tmp_path / "o.264")


def test_rgb_is_coded_as_444_of_bt709():
    rgb = VideoFormat(width=15, height=9, fps=Fraction(25), chroma="rgb")
    for depth in (None, 10):
        coded = coded_format(rgb, depth)
        meaning = (coded.chroma, coded.matrix, coded.range, coded.bit_depth)
        assert meaning == ("444", "bt709", "limited", depth or 8)
        assert (coded.width, coded.height, coded.fps) == (15, 9, 25)
