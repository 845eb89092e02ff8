"""The anchors with the real encoders, on clips of a few small frames."""

from contextlib import contextmanager
from fractions import Fraction

import numpy as np
import pytest

from codec.errors import ConfigError, VideoError
from codec.video.format import VideoFormat
from codec.video.synthetic import write_synthetic
from eval.anchors import ANCHORS, Anchor, anchor_names, coded_format
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
    sequence = _sequence(tmp_path)
    encoded, target, mean = _coded(Anchor(name, 2), sequence, 30, tmp_path)
    assert encoded.frame_types == ["I", "P", "I", "P", "I"]
    assert 0 < sum(encoded.frame_bytes) <= target.stat().st_size
    assert encoded.arguments[0] == "ffmpeg"
    assert not any(str(tmp_path) in word for word in encoded.arguments)
    assert mean["psnr_y"] > 28


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
    with pytest.raises(ConfigError, match="a qp is 0..51"):
        Anchor("x264-medium").encode(_sequence(tmp_path), qp, tmp_path / "o.264")


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
