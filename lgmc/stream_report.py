"""What a .lgmc file holds, byte by byte: the data behind ``lgmc inspect``."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field
from typing import BinaryIO

from codec.bitstream import ContainerReader, Packet, PacketType, Placement, SequenceHeader
from codec.errors import BitstreamError

FRAME_LETTERS = {PacketType.INTRA: "I", PacketType.INTER: "P"}
# Every byte of a file has one of these uses.
USES = ("header", "framing", "quality", "payload", "digest", "checksum", "index", "end", "unread")


@dataclass
class FrameReport:
    """One frame packet. ``bytes`` is all of it, ``payload_bytes`` its rANS stream alone.

    parts: bits of each part of the model (motion, residual, hyper ...), where they were asked for.
    """

    frame: int
    type: str
    quality: int
    offset: int
    bytes: int
    payload_bytes: int
    parts: dict[str, float] = field(default_factory=dict)


@dataclass
class StreamReport:
    """A whole file: ``uses`` sums to ``bytes``; ``damage`` says where reading had to stop."""

    bytes: int
    header: SequenceHeader
    uses: dict[str, int]
    frames: list[FrameReport]
    damage: BitstreamError | None

    @property
    def bits_per_pixel(self) -> float:
        """Of the file, over the luma pixels of the frames that were read."""
        pixels = self.header.width * self.header.height * len(self.frames)
        return 8 * self.bytes / pixels if pixels else 0.0

    @property
    def kbit_per_second(self) -> float:
        """Of the file at its frame rate, 1 kbit = 1000 bit."""
        if not self.frames:
            return 0.0
        return float(8 * self.bytes * self.header.fps / len(self.frames) / 1000)

    def by_type(self) -> dict[str, tuple[int, int]]:
        """Frame type -> (frames, bytes of their packets), for the types that occur."""
        counts: dict[str, tuple[int, int]] = {}
        for frame in self.frames:
            number, size = counts.get(frame.type, (0, 0))
            counts[frame.type] = (number + 1, size + frame.bytes)
        return counts

    def parts(self) -> dict[str, float]:
        """Bits of each part over all frames; empty when parts were not asked for."""
        sums: dict[str, float] = {}
        for frame in self.frames:
            for part, bits in frame.parts.items():
                sums[part] = sums.get(part, 0.0) + bits
        return sums

    def as_json(self, name: str) -> dict[str, object]:
        """A tree of plain values for json.dumps."""
        header = asdict(self.header)
        header["fps"] = str(self.header.fps)
        header["weights_digest"] = self.header.weights_digest.hex()
        return {
            "file": name,
            "bytes": self.bytes,
            "header": header,
            "bytes_by_use": self.uses,
            "frame_count": len(self.frames),
            "bits_per_pixel": self.bits_per_pixel,
            "kbit_per_second": self.kbit_per_second,
            "bits_by_part": self.parts(),
            "frames": [asdict(frame) for frame in self.frames],
            "damage": None if self.damage is None else str(self.damage),
        }


def open_stream(name: str) -> BinaryIO:
    """A .lgmc stream by its path, or standard input by ``-``."""
    return sys.stdin.buffer if name == "-" else open(name, "rb")


def survey(fileobj: BinaryIO, name: str) -> StreamReport:
    """Read and check a whole stream without decoding it.

    Raises:
        BitstreamError: the header is not sound. Later damage is in ``StreamReport.damage``.
    """
    reader = ContainerReader(fileobj, partial=True, name=name)
    uses = dict.fromkeys(USES, 0)
    uses["header"] = position = reader.header_bytes
    frames: list[FrameReport] = []
    for packet, placement in reader.placed():
        _count(uses, packet, placement)
        position = placement.end
        if packet.type.is_frame:
            frames.append(
                FrameReport(
                    frame=placement.frame,
                    type=FRAME_LETTERS[packet.type],
                    quality=packet.quality,
                    offset=placement.offset,
                    bytes=placement.total_bytes,
                    payload_bytes=placement.payload_bytes,
                )
            )
    size = _size_of(fileobj, at_least=position)
    uses["unread"] = size - position
    return StreamReport(size, reader.header, uses, frames, reader.damage)


def _count(uses: dict[str, int], packet: Packet, placement: Placement) -> None:
    if packet.type is PacketType.INDEX:
        uses["index"] += placement.total_bytes
    elif packet.type is PacketType.END:
        uses["end"] += placement.total_bytes
    else:
        uses["framing"] += placement.head_bytes
        uses["quality"] += placement.quality_bytes
        uses["payload"] += placement.payload_bytes
        uses["digest"] += placement.digest_bytes
        uses["checksum"] += placement.crc_bytes


def _size_of(fileobj: BinaryIO, at_least: int) -> int:
    """Bytes of the file; of a pipe, those that were read."""
    if fileobj.seekable():
        return fileobj.seek(0, os.SEEK_END)
    return at_least
