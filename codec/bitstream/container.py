"""A whole .lgmc stream: header, frame packets, index of the I frames, end.

    header  I P P ... I P P ...  INDEX  END

Written and read front to back; neither side needs to seek. END has a fixed size and knows where
INDEX begins, so a reader that can seek finds the I frames from the end (``read_index``).
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO

from codec.bitstream.header import MAX_FRAMES, SequenceHeader, read_header
from codec.bitstream.packets import (
    MAX_PAYLOAD,
    Packet,
    PacketType,
    Placement,
    frame_payload_limit,
    pack_packet,
    place,
    read_packet,
)
from codec.bitstream.source import ByteSource, Truncated
from codec.bitstream.varint import pack_varint, read_varint
from codec.errors import BitstreamError

_END = struct.Struct("<IQ")  # frames in the stream; offset of INDEX
END_PACKET_BYTES = 1 + 1 + _END.size + 4
_MAX_OFFSET = (1 << 63) - 1
# An index entry is two varints, of at most 5 and 9 bytes.
_INDEX_ENTRY_LIMIT = 14


@dataclass(frozen=True)
class IndexEntry:
    """An I frame: its frame number, from 0, and the offset of its packet in the file."""

    frame: int
    offset: int


class ContainerWriter:
    """Writes a stream front to back.

    ``close`` ends it: index, END and, where the file can seek, the frame count in the header. The
    writer never closes ``fileobj``. A stream whose writer was not closed reads as truncated.
    As a context manager it closes only when the block ended without an exception.
    """

    def __init__(self, fileobj: BinaryIO, header: SequenceHeader) -> None:
        self._fileobj = fileobj
        self._start = fileobj.tell() if fileobj.seekable() else None
        self._limit = frame_payload_limit(header)
        self._intra: list[IndexEntry] = []
        self._packets = 0
        self._closed = False
        self.header = header
        self.header_bytes = len(header.pack())
        self.frames = 0
        self.offset = self.header_bytes
        fileobj.write(header.pack())

    def write(self, packet: Packet) -> Placement:
        """Append a frame packet; the first must be INTRA. Returns where it lies."""
        if not packet.type.is_frame:
            raise ValueError(f"{packet.type.name} packets are written by close()")
        if self.frames == 0 and packet.type is not PacketType.INTRA:
            raise ValueError("the first frame of a stream is an INTRA packet")
        if packet.type is PacketType.INTRA:
            self._intra.append(IndexEntry(self.frames, self.offset))
        placement = self._append(packet, self._limit)
        self.frames += 1
        return placement

    def close(self) -> None:
        """Write INDEX and END and, if the file seeks, the true frame count into the header.

        Raises:
            BitstreamError: no frame was written, or a header that can no longer be changed
                promised another number of frames.
        """
        if self._closed:
            return
        if not self.frames:
            raise BitstreamError("the video has no frames, and an empty stream is not allowed")
        promised = self.header.frame_count
        if self._start is None and promised not in (None, self.frames):
            raise BitstreamError(
                f"the stream's header promised {promised} frames and {self.frames} came; "
                "write to a file, or leave the frame count open"
            )
        index_offset = self.offset
        self._append(Packet(PacketType.INDEX, _pack_index(self._intra)), MAX_PAYLOAD)
        self._append(Packet(PacketType.END, _END.pack(self.frames, index_offset)), MAX_PAYLOAD)
        if self._start is not None and promised != self.frames:
            self.header = replace(self.header, frame_count=self.frames)
            self._fileobj.seek(self._start)
            self._fileobj.write(self.header.pack())
            self._fileobj.seek(0, io.SEEK_END)
        self._fileobj.flush()
        self._closed = True

    def _append(self, packet: Packet, limit: int) -> Placement:
        data, head = pack_packet(packet, digests=self.header.digests, limit=limit)
        placement = place(
            packet, number=self._packets, frame=self.frames, offset=self.offset, head=head
        )
        self._fileobj.write(data)
        self.offset += len(data)
        self._packets += 1
        return placement

    def __enter__(self) -> ContainerWriter:
        return self

    def __exit__(self, kind: type | None, exc: object, trace: object) -> None:
        if kind is None:
            self.close()


class ContainerReader:
    """Reads a stream front to back; every packet is checked before it is handed out.

    Args:
        fileobj: binary stream at the start of the container; a pipe will do.
        partial: stop without an error where the stream is damaged or cut off; ``damage`` then
            holds what was wrong. A damaged header is an error all the same.
        name: what error messages call the stream; by default the file's own name.

    Attributes:
        header: the checked SequenceHeader; header_bytes: its size in the file.
        frames: whole frames handed out so far.
        damage: the BitstreamError that ended a partial reading, or None.

    Raises:
        BitstreamError: on construction for the header, while iterating for a packet. The message
            names the packet, its byte offset and what can still be decoded.
    """

    def __init__(
        self, fileobj: BinaryIO, *, partial: bool = False, name: str | None = None
    ) -> None:
        self._source = ByteSource(fileobj)
        self._partial = partial
        self._name = name or _name_of(fileobj)
        self._intra: list[IndexEntry] = []
        self.frames = 0
        self.damage: BitstreamError | None = None
        try:
            self.header = read_header(self._source)
        except BitstreamError as exc:
            raise BitstreamError(f"{self._name} {exc}") from None
        self.header_bytes = self._source.offset

    def __iter__(self) -> Iterator[Packet]:
        """The frame packets, in order."""
        for packet, _ in self.placed():
            if packet.type.is_frame:
                yield packet

    def placed(self) -> Iterator[tuple[Packet, Placement]]:
        """Every packet, INDEX and END too, with its placement. The stream is read once."""
        number = 0
        index_offset = None
        while True:
            offset = self._source.offset
            try:
                packet, placement = self._next(number, offset, index_offset)
                if packet.type is PacketType.END and self._source.take_up_to(1):
                    offset = placement.end
                    number += 1
                    raise BitstreamError("there are bytes after the end packet")
            except BitstreamError as exc:
                error = self._explain(exc, number, offset)
                if not self._partial:
                    raise error from None
                self.damage = error
                return
            if packet.type.is_frame:
                self.frames += 1
            elif packet.type is PacketType.INDEX:
                index_offset = offset
            yield packet, placement
            if packet.type is PacketType.END:
                return
            number += 1

    def _next(self, number: int, offset: int, index_offset: int | None) -> tuple[Packet, Placement]:
        """Read the next packet and check that it may stand here."""
        header = self.header
        frame_limit = frame_payload_limit(header)
        limit = max(frame_limit, _INDEX_ENTRY_LIMIT * (len(self._intra) + 1))
        packet, head = read_packet(
            self._source,
            digests=header.digests,
            limit=min(limit, MAX_PAYLOAD),
            frame_limit=frame_limit,
        )
        if packet.type is PacketType.END:
            self._check_end(packet, index_offset)
        elif index_offset is not None:
            raise BitstreamError(f"an {packet.type.name} packet follows the index")
        elif packet.type is PacketType.INDEX:
            if _unpack_index(packet.payload) != self._intra:
                raise BitstreamError("the index does not list the I frames of this stream")
        elif packet.type is PacketType.INTER and not self._intra:
            raise BitstreamError("the stream does not begin with an I frame")
        elif self.frames == (header.frame_count or MAX_FRAMES):
            raise BitstreamError(f"there are more than the header's {self.frames} frames")
        elif packet.type is PacketType.INTRA:
            self._intra.append(IndexEntry(self.frames, offset))
        return packet, place(packet, number=number, frame=self.frames, offset=offset, head=head)

    def _check_end(self, packet: Packet, index_offset: int | None) -> None:
        frames, offset = _unpack_end(packet.payload)
        for promised in (frames, self.header.frame_count or frames):
            if promised != self.frames:
                raise BitstreamError(f"{self.frames} frames came and {promised} were promised")
        if not frames:
            raise BitstreamError("the stream holds no frames")
        if offset != (index_offset or 0):
            raise BitstreamError("the end packet points to another place than the index")

    def _explain(self, exc: BitstreamError, number: int, offset: int) -> BitstreamError:
        if isinstance(exc, Truncated) and self._source.offset == offset:
            what = f"{self._name} is cut off at byte {offset}, before packet {number}"
        elif isinstance(exc, Truncated):
            what = f"{self._name} is cut off inside packet {number} at byte {offset}"
        else:
            what = f"{self._name} is damaged in packet {number} at byte {offset}: {exc}"
        if not self.frames:
            return BitstreamError(f"{what}; no frame before it is whole")
        frames = "1 whole frame" if self.frames == 1 else f"{self.frames} whole frames"
        return BitstreamError(f"{what}; decode with --partial to keep the {frames} before it")


def read_index(fileobj: BinaryIO) -> list[IndexEntry]:
    """The I frames of a stream that can seek, from its last bytes.

    Args:
        fileobj: seekable binary file that holds one stream from its first byte to its last; left
            where it stood.

    Raises:
        BitstreamError: the stream has no intact END and INDEX; read it from the front instead.
    """
    before = fileobj.tell()
    try:
        size = fileobj.seek(0, io.SEEK_END)
        end = _packet_at(fileobj, size - END_PACKET_BYTES, PacketType.END, END_PACKET_BYTES)
        offset = _unpack_end(end.payload)[1]
        limit = min(max(size - END_PACKET_BYTES - offset, 0), MAX_PAYLOAD)
        return _unpack_index(_packet_at(fileobj, offset, PacketType.INDEX, limit).payload)
    except BitstreamError as exc:
        raise BitstreamError(
            f"{_name_of(fileobj)} has no intact index ({exc}); decode it from the start"
        ) from None
    finally:
        fileobj.seek(before)


def _packet_at(fileobj: BinaryIO, offset: int, kind: PacketType, limit: int) -> Packet:
    if offset <= 0:
        raise BitstreamError(f"there is no {kind.name} packet")
    fileobj.seek(offset)
    packet, _ = read_packet(ByteSource(fileobj, offset), digests=False, limit=limit)
    if packet.type is not kind:
        raise BitstreamError(f"there is no {kind.name} packet at byte {offset}")
    return packet


def _pack_index(entries: list[IndexEntry]) -> bytes:
    """Number of entries, then the differences of frame number and offset, all varints."""
    out = [pack_varint(len(entries))]
    last = IndexEntry(0, 0)
    for entry in entries:
        out.append(pack_varint(entry.frame - last.frame))
        out.append(pack_varint(entry.offset - last.offset))
        last = entry
    return b"".join(out)


def _unpack_index(payload: bytes) -> list[IndexEntry]:
    source = ByteSource(io.BytesIO(payload))
    entries: list[IndexEntry] = []
    frame = offset = 0
    try:
        # Each entry takes two bytes or more, so the count cannot ask for what is not there.
        for _ in range(read_varint(source, len(payload) // 2)[0]):
            frame += read_varint(source, MAX_FRAMES)[0]
            offset += read_varint(source, _MAX_OFFSET)[0]
            entries.append(IndexEntry(frame, offset))
    except Truncated:
        raise BitstreamError("the index is shorter than its entries") from None
    if source.offset != len(payload):
        raise BitstreamError("the index has bytes left over")
    return entries


def _unpack_end(payload: bytes) -> tuple[int, int]:
    if len(payload) != _END.size:
        raise BitstreamError(f"the end packet has {len(payload)} bytes, not {_END.size}")
    return _END.unpack(payload)


def _name_of(fileobj: BinaryIO) -> str:
    name = getattr(fileobj, "name", None)
    return name if isinstance(name, str) else "the stream"
