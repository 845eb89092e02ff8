"""Encoding under rate control: real streams, replayed and decoded."""

import numpy as np
import pytest

from codec.bitstream.container import ContainerReader
from codec.bitstream.packets import PacketType
from codec.errors import ConfigError
from codec.models import load
from codec.rate import RateController, RateTarget
from codec.session import decode, encode
from codec.video import VideoFormat, open_reader, open_writer
from codec.video.colour import frame_to_rgb
from codec.video.synthetic import write_synthetic
from codec.video_codec import FrameCoder

FRAMES, PERIOD, FPS = 18, 6, 24


@pytest.fixture(scope="module")
def model():
    """The one that ships: a debug model's rate hardly depends on its quality."""
    return load("lite")


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "pan.y4m"
    write_synthetic("pan", path, 96, 64, FRAMES)
    return path


@pytest.fixture(scope="module")
def rates(model, clip, tmp_path_factory):
    """Bit rates at constant quality: index -> bits a second of the file."""
    path = tmp_path_factory.mktemp("constant") / "s.lgmc"
    found = {}
    for quality in (10, 32, 50):
        report = encode(clip, path, model=model, quality=quality, intra_period=PERIOD)
        found[quality] = 8 * report.bytes * FPS / FRAMES
    assert found[10] < 0.8 * found[32] < 0.6 * found[50]
    return found


@pytest.fixture(scope="module")
def cut(tmp_path_factory):
    """A grey picture, and within an intra period the cut to a rough one that nobody expects."""
    path = tmp_path_factory.mktemp("cut") / "cut.y4m"
    random = np.random.default_rng(4)
    rough = random.integers(16, 236, (8, 12)).repeat(8, 0).repeat(8, 1)
    form = VideoFormat(96, 64, FPS)
    with open_writer(path, form) as writer:
        for number in range(FRAMES):
            luma = np.full((64, 96), 128) if number < 9 else rough
            chroma = np.full((32, 48), 128, np.uint8)
            writer.write((luma.astype(np.uint8), chroma, chroma))
    return path


def controlled(clip, target, model, rate, **options):
    return encode(clip, target, model=model, intra_period=PERIOD, rate=rate, **options)


def replayed(clip, model, qualities: list[int]) -> list[bytes]:
    """The frames' streams from a coder that was told every quality at once."""
    streams = []
    with open_reader(clip) as reader:
        coder = FrameCoder(model.codec, reader.format.height, reader.format.width)
        for number, (frame, quality) in enumerate(zip(reader, qualities, strict=True)):
            rgb = frame_to_rgb(frame, reader.format).clamp(0, 1)
            streams.append(coder.encode(rgb, number % PERIOD == 0, quality)[0])
    return streams


@pytest.mark.parametrize("two_pass", [False, True])
def test_the_rate_is_met_and_the_stream_decodes(clip, model, rates, two_pass, tmp_path):
    path, recon = tmp_path / "s.lgmc", tmp_path / "recon.y4m"
    # A short clip of few kinds of frames: between two rates, from a quality far off.
    rate = RateTarget(bitrate=(rates[10] * rates[32]) ** 0.5, two_pass=two_pass)
    report = controlled(clip, path, model, rate, recon=recon, quality=40)
    assert 8 * report.bytes * FPS / FRAMES == pytest.approx(report.outcome.bitrate)
    assert report.outcome.bitrate == pytest.approx(rate.bitrate, rel=0.05)
    assert report.outcome.misses == ()
    assert (report.outcome.peak is None) == two_pass
    with open_reader(recon) as shown:
        for ours, theirs in zip(decode(path, model=model, verify=True), shown, strict=True):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_the_control_counts_what_the_file_takes(clip, model, rates, tmp_path, monkeypatch):
    """All of it but the index, which is not known before the end."""
    made = []

    class Kept(RateController):
        def __init__(self, *arguments, **known):
            super().__init__(*arguments, **known)
            made.append((self, known))

    monkeypatch.setattr("codec.frame_encoder.RateController", Kept)
    path = tmp_path / "s.lgmc"
    controlled(clip, path, model, RateTarget(bitrate=rates[32]), frames=7)
    ((control, known),) = made
    with open(path, "rb") as file:
        placed = list(ContainerReader(file).placed())
    (index,) = (place.total_bytes for packet, place in placed if packet.type is PacketType.INDEX)
    assert control._spent == 8 * (path.stat().st_size - index)
    assert known["fixed"] == 8 * (1 + 1 + 1 + 8 + 8 + 4)  # of a frame whose stream is empty
    assert (known["pixels"], known["fps"], known["quality"]) == (96 * 64, FPS, 32)
    assert known["frames"] == 7


