"""Packets: what stands between the sequence header and the end of a .lgmc stream.

    type (1)  length (varint)  payload (length)  [digest (8)]  CRC-32 (4)

The checksum covers everything before it, type and length included. A frame packet's payload on disk
is the frame's quality index (1 byte), then the rANS stream.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from codec.bitstream.header import MAX_QUALITY, SequenceHeader
from codec.bitstream.source import ByteSource
from codec.bitstream.varint import pack_varint, read_varint
from codec.errors import BitstreamError

DIGEST_BYTES = 8
CRC_BYTES = 4
MAX_PAYLOAD = 64 << 20


class PacketType(IntEnum):
    """What a packet holds; the values are ASCII letters, to be seen in a hex dump."""

    INTRA = ord("I")
    INTER = ord("P")
    INDEX = ord("X")
    END = ord("E")

    @property
    def is_frame(self) -> bool:
        return self in (PacketType.INTRA, PacketType.INTER)


@dataclass(frozen=True)
class Packet:
    """One packet in memory.

    Attributes:
        type: what it holds.
        payload: a frame's rANS stream (the quality byte is apart), or the index or end fields.
        quality: the frame's quality index, 0..63; None for INDEX and END.
        digest: ``frame_digest`` of the decoded frame, 8 bytes, where the header's flag says so.
    """

    type: PacketType
    payload: bytes
    quality: int | None = None
    digest: bytes | None = None

    def __post_init__(self) -> None:
        if self.type.is_frame:
            if self.quality is None or not 0 <= self.quality <= MAX_QUALITY:
                raise BitstreamError(f"frame quality {self.quality} is outside 0..{MAX_QUALITY}")
        elif self.quality is not None or self.digest is not None:
            raise BitstreamError(f"an {self.type.name} packet has no quality and no digest")
        if self.digest is not None and len(self.digest) != DIGEST_BYTES:
            raise BitstreamError(f"digest has {len(self.digest)} bytes, not {DIGEST_BYTES}")


@dataclass(frozen=True)
class Placement:
    """Where a packet lies in the file and what each of its bytes is for.

    Attributes:
        number: of the packet, from 0.
        frame: of the frame it holds, from 0; None for INDEX and END.
        offset: of its first byte from the start of the file.
        head_bytes: type and length; quality_bytes: 1 in a frame packet, else 0;
        payload_bytes: rANS stream (or index or end fields); digest_bytes; crc_bytes.
    """

    number: int
    frame: int | None
    offset: int
    head_bytes: int
    quality_bytes: int
    payload_bytes: int
    digest_bytes: int
    crc_bytes: int

    @property
    def total_bytes(self) -> int:
        return (
            self.head_bytes
            + self.quality_bytes
            + self.payload_bytes
            + self.digest_bytes
            + self.crc_bytes
        )

    @property
    def end(self) -> int:
        """Offset of the byte after the packet."""
        return self.offset + self.total_bytes


def frame_payload_limit(header: SequenceHeader) -> int:
    """Most bytes a frame packet's payload may declare: 16 a pixel + 64 KiB, at most 64 MiB.

    Far over what a frame takes (raw 4:4:4 at 10 bit is 6 bytes a pixel); it is there so that a
    decoder never allocates what a damaged or hostile length asks for.
    """
    return min(MAX_PAYLOAD, 16 * header.width * header.height + (64 << 10))


def pack_packet(packet: Packet, *, digests: bool, limit: int) -> tuple[bytes, int]:
    """A packet as it stands in the file, the inverse of ``read_packet``.

    Args:
        digests: the header's flag; frame packets then need a digest, and else must have none.
        limit: most payload bytes, see ``frame_payload_limit``.

    Returns:
        The packet's bytes, and how many of them its type and length take.
    """
    if packet.type.is_frame and digests != (packet.digest is not None):
        wrong = "lacks the digest that" if digests else "has a digest, unlike what"
        raise BitstreamError(f"a frame packet {wrong} the sequence header says")
    payload = packet.payload
    if packet.type.is_frame:
        payload = bytes((packet.quality,)) + payload
    if len(payload) > limit:
        raise BitstreamError(
            f"a packet of {len(payload)} bytes is over the limit of {limit}; use a lower quality"
        )
    head = bytes((packet.type,)) + pack_varint(len(payload))
    covered = head + payload + (packet.digest or b"")
    return covered + struct.pack("<I", zlib.crc32(covered)), len(head)


def frame_packet_bytes(stream_bytes: int, *, digests: bool) -> int:
    """Bytes of the packet of a frame whose rANS stream has ``stream_bytes``."""
    payload = 1 + stream_bytes
    return 1 + len(pack_varint(payload)) + payload + DIGEST_BYTES * digests + CRC_BYTES


def read_packet(
    source: ByteSource, *, digests: bool, limit: int, frame_limit: int | None = None
) -> tuple[Packet, int]:
    """Read one packet and check it.

    Args:
        digests: the header's flag.
        limit: most payload bytes to believe; checked before anything is allocated.
        frame_limit: of a frame packet, None: ``limit``.

    Returns:
        The packet, and the bytes its type and length took.

    Raises:
        BitstreamError: unknown type, length over the limit, checksum wrong, or Truncated.
    """
    code = source.take(1)
    try:
        kind = PacketType(code[0])
    except ValueError:
        raise BitstreamError(f"packet type {code[0]:#04x} is not known") from None
    if kind.is_frame and frame_limit is not None:
        limit = frame_limit
    size, raw_size = read_varint(source, limit)
    payload = source.take(size)
    digest = source.take(DIGEST_BYTES) if digests and kind.is_frame else None
    (checksum,) = struct.unpack("<I", source.take(CRC_BYTES))
    if checksum != zlib.crc32(b"".join((code, raw_size, payload, digest or b""))):
        raise BitstreamError("its checksum does not match")
    head_bytes = len(code) + len(raw_size)
    if not kind.is_frame:
        return Packet(kind, payload), head_bytes
    if not payload:
        raise BitstreamError("a frame packet has no quality byte")
    return Packet(kind, payload[1:], quality=payload[0], digest=digest), head_bytes


def place(packet: Packet, *, number: int, frame: int | None, offset: int, head: int) -> Placement:
    """The placement of a packet that begins at ``offset``."""
    return Placement(
        number=number,
        frame=frame if packet.type.is_frame else None,
        offset=offset,
        head_bytes=head,
        quality_bytes=int(packet.type.is_frame),
        payload_bytes=len(packet.payload),
        digest_bytes=len(packet.digest or b""),
        crc_bytes=CRC_BYTES,
    )


def frame_digest(planes: Sequence[np.ndarray]) -> bytes:
    """8 bytes of BLAKE2b over a decoded frame's integer planes.

    Args:
        planes: Y, U, V or R, G, B, each [height, width]; uint8, or uint16 (hashed little-endian).
    """
    digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
    for plane in planes:
        if plane.dtype.kind != "u" or plane.dtype.itemsize > 2:
            raise TypeError(f"planes are uint8 or uint16, not {plane.dtype}")
        digest.update(np.ascontiguousarray(plane, dtype=plane.dtype.newbyteorder("<")).data)
    return digest.digest()
