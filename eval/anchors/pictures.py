"""What pictures a raw stream holds: their bytes, which are intra, and whether they were reordered.

Read back from the file itself: what an encoder was told and what it did are two things.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from codec.errors import VideoError

# Types of AV1's open bitstream units (AV1 specification, section 6.2.2).
_OBU_FRAME_HEADER, _OBU_FRAME = 3, 6


@dataclass(frozen=True)
class Pictures:
    """The pictures of a stream in the order in which they are shown, one entry a picture.

    bytes: of its packet; in AV1 those that are coded ahead count to the one they are sent with.
    types: "I" or "P", any predicted picture. reordered: whether one is coded before another that
    is shown earlier, which is delay.
    """

    bytes: list[int]
    types: list[str]
    reordered: bool


def read_pictures(path: Path) -> Pictures:
    """The pictures of the raw stream ``path``, by decoding it; VideoError where that fails."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            if stream.codec_context.codec.name in ("libdav1d", "av1", "libaom-av1"):
                return _temporal_units(container)
            return _access_units(container, stream)
    except (av.FFmpegError, OSError, IndexError) as exc:
        raise VideoError(f"the stream {path.name} cannot be read back: {exc}") from exc


def _access_units(container, stream) -> Pictures:
    """H.264, HEVC, VVC: packets come in coding order, decoded frames in the order of display."""
    stream.thread_type = "NONE"
    packets: list[tuple[int, bool]] = []
    order: list[int] = []  # of the shown pictures, by their place in coding order
    for packet in container.demux(stream):
        if packet.size:
            packet.pts = packet.dts = len(packets)  # a decoder hands it on to the frame
            packets.append((packet.size, packet.is_keyframe))
        order += [frame.pts for frame in packet.decode()]
    if sorted(order) != list(range(len(packets))):
        raise VideoError(f"the stream has {len(packets)} pictures and shows {len(order)}")
    shown = [packets[index] for index in order]
    types = ["I" if key else "P" for _, key in shown]
    return Pictures([size for size, _ in shown], types, order != sorted(order))


def _temporal_units(container) -> Pictures:
    """AV1: a packet is a temporal unit, which shows one picture and may code others ahead."""
    sizes, types, reordered = [], [], False
    for packet in container.demux(video=0):
        if packet.size:
            sizes.append(packet.size)
            types.append("I" if packet.is_keyframe else "P")
            reordered |= list(shown_frames(bytes(packet))) != [True]
    return Pictures(sizes, types, reordered)


def shown_frames(unit: bytes) -> Iterator[bool]:
    """For each frame header of an AV1 temporal unit: whether it codes a frame that it shows.

    False: a frame for later (show_frame 0), or the showing of an earlier one
    (show_existing_frame 1). Source: AV1 specification, sections 5.3 and 5.9.2.
    """
    place = 0
    while place < len(unit):
        header = unit[place]
        kind = header >> 3 & 15
        place += 2 if header & 4 else 1  # an extension is one byte more
        length = len(unit) - place
        if header & 2:
            length, shift = 0, 0
            while True:  # leb128
                byte = unit[place]
                length |= (byte & 127) << shift
                place, shift = place + 1, shift + 7
                if not byte & 128:
                    break
        if kind in (_OBU_FRAME_HEADER, _OBU_FRAME):
            first = unit[place]
            yield not first & 0x80 and bool(first & 0x10)
        place += length
