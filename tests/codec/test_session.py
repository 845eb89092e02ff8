"""Whole videos: encoded here, decoded in other processes and on other arithmetic."""

import os
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest

import codec as api
from codec.bitstream.container import ContainerReader
from codec.errors import BitstreamError, ConfigError, LgmcError, ModelError
from codec.models import export, load
from codec.session import account, decode, decode_to_file, encode
from codec.video import VideoFormat, open_reader, open_writer

from .conftest import debug_config, loud_codec


@pytest.fixture(scope="module", params=["local", "coder", "all"])
def model_file(tmp_path_factory, request):
    codec = loud_codec(debug_config(request.param))
    path = tmp_path_factory.mktemp("model") / "debug.safetensors"
    export(codec, path, {"about": "random weights"})
    return path


@pytest.fixture(scope="module")
def model(model_file):
    return load(model_file)


def write_clip(path, form: VideoFormat, frames: int = 4) -> None:
    random = np.random.default_rng(5)
    low, high = (16, 235) if form.bit_depth == 8 else (64, 940)
    canvas = random.integers(low, high, (3, form.height // 8 + 8, form.width // 8 + 8))
    canvas = canvas.repeat(8, 1).repeat(8, 2).astype(form.dtype)
    with open_writer(path, form) as writer:
        for t in range(frames):
            planes = tuple(
                np.ascontiguousarray(plane[t : t + h, t : t + w])
                for plane, (h, w) in zip(canvas, form.plane_shapes(), strict=True)
            )
            writer.write(planes)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.y4m"
    write_clip(path, VideoFormat(70, 50, Fraction(30000, 1001)), frames=5)
    return path


@pytest.fixture(scope="module")
def stream(tmp_path_factory, clip, model):
    path = tmp_path_factory.mktemp("stream") / "clip.lgmc"
    recon = path.with_name("recon.y4m")
    encode(clip, path, model=model, quality=40, intra_period=3, recon=recon)
    return path


DECODE = "import sys; from lgmc.main import main; sys.exit(main(sys.argv[1:]))"


def decode_elsewhere(stream, target, model_file, *words, **environment):
    command = [sys.executable, "-c", DECODE, "decode", str(stream), str(target)]
    return subprocess.run(
        [*command, "--model", str(model_file), *words],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_new_process_gives_the_recons_bytes(stream, model_file, tmp_path):
    done = decode_elsewhere(stream, tmp_path / "out.y4m", model_file, "--verify")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.y4m").read_bytes() == stream.with_name("recon.y4m").read_bytes()


@pytest.mark.parametrize("threads", ["1", "2"])
@pytest.mark.parametrize(
    "arithmetic",
    [
        {},
        {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41"},
        {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
    ],
    ids=["own", "sse41", "avx2"],
)
def test_other_arithmetic_never_loses_the_stream(stream, model_file, tmp_path, threads, arithmetic):
    target = tmp_path / "out.y4m"
    environment = {**arithmetic, "OMP_NUM_THREADS": threads}
    done = decode_elsewhere(stream, target, model_file, "--threads", threads, **environment)
    assert done.returncode == 0, done.stderr
    with open_reader(target) as ours, open_reader(stream.with_name("recon.y4m")) as theirs:
        for a, b in zip(ours, theirs, strict=True):
            for mine, other in zip(a, b, strict=True):
                difference = mine.astype(int) - other.astype(int)
                assert np.abs(difference).max() <= 2
                assert (difference != 0).mean() < 0.05


FORMATS = [
    VideoFormat(33, 17, 25, chroma="420"),
    VideoFormat(32, 48, 25, chroma="420", bit_depth=10, matrix="bt601"),
    VideoFormat(1, 1, 1, chroma="444"),
    VideoFormat(40, 24, Fraction(24000, 1001), chroma="444", bit_depth=10, range="full"),
    VideoFormat(64, 64, 60, chroma="444", matrix="bt601", range="full"),
]


@pytest.mark.parametrize("form", FORMATS, ids=str)
def test_every_format_goes_through(form, model, tmp_path):
    write_clip(tmp_path / "in.y4m", form, frames=2)
    encode(
        tmp_path / "in.y4m",
        tmp_path / "s.lgmc",
        model=model,
        recon=tmp_path / "recon.y4m",
        matrix=form.matrix,
        range=form.range,
    )
    frames = decode(tmp_path / "s.lgmc", model=model, verify=True)
    assert frames.format == form
    decode_to_file(tmp_path / "s.lgmc", tmp_path / "out.y4m", model=model)
    assert (tmp_path / "out.y4m").read_bytes() == (tmp_path / "recon.y4m").read_bytes()
    assert len(list(frames)) == 2


def test_arrays_in_frames_out(model, tmp_path):
    arrays = [np.full((3, 20, 30), 40 * t, np.uint8) for t in range(3)]
    report = api.encode(iter(arrays), tmp_path / "a.lgmc", model=model, fps=50)
    assert [f["type"] for f in report.frames] == ["I", "P", "P"]
    frames = api.decode(tmp_path / "a.lgmc", model=model)
    assert frames.format.chroma == "rgb" and frames.format.fps == 50
    shapes = [[plane.shape for plane in frame] for frame in frames]
    assert shapes == [[(20, 30)] * 3] * 3


def test_report_and_container_agree(stream, clip, model, tmp_path):
    report = encode(clip, tmp_path / "r.lgmc", model=model, quality=40, intra_period=3, frames=4)
    assert report.bytes == (tmp_path / "r.lgmc").stat().st_size
    assert [f["type"] for f in report.frames] == ["I", "P", "P", "I"]
    with open(tmp_path / "r.lgmc", "rb") as file:
        reader = ContainerReader(file)
        placed = list(reader.placed())
        assert reader.header.frame_count == 4
        assert reader.header.weights_digest == model.digest
    sizes = [p.total_bytes for packet, p in placed if packet.type.is_frame]
    assert sizes == [f["bytes"] for f in report.frames]


def test_parts_add_up_to_the_streams(stream, model):
    with open(stream, "rb") as file:
        payloads = [packet.payload for packet in ContainerReader(file)]
    for payload, parts in zip(payloads, account(stream, model=model), strict=True):
        assert 0 <= 8 * len(payload) - sum(parts.values()) <= 8 * 12


def test_cut_anywhere_decodes_the_whole_frames_before(stream, model, tmp_path):
    data = stream.read_bytes()
    with open(stream, "rb") as file:
        ends = [p.end for packet, p in ContainerReader(file).placed() if packet.type.is_frame]
    whole = list(decode(stream, model=model))
    for cut in (ends[0], ends[1] - 1, ends[1], ends[2] + 5, len(data) - 3):
        path = tmp_path / f"cut{cut}.lgmc"
        path.write_bytes(data[:cut])
        expected = sum(end <= cut for end in ends)
        frames = decode(path, model=model, partial=True)
        got = list(frames)
        assert len(got) == expected and frames.damage is not None
        for ours, theirs in zip(got, whole, strict=False):
            assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True))
        with pytest.raises(BitstreamError):
            list(decode(path, model=model))


def test_another_models_stream_is_refused(stream, tmp_path):
    export(loud_codec(debug_config(), seed=9), tmp_path / "other.safetensors", {})
    with pytest.raises(ModelError, match="other weights"):
        decode(stream, model=tmp_path / "other.safetensors")
    with pytest.raises(ModelError, match="--model"):
        decode(stream)


def test_verify_finds_a_changed_picture(stream, model, monkeypatch):
    monkeypatch.setattr("codec.session.frame_digest", lambda planes: bytes(8))
    with pytest.raises(BitstreamError, match="not bit for bit"):
        list(decode(stream, model=model, verify=True))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"quality": 64}, "quality"),
        ({"quality": 3.5}, "quality"),
        ({"intra_period": -1}, "intra period"),
        ({"model": "nothing"}, "no model 'nothing'"),
    ],
)
def test_wrong_arguments(clip, model, tmp_path, options, says):
    with pytest.raises(LgmcError, match=says):
        encode(clip, tmp_path / "x.lgmc", **{"model": model, **options})
    assert list(tmp_path.iterdir()) == []


def test_no_frames_and_wrong_frames(model, tmp_path):
    with pytest.raises(ConfigError, match="no frames"):
        encode(iter([]), tmp_path / "x.lgmc", model=model)
    with pytest.raises(ConfigError, match="uint8"):
        encode(iter([np.zeros((3, 4, 4))]), tmp_path / "x.lgmc", model=model)
    mixed = [np.zeros((3, 4, 4), np.uint8), np.zeros((3, 4, 5), np.uint8)]
    with pytest.raises(LgmcError):
        encode(iter(mixed), tmp_path / "x.lgmc", model=model)
    assert list(tmp_path.iterdir()) == []


def test_input_is_not_overwritten(clip, model):
    before = clip.read_bytes()
    with pytest.raises(ConfigError, match="the input itself"):
        encode(clip, clip, model=model)
    with pytest.raises(ConfigError, match="the input itself: give another name for the pictures"):
        encode(clip, clip.with_suffix(".lgmc"), model=model, recon=clip)
    assert not clip.with_suffix(".lgmc").exists()
    assert clip.read_bytes() == before
