"""Unsigned LEB128: seven bits a byte, lowest first; the top bit is set on all but the last."""

from __future__ import annotations

from codec.bitstream.source import ByteSource
from codec.errors import BitstreamError


def pack_varint(value: int) -> bytes:
    """``value`` >= 0 as its shortest LEB128."""
    if value < 0:
        raise ValueError(f"a varint cannot hold {value}")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read_varint(source: ByteSource, limit: int) -> tuple[int, bytes]:
    """Read one value in 0..``limit``.

    Returns:
        The value and the bytes it took (a checksum wants them).

    Raises:
        BitstreamError: value over ``limit``, more bytes than ``limit`` needs, or not the shortest
            form (one value has one encoding).
    """
    longest = len(pack_varint(limit))
    raw = bytearray()
    value = 0
    while True:
        if len(raw) == longest:
            raise BitstreamError(f"a number is longer than the {longest} bytes it may take")
        byte = source.take(1)[0]
        value |= (byte & 0x7F) << (7 * len(raw))
        raw.append(byte)
        if byte < 0x80:
            break
    if value > limit:
        raise BitstreamError(f"{value} is over the limit of {limit}")
    if byte == 0 and len(raw) > 1:
        raise BitstreamError("a number is not in its shortest form")
    return value, bytes(raw)
