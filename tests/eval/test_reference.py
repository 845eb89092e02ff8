"""HM and VTM by a stub: what it is told, what comes of its stream, and what is missing when."""

import stat

import pytest

from codec.errors import ConfigError, VideoError
from codec.video.synthetic import write_synthetic
from eval.anchors import Anchor, ReferenceAnchor, make_anchor
from eval.metrics import average, measure
from eval.sequences import find_sequences

STUB = """#!/bin/sh
printf '%s\\n' "$@" > "$0.words"
for word in "$@"; do case "$word" in
  --InputFile=*) wc -c < "${word#*=}" > "$0.size" ;;
  --BitstreamFile=*) cp "$0.stream" "${word#*=}" ;;
esac; done
"""


@pytest.fixture
def encoder(tmp_path, monkeypatch):
    """An executable that notes its arguments and hands out the stream beside it."""
    path = tmp_path / "TAppEncoder"
    path.write_text(STUB)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    cfg = tmp_path / "cfg"
    cfg.mkdir()
    for name in ("encoder_lowdelay_main10.cfg", "encoder_randomaccess_vtm.cfg"):
        (cfg / name).write_text("")
    for program in ("HM", "VTM"):
        monkeypatch.setenv(f"{program}_ENCODER", str(path))
        monkeypatch.setenv(f"{program}_CFG", str(cfg))
    return path


def _sequence(folder, frames=5, **fields):
    write_synthetic("pan", folder / "clip.y4m", 64, 48, frames, **fields)
    return find_sequences(folder / "clip.y4m")[0]


@pytest.mark.parametrize(
    ("name", "stand_in", "cfg"),
    [
        ("hm-ld", "x265-medium", "encoder_lowdelay_main10.cfg"),
        ("vtm-ra", "vvenc-ra", "encoder_randomaccess_vtm.cfg"),
    ],
)
def test_what_it_is_told_and_what_comes_of_its_stream(tmp_path, encoder, name, stand_in, cfg):
    sequence = _sequence(tmp_path, bit_depth=10)
    Anchor(stand_in, 2).encode(sequence, 20, encoder.with_name(encoder.name + ".stream"))
    anchor = make_anchor(name, 2)
    target = tmp_path / f"o{anchor.extension}"
    encoded = anchor.encode(sequence, 27, target)
    told = encoder.with_name(encoder.name + ".words").read_text().split()
    assert told[:2] == ["-c", str(tmp_path / "cfg" / cfg)]
    assert told[-1] == f"--BitstreamFile={target}"
    assert told[-2].startswith("--InputFile=")
    assert (
        told[2:-2]
        == (
            "--QP=27 --IntraPeriod=2 --DecodingRefreshType=2 --Level=6.2 --InputBitDepth=10 "
            "--InternalBitDepth=10 --ConformanceWindowMode=1 --SEIDecodedPictureHash=0 "
            "--InputChromaFormat=420 --ChromaFormatIDC=420 --SourceWidth=64 --SourceHeight=48 "
            "--FrameRate=24 --FramesToBeEncoded=5"
        ).split()
    )
    size = int(encoder.with_name(encoder.name + ".size").read_text())
    assert size == 5 * sequence.format.frame_bytes
    assert encoded.frame_types == list("IPIPI")
    assert not any(str(tmp_path) in word for word in encoded.arguments)
    with sequence.open() as originals:
        rows = measure(originals, anchor.decode(target, sequence), sequence.format)
    assert average(rows)["psnr_y"] > 35
    identity = anchor.identity()
    assert len(identity["executable"]) == 64 and "--QP=QP" in identity["options"]


def test_rgb_and_8_bit_are_given_at_10_bit(tmp_path, encoder):
    write_synthetic("pan", tmp_path / "frames/", 64, 48, 1, chroma="rgb")
    video = find_sequences(tmp_path / "frames")[0].format
    words = make_anchor("hm-ld", 0).encode_arguments(video, 30, tmp_path, tmp_path, 1)
    assert {"--InputChromaFormat=444", "--InputBitDepth=10", "--IntraPeriod=-1"} <= set(words)


def test_a_stream_that_is_not_what_was_asked_for_is_refused(tmp_path, encoder):
    sequence = _sequence(tmp_path, bit_depth=10)
    with pytest.raises(VideoError, match="wrote no stream|failed"):
        make_anchor("hm-ld").encode(sequence, 30, tmp_path / "o.265")
    stream = encoder.with_name(encoder.name + ".stream")
    Anchor("x265-ra", 4).encode(sequence, 30, stream)
    with pytest.raises(VideoError, match="not of low delay"):
        make_anchor("hm-ld", 4).encode(sequence, 30, tmp_path / "o.265")
    with pytest.raises(VideoError, match="intra period 3"):
        make_anchor("hm-ld", 3).encode(sequence, 30, tmp_path / "o.265")


def test_what_is_missing_is_one_sentence(tmp_path, encoder, monkeypatch):
    sequence = _sequence(tmp_path, frames=1)
    with pytest.raises(VideoError, match=r"needs encoder_randomaccess_main10.cfg: set \$HM_CFG"):
        make_anchor("hm-ra").encode(sequence, 30, tmp_path / "o.265")
    monkeypatch.delenv("HM_ENCODER")
    with pytest.raises(VideoError, match=r"set \$HM_ENCODER to its executable"):
        make_anchor("hm-ld").encode(sequence, 30, tmp_path / "o.265")
    assert make_anchor("hm-ld").identity()["executable"] == "none"
    with pytest.raises(ConfigError, match="a qp is 0..51"):
        make_anchor("hm-ld").encode(sequence, 60, tmp_path / "o.265")
    with pytest.raises(ConfigError, match="no anchor"):
        ReferenceAnchor("x265-medium")
