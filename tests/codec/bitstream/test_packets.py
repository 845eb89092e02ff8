"""Varints, packets and digests: round trips, golden bytes, bounded reading."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.bitstream.packets import (
    Packet,
    PacketType,
    frame_digest,
    frame_packet_bytes,
    pack_packet,
    read_packet,
)
from codec.bitstream.source import READ_STEP, ByteSource, Truncated
from codec.bitstream.varint import pack_varint, read_varint
from codec.errors import BitstreamError

LIMIT = 1 << 20


def source_of(data: bytes) -> ByteSource:
    return ByteSource(io.BytesIO(data))


class Counting(io.BytesIO):
    """Remembers the most bytes one read asked for."""

    largest = 0

    def read(self, size=-1):
        self.largest = max(self.largest, size)
        return super().read(size)


@given(st.integers(0, (1 << 64) - 1))
@settings(deadline=None, max_examples=200)
def test_varint_round_trip(value):
    data = pack_varint(value)
    assert read_varint(source_of(data + b"rest"), (1 << 64) - 1) == (value, data)


@pytest.mark.parametrize(
    ("value", "data"), [(0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (16384, "808001")]
)
def test_varint_golden_bytes(value, data):
    assert pack_varint(value).hex() == data


@pytest.mark.parametrize(
    ("data", "limit", "says"),
    [
        (b"\x80\x00", 1000, "shortest"),
        (b"\x80\x80\x80\x01", 1000, "longer than the 2 bytes"),
        (b"\xe9\x07", 1000, "1001 is over the limit of 1000"),
        (b"\x80", 1000, "ends"),
        (b"", 1000, "ends"),
    ],
)
def test_varint_refuses(data, limit, says):
    with pytest.raises(BitstreamError, match=says):
        read_varint(source_of(data), limit)


@st.composite
def packets(draw, digests):
    kind = draw(st.sampled_from(PacketType))
    payload = draw(st.binary(max_size=300))
    if not kind.is_frame:
        return Packet(kind, payload)
    digest = draw(st.binary(min_size=8, max_size=8)) if digests else None
    return Packet(kind, payload, draw(st.integers(0, 63)), digest)


@given(st.data(), st.booleans())
@settings(deadline=None, max_examples=100)
def test_packet_round_trip(data, digests):
    packet = data.draw(packets(digests))
    packed, head = pack_packet(packet, digests=digests, limit=LIMIT)
    source = source_of(packed + b"rest")
    assert read_packet(source, digests=digests, limit=LIMIT) == (packet, head)
    assert source.offset == len(packed)


@pytest.mark.parametrize(
    ("packet", "golden"),
    [
        (
            Packet(PacketType.INTRA, b"\x01\x02\x03", 32, b"abcdefgh"),
            "49 04 20 01 02 03 61 62 63 64 65 66 67 68 19 06 e7 d1",
        ),
        (Packet(PacketType.INTER, bytes(130), 63), "50 83 01 3f " + "00 " * 130 + "fa f0 a6 02"),
        (Packet(PacketType.INDEX, b"\x01\x00\x33"), "58 03 01 00 33 d8 d7 e6 62"),
        (Packet(PacketType.END, bytes(12)), "45 0c " + "00 " * 12 + "a0 59 1b 8e"),
    ],
    ids=["intra", "inter", "index", "end"],
)
def test_golden_bytes(packet, golden):
    digests = packet.digest is not None
    assert pack_packet(packet, digests=digests, limit=LIMIT)[0].hex(" ") == golden
    assert read_packet(source_of(bytes.fromhex(golden)), digests=digests, limit=LIMIT)[0] == packet


def test_a_huge_length_is_refused_before_reading():
    data = Counting(b"I" + pack_varint(LIMIT + 1) + bytes(100))
    with pytest.raises(BitstreamError, match="over the limit"):
        read_packet(ByteSource(data), digests=False, limit=LIMIT)
    assert data.largest == 1


def test_a_lie_within_the_limit_allocates_one_step():
    data = Counting(b"I" + pack_varint(40 << 20) + bytes(100))
    with pytest.raises(Truncated):
        read_packet(ByteSource(data), digests=False, limit=64 << 20)
    assert data.largest == READ_STEP


@pytest.mark.parametrize(
    ("kind", "quality", "digest"),
    [
        (PacketType.INTRA, None, None),
        (PacketType.INTER, 64, None),
        (PacketType.INTRA, 3, b"short"),
        (PacketType.END, 3, None),
        (PacketType.INDEX, None, bytes(8)),
    ],
)
def test_construction_refuses(kind, quality, digest):
    with pytest.raises(BitstreamError):
        Packet(kind, b"", quality, digest)


def test_digests_follow_the_header():
    packet = Packet(PacketType.INTRA, b"", 3)
    with pytest.raises(BitstreamError, match="lacks the digest"):
        pack_packet(packet, digests=True, limit=LIMIT)
    packet = Packet(PacketType.INTRA, b"", 3, bytes(8))
    with pytest.raises(BitstreamError, match="has a digest"):
        pack_packet(packet, digests=False, limit=LIMIT)


def test_the_writer_keeps_the_reader_s_limit():
    with pytest.raises(BitstreamError, match="over the limit"):
        pack_packet(Packet(PacketType.INTRA, bytes(100), 3), digests=False, limit=100)
    packet = Packet(PacketType.INTRA, bytes(99), 3)
    packed, head = pack_packet(packet, digests=False, limit=100)
    assert read_packet(source_of(packed), digests=False, limit=100) == (packet, head)


@pytest.mark.parametrize("digests", [False, True])
@pytest.mark.parametrize("size", [0, 8, 126, 127, 16382, 16383])
def test_the_size_of_a_frames_packet_is_known_before(size, digests):
    packet = Packet(PacketType.INTER, bytes(size), 3, bytes(8) if digests else None)
    packed, _ = pack_packet(packet, digests=digests, limit=LIMIT)
    assert frame_packet_bytes(size, digests=digests) == len(packed)


@pytest.mark.parametrize(
    ("covered", "says"),
    [(b"Z\x00", "type 0x5a"), (b"I\x00", "no quality byte"), (b"I\x01\x40", "quality 64")],
)
def test_reading_refuses_what_a_checksum_does_not_catch(covered, says):
    data = covered + struct.pack("<I", zlib.crc32(covered))
    with pytest.raises(BitstreamError, match=says):
        read_packet(source_of(data), digests=False, limit=LIMIT)


def test_frame_digest_golden():
    planes = [np.arange(h * w, dtype=np.uint8).reshape(h, w) for h, w in ((4, 6), (2, 3), (2, 3))]
    assert frame_digest(planes).hex() == "f1c5aae969bd8a6b"
    wide = [plane.astype(np.uint16) * 3 for plane in planes]
    assert frame_digest(wide).hex() == "4cc11e77ccf3ad7c"


def test_frame_digest_sees_values_not_memory():
    planes = [np.arange(24, dtype=np.uint16).reshape(4, 6) for _ in range(3)]
    swapped = [plane.astype(">u2") for plane in planes]
    strided = [np.repeat(plane, 2, axis=1)[:, ::2] for plane in planes]
    assert frame_digest(planes) == frame_digest(swapped) == frame_digest(strided)
    planes[2][3, 5] ^= 1
    assert frame_digest(planes) != frame_digest(strided)


def test_frame_digest_wants_integers():
    for kind in (np.float32, np.int8, np.uint32):
        with pytest.raises(TypeError):
            frame_digest([np.zeros((2, 2), kind)])