def test_frames_coded_again_are_those_of_who_chose_their_quality_at_once(cut, model, tmp_path):
    path = tmp_path / "s.lgmc"
    report = controlled(cut, path, model, RateTarget(max_bitrate=60e3, buffer=0.25), quality=50)
    assert report.outcome.recoded > 0 and report.outcome.peak <= 1
    with open(path, "rb") as file:
        packets = list(ContainerReader(file))
    qualities = [packet.quality for packet in packets]
    assert qualities == [frame["quality"] for frame in report.frames]
    assert [packet.payload for packet in packets] == replayed(cut, model, qualities)


def test_the_same_twice(clip, model, rates, tmp_path):
    rate = RateTarget(bitrate=rates[32], buffer=0.5)
    for name in ("a", "b"):
        controlled(clip, tmp_path / name, model, rate)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_wide_buffer_changes_not_a_byte(clip, model, rates, tmp_path):
    encode(clip, tmp_path / "free", model=model, intra_period=PERIOD)
    report = controlled(clip, tmp_path / "held", model, RateTarget(max_bitrate=100 * rates[50]))
    assert (tmp_path / "free").read_bytes() == (tmp_path / "held").read_bytes()
    assert report.outcome.peak < 0.2 and report.outcome.recoded == 0


def test_frames_of_unknown_number_and_fewer_than_are_tried(model, rates, tmp_path):
    arrays = [np.full((3, 20, 30), 40 * t, np.uint8) for t in range(2)]
    rate = RateTarget(bitrate=rates[32])
    report = controlled(iter(arrays), tmp_path / "a.lgmc", model, rate)
    assert len(report.frames) == len(list(decode(tmp_path / "a.lgmc", model=model))) == 2


def test_two_passes_count_their_progress_together(clip, model, rates, tmp_path):
    said = []
    rate = RateTarget(bitrate=rates[32], two_pass=True)
    told = lambda done, total: said.append((done, total))  # noqa: E731
    controlled(clip, tmp_path / "s.lgmc", model, rate, progress=told)
    assert said == [(done, 2 * FRAMES) for done in range(1, 2 * FRAMES + 1)]


def test_two_passes_need_a_video_that_can_be_read_twice(model, tmp_path):
    rate = RateTarget(bitrate=1e5, two_pass=True)
    with pytest.raises(ConfigError, match="read the video twice"):
        controlled(iter([np.zeros((3, 20, 30), np.uint8)]), tmp_path / "s.lgmc", model, rate)
    assert list(tmp_path.iterdir()) == []


def test_a_rate_that_cannot_be_is_told(clip, model, rates, tmp_path):
    report = controlled(clip, tmp_path / "s.lgmc", model, RateTarget(bitrate=rates[10] / 20))
    assert any("above the" in miss and "quality 0" in miss for miss in report.outcome.misses)
    assert len(list(decode(tmp_path / "s.lgmc", model=model))) == FRAMES


def test_i_frames_stand_out_only_where_others_refer_to_them(clip, model, tmp_path):
    qualities = {}
    for period in (1, 2):
        report = encode(
            clip, tmp_path / "s.lgmc", model=model, quality=10, intra_period=period, frames=4
        )
        qualities[period] = [frame["quality"] for frame in report.frames]
    assert qualities[1] == [10, 10, 10, 10]
    assert qualities[2][0] == qualities[2][2] > 10 > qualities[2][1] == qualities[2][3]
