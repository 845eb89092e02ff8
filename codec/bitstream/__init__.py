"""The .lgmc container: header, packets, checksums, index. docs/bitstream.md specifies it."""

from codec.bitstream.container import ContainerReader, ContainerWriter, read_index
from codec.bitstream.header import VERSION, SequenceHeader
from codec.bitstream.packets import Packet, PacketType, Placement, frame_digest

__all__ = [
    "VERSION",
    "ContainerReader",
    "ContainerWriter",
    "Packet",
    "PacketType",
    "Placement",
    "SequenceHeader",
    "frame_digest",
    "read_index",
]
