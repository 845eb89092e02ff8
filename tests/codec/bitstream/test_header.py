"""The sequence header: round trips, golden bytes, limits on both sides."""

import io
import struct
import zlib
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.bitstream.header import MAX_PIXELS, SequenceHeader, read_header
from codec.bitstream.source import ByteSource
from codec.errors import BitstreamError

HEADER = SequenceHeader(
    width=416,
    height=240,
    fps=Fraction(30000, 1001),
    chroma="420",
    bit_depth=8,
    matrix="bt709",
    range="limited",
    model="lite",
    weights_digest=bytes(range(16)),
    quality=32,
    intra_period=32,
    frame_count=96,
)

# Changed bytes are a breaking release: raise VERSION and document it before touching these.
GOLDEN = bytes.fromhex(
    "4c474d43 01 29 01 00080100 20 20 a003 f001 b0ea01 e907 60000000 04 6c697465"
    "000102030405060708090a0b0c0d0e0f 58036505"
)
GOLDEN_EXTREME = bytes.fromhex(
    "4c474d43 01 2e 00 020a0001 3f ffff03 808001 8020 ffffffff0f 95e0b302 00000000 02 c3bc"
    "ffffffffffffffffffffffffffffffff 259cecb4"
)
EXTREME = SequenceHeader(
    width=16384,
    height=4096,
    fps=Fraction((1 << 32) - 1, 5042197),
    chroma="rgb",
    bit_depth=10,
    matrix="bt601",
    range="full",
    model="ü",
    weights_digest=b"\xff" * 16,
    quality=63,
    intra_period=65535,
    digests=False,
)


@st.composite
def headers(draw):
    width = draw(st.integers(1, 16384))
    name = st.text(st.characters(categories=("L", "N", "P")), min_size=1, max_size=16)
    return SequenceHeader(
        width=width,
        height=draw(st.integers(1, min(16384, MAX_PIXELS // width))),
        fps=draw(st.fractions(Fraction(1, 1000), 1000, max_denominator=100000)),
        chroma=draw(st.sampled_from(["420", "444", "rgb"])),
        bit_depth=draw(st.sampled_from([8, 10])),
        matrix=draw(st.sampled_from(["bt601", "bt709"])),
        range=draw(st.sampled_from(["limited", "full"])),
        model=draw(name),
        weights_digest=draw(st.binary(min_size=16, max_size=16)),
        quality=draw(st.integers(0, 63)),
        intra_period=draw(st.integers(0, 65535)),
        frame_count=draw(st.none() | st.integers(1, (1 << 32) - 1)),
        digests=draw(st.booleans()),
    )


def unpacked(data: bytes) -> SequenceHeader:
    return read_header(ByteSource(io.BytesIO(data)))


@given(headers())
@settings(deadline=None, max_examples=100)
def test_round_trip(header):
    assert unpacked(header.pack()) == header


@pytest.mark.parametrize(
    ("header", "golden"), [(HEADER, GOLDEN), (EXTREME, GOLDEN_EXTREME)], ids=["usual", "extreme"]
)
def test_golden_bytes(header, golden):
    assert header.pack().hex(" ") == golden.hex(" ")
    assert unpacked(golden) == header


def test_length_does_not_depend_on_frame_count():
    lengths = {len(replace(HEADER, frame_count=n).pack()) for n in (None, 1, 1 << 20)}
    assert len(lengths) == 1


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"width": 0}, "width 0"),
        ({"height": 16385}, "height 16385"),
        ({"width": 16384, "height": 4097}, "pixels"),
        ({"fps": Fraction(1, 1001)}, "frame rate"),
        ({"fps": Fraction(1001)}, "frame rate"),
        ({"fps": Fraction((1 << 32) + 1, 1 << 31)}, "term"),
        ({"chroma": "422"}, "chroma"),
        ({"bit_depth": 12}, "bit depth"),
        ({"matrix": "bt2020"}, "matrix"),
        ({"range": "tv"}, "range"),
        ({"quality": 64}, "quality 64"),
        ({"quality": -1}, "quality -1"),
        ({"intra_period": 65536}, "intra period"),
        ({"frame_count": 0}, "frame count"),
        ({"frame_count": 1 << 32}, "frame count"),
        ({"model": ""}, "model name"),
        ({"model": "ü" * 33}, "model name"),
        ({"model": "a\nb"}, "print"),
        ({"weights_digest": b"short"}, "digest"),
    ],
)
def test_construction_refuses(changes, says):
    with pytest.raises(BitstreamError, match=says):
        replace(HEADER, **changes)


def with_byte(position: int, value: int) -> bytes:
    """HEADER's bytes with one changed and the checksum made right again: a forged header."""
    data = bytearray(HEADER.pack()[:-4])
    data[position] = value
    return bytes(data) + struct.pack("<I", zlib.crc32(data))


@pytest.mark.parametrize(
    ("position", "value", "says"),
    [
        (6, 2, "flags"),
        (7, 3, "chroma code 3"),
        (8, 9, "bit depth"),
        (9, 2, "matrix code 2"),
        (10, 2, "range code 2"),
        (11, 64, "quality 64"),
        (14, 0x00, "shortest|limit|width"),
        (28, 5, "outside the format"),
        (29, 0xFF, "outside the format"),
    ],
)
def test_parsing_refuses_what_a_checksum_does_not_catch(position, value, says):
    with pytest.raises(BitstreamError, match=says):
        unpacked(with_byte(position, value))


def test_a_header_that_goes_on_is_refused():
    data = bytearray(HEADER.pack()[:-4] + b"\x00")
    data[5] += 1  # the body's length
    with pytest.raises(BitstreamError, match="bytes left over"):
        unpacked(bytes(data) + struct.pack("<I", zlib.crc32(data)))


def test_another_version_is_named():
    data = bytearray(HEADER.pack())
    data[4] = 7
    with pytest.raises(BitstreamError, match="version 7.*reads version 1"):
        unpacked(bytes(data))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b"hello, I am a text file", "not a .lgmc stream"),
        (b"LG", "ends inside its sequence header"),
        (GOLDEN[:-1], "ends inside its sequence header"),
    ],
)
def test_what_is_no_header(data, says):
    with pytest.raises(BitstreamError, match=says):
        unpacked(data)


def test_every_bit_flip_is_seen():
    data = HEADER.pack()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        # Room behind it, so that a longer declared body is read and fails by its checksum.
        with pytest.raises(BitstreamError):
            read_header(ByteSource(io.BytesIO(bytes(flipped) + bytes(200))))
