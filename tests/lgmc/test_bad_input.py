"""Bad input to encode and decode: exit code 1, one line that says what and what to do, no rests."""

import os
from dataclasses import replace
from pathlib import Path

import pytest

from codec.bitstream import ContainerReader, SequenceHeader


@pytest.fixture
def encode_refuses(refuses, model):
    def check(source, says, *options, target="out.lgmc"):
        refuses(["encode", str(source), target, "--model", model, *options], says)

    return check


@pytest.fixture
def decode_refuses(refuses, model):
    def check(data, says, *options, target="out.y4m"):
        Path("in.lgmc").write_bytes(data)
        refuses(["decode", "in.lgmc", target, "--model", model, *options], says)

    return check


def test_encode_a_missing_file(encode_refuses):
    encode_refuses("none.mp4", "none.mp4 does not exist")


def test_encode_a_text_file(encode_refuses):
    Path("text.mp4").write_text("no video, only words\n" * 50)
    encode_refuses("text.mp4", "text.mp4")


def test_encode_an_empty_file(encode_refuses):
    Path("empty.mp4").touch()
    encode_refuses("empty.mp4", "is empty")


def test_encode_a_stream(encode_refuses, stream):
    encode_refuses(stream, "clip.lgmc")


def test_encode_a_raw_file_without_size(encode_refuses):
    Path("raw.yuv").write_bytes(bytes(64 * 48 * 3))
    encode_refuses("raw.yuv", "size")


def test_encode_a_raw_file_with_a_wrong_size(encode_refuses):
    Path("raw.yuv").write_bytes(bytes(64 * 48 * 3 // 2 * 3))
    encode_refuses("raw.yuv", "50x50", "--size", "50x50", "--fps", "25", "--pix-fmt", "yuv420p")


def test_encode_a_cut_video(encode_refuses, clip):
    Path("cut.y4m").write_bytes(Path(clip).read_bytes()[:-100])
    encode_refuses("cut.y4m", "cut.y4m")


def test_encode_to_a_folder_that_is_not_there(encode_refuses, clip):
    encode_refuses(clip, "none", target="none/out.lgmc")


def test_encode_to_a_folder(encode_refuses, clip):
    Path("out.lgmc").mkdir()
    encode_refuses(clip, "folder")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("target", ["out.lgmc", "recon.yuv"])
def test_encode_without_space(encode_refuses, clip, target):
    Path(target).symlink_to("/dev/full")
    encode_refuses(clip, "space", "--recon", "recon.yuv")


@pytest.mark.parametrize("name", ["out.mp4", "out", "/dev/null"])
def test_encode_to_a_name_of_something_else(encode_refuses, clip, name):
    encode_refuses(clip, "does not end in .lgmc", target=name)


def test_encode_keeps_the_old_stream_when_it_fails(encode_refuses):
    Path("out.lgmc").write_bytes(b"precious")
    encode_refuses("none.mp4", "does not exist")


def test_encode_with_an_unknown_model(refuses, clip):
    refuses(["encode", clip, "out.lgmc", "--model", "nonsense"], "nonsense")


def test_encode_with_a_model_that_is_none(refuses, clip):
    refuses(["encode", clip, "out.lgmc", "--model", clip], "not a model file")


def test_encode_on_a_device_that_is_not_there(encode_refuses, clip):
    encode_refuses(clip, "use --device cpu", "--device", "cuda:99")
    encode_refuses(clip, "not known", "--device", "toaster")


def test_encode_two_things_to_standard_output(encode_refuses, clip):
    encode_refuses(clip, "standard output", "--json", "--recon", "-")


def test_decode_a_missing_file(refuses):
    refuses(["decode", "none.lgmc", "out.y4m"], "none.lgmc")


def test_decode_a_text_file(decode_refuses):
    decode_refuses(b"no stream, only words\n" * 50, "in.lgmc is not a .lgmc stream")


def test_decode_an_empty_file(decode_refuses):
    decode_refuses(b"", "in.lgmc is empty")


def test_decode_a_video(refuses, clip):
    refuses(["decode", clip, "out.y4m"], "is not a .lgmc stream")


def cuts(stream):
    data = Path(stream).read_bytes()
    with open(stream, "rb") as file:
        placements = [p for _, p in ContainerReader(file).placed()]
    return data, placements


def test_decode_a_cut_stream(decode_refuses, stream):
    data, placements = cuts(stream)
    decode_refuses(data[:10], "sequence header")
    decode_refuses(data[: placements[0].end - 1], "no frame before it is whole")
    decode_refuses(data[: placements[0].end - 1], "no frame", "--partial")
    decode_refuses(data[: placements[3].end - 1], "--partial to keep the 3 whole frames")
    decode_refuses(data[:-1], "--partial to keep the 6 whole frames")


def test_decode_a_flipped_bit(decode_refuses, stream):
    data, placements = cuts(stream)
    for at in (20, placements[0].offset + 9, placements[2].end - 1):
        flipped = bytearray(data)
        flipped[at] ^= 0x10
        decode_refuses(bytes(flipped), "damaged")


def test_decode_more_than_a_stream(decode_refuses, stream):
    decode_refuses(Path(stream).read_bytes() + b"more", "after the end packet")


def forged(stream, **changes) -> bytes:
    """The stream with another header, well made."""
    data = Path(stream).read_bytes()
    with open(stream, "rb") as file:
        reader = ContainerReader(file)
    header = replace(reader.header, **changes)
    assert isinstance(header, SequenceHeader)
    return header.pack() + data[reader.header_bytes :]


def test_decode_a_stream_of_another_model(decode_refuses, refuses, stream):
    decode_refuses(forged(stream, weights_digest=bytes(16)), "model")
    Path("in.lgmc").write_bytes(forged(stream, model="unheard-of"))
    refuses(["decode", "in.lgmc", "out.y4m"], "unheard-of")


def test_decode_what_is_not_the_encoder_s_picture(decode_refuses, stream, tmp_path):
    """A wrong digest under a right checksum, as another machine's arithmetic would leave it."""
    import struct
    import zlib

    data, placements = cuts(stream)
    at = placements[1]
    packet = bytearray(data[at.offset : at.end - at.crc_bytes])
    packet[-1] ^= 1
    packet += struct.pack("<I", zlib.crc32(packet))
    other = data[: at.offset] + bytes(packet) + data[at.end :]
    decode_refuses(other, "frame 1", "--verify")


@pytest.mark.parametrize("target", ["out.xyz", "none/out.y4m"])
def test_decode_to_what_cannot_be_written(decode_refuses, stream, target):
    decode_refuses(Path(stream).read_bytes(), target, target=target)


def test_decode_to_a_folder_of_other_things(decode_refuses, stream):
    Path("album").mkdir()
    Path("album/holiday.png").write_bytes(b"precious")
    decode_refuses(Path(stream).read_bytes(), "album", target="album")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_decode_without_space(decode_refuses, stream):
    Path("out.yuv").symlink_to("/dev/full")
    decode_refuses(Path(stream).read_bytes(), "space", target="out.yuv")


def test_decode_two_things_to_standard_output(decode_refuses, stream):
    decode_refuses(Path(stream).read_bytes(), "standard output", "--json", target="-")
