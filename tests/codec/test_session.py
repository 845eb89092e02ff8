"""Whole videos: encoded here, decoded in other processes and on other arithmetic."""

import os
import subprocess
import sys
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import codec as api
from codec.bitstream.container import ContainerReader
from codec.errors import BitstreamError, ConfigError, LgmcError, ModelError
from codec.models import export, load
from codec.rate import RateTarget
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


def test_frames_go_where_a_loaded_model_is(model, tmp_path, monkeypatch):
    class Seen(Exception):
        """Says the device."""

    def frame_to_rgb(frame, form, device):
        raise Seen(str(device))

    monkeypatch.setattr("codec.frame_encoder.frame_to_rgb", frame_to_rgb)
    elsewhere = replace(model, codec=deepcopy(model.codec).to("meta"))
    with pytest.raises(Seen, match="meta"):
        encode([np.zeros((3, 4, 4), np.uint8)], tmp_path / "x.lgmc", model=elsewhere)


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


def test_a_network_alone_is_no_model(clip, model, stream, tmp_path):
    for use in (
        lambda: encode(clip, tmp_path / "x.lgmc", model=model.codec),
        lambda: list(decode(stream, model=model.codec)),
    ):
        with pytest.raises(ModelError, match="a VideoCodec is no model .* what codec.load"):
            use()
    assert not (tmp_path / "x.lgmc").exists()


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
        ({"quality": 32.0}, "quality"),
        ({"quality": "hi"}, "quality"),
        ({"quality": None}, "quality"),
        ({"intra_period": -1}, "intra period"),
        ({"intra_period": 32.0}, "intra period"),
        ({"frames": 2.0}, "frames"),
        ({"size": 5, "fps": 25, "pix_fmt": "yuv420p"}, "size"),
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


@pytest.mark.parametrize(
    ("options", "says"),
    [({"frames": -1}, "frames"), ({"frames": 2.0}, "frames"), ({"matrix": "bt709"}, "matrix")],
)
def test_wrong_arguments_with_frames_from_memory(model, tmp_path, options, says):
    with pytest.raises(LgmcError, match=says):
        encode([np.zeros((3, 4, 4), np.uint8)], tmp_path / "x.lgmc", model=model, **options)
    with pytest.raises(ConfigError, match="file's name or frames"):
        encode(5, tmp_path / "x.lgmc", model=model)
    assert list(tmp_path.iterdir()) == []


def test_input_is_not_overwritten(clip, model):
    before = clip.read_bytes()
    with pytest.raises(ConfigError, match="the input itself"):
        encode(clip, clip, model=model)
    assert clip.read_bytes() == before


def test_nor_is_it_by_the_recon(clip, model, tmp_path):
    source = tmp_path / "in.y4m"
    source.write_bytes(clip.read_bytes())
    (tmp_path / "link.y4m").symlink_to(source)
    for recon in (source, tmp_path / "link.y4m"):
        with pytest.raises(ConfigError, match="the input itself.*recon"):
            encode(source, tmp_path / "x.lgmc", model=model, recon=recon)
    with pytest.raises(ConfigError, match="the stream's name too"):
        encode(source, tmp_path / "x", model=model, recon=tmp_path / "x")
    assert source.read_bytes() == clip.read_bytes()


def test_nor_are_pictures_or_a_stream(stream, model, tmp_path):
    pictures = tmp_path / "pictures"
    decode_to_file(stream, pictures, model=model)
    before = (pictures / "00000.png").read_bytes()
    with pytest.raises(ConfigError, match="the input itself"):
        encode(pictures, tmp_path / "x.lgmc", model=model, recon=pictures)
    with pytest.raises(ConfigError, match="the folder of the input"):
        encode(pictures / "00000.png", tmp_path / "x.lgmc", model=model, recon=pictures)
    assert (pictures / "00000.png").read_bytes() == before
    (tmp_path / "link.y4m").symlink_to(stream)
    with pytest.raises(ConfigError, match="the input itself"):
        decode_to_file(stream, tmp_path / "link.y4m", model=model)


def test_one_array_may_hold_frame_after_frame(model, tmp_path):
    """What waits to be coded is not the caller's array."""
    arrays = [np.full((3, 20, 30), 40 * t, np.uint8) for t in range(3)]

    def in_one():
        held = np.empty_like(arrays[0])
        for array in arrays:
            held[:] = array
            yield held

    rate = RateTarget(bitrate=100e3)
    encode(arrays, tmp_path / "a.lgmc", model=model, rate=rate, effort="0+1")
    encode(in_one(), tmp_path / "b.lgmc", model=model, rate=rate, effort="0+1")
    assert (tmp_path / "a.lgmc").read_bytes() == (tmp_path / "b.lgmc").read_bytes()


def test_a_stream_on_standard_input_leaves_it_open(stream, model, monkeypatch):
    with open(stream, "rb") as file:
        piped = SimpleNamespace(buffer=file, closed=False, isatty=lambda: False)
        monkeypatch.setattr(sys, "stdin", piped)
        assert len(list(decode("-", model=model))) == 5
        assert not file.closed
        with pytest.raises(BitstreamError, match="empty"):
            decode("-", model=model)
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(closed=False, isatty=lambda: True))
    with pytest.raises(BitstreamError, match="terminal"):
        decode("-", model=model)
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(BitstreamError, match="closed"):
        decode("-", model=model)


def test_what_the_progress_raises_is_not_the_streams_fault(clip, model, tmp_path):
    def closed(*_):
        raise BrokenPipeError(32, "Broken pipe")

    with pytest.raises(BrokenPipeError):
        encode(clip, tmp_path / "x.lgmc", model=model, progress=closed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="a device of Linux")
def test_a_full_disk_is(clip, model):
    with pytest.raises(LgmcError, match="/dev/full cannot be written"):
        encode(clip, "/dev/full", model=model)


def test_inference_mode_changes_nothing(model, model_file, tmp_path):
    arrays = [np.full((3, 16, 16), 40 * t, np.uint8) for t in range(2)]  # needs no padding
    encode(arrays, tmp_path / "a.lgmc", model=model, effort="1+1")
    with torch.inference_mode():
        encode(arrays, tmp_path / "b.lgmc", model=load(model_file), effort="1+1")
    assert (tmp_path / "a.lgmc").read_bytes() == (tmp_path / "b.lgmc").read_bytes()
