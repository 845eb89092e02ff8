"""Whole streams: round trips, every byte accounted for, every bit flip and every cut found."""

import io
from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.bitstream import (
    ContainerReader,
    ContainerWriter,
    Packet,
    PacketType,
    SequenceHeader,
    read_index,
)
from codec.bitstream.packets import frame_payload_limit, pack_packet
from codec.errors import BitstreamError

HEADER = SequenceHeader(
    width=5,
    height=3,
    fps=Fraction(25),
    chroma="444",
    bit_depth=10,
    matrix="bt601",
    range="full",
    model="m",
    weights_digest=bytes(16),
    quality=9,
    intra_period=2,
)
FRAMES = [
    Packet(PacketType.INTRA if i % 2 == 0 else PacketType.INTER, bytes([i]) * i, i, bytes([i] * 8))
    for i in range(5)
]


class Pipe(io.RawIOBase):
    """Gives a few bytes a read and cannot seek, as standard input does."""

    def __init__(self, data=b""):
        self._in, self.out = io.BytesIO(data), b""

    def readable(self):
        return True

    def writable(self):
        return True

    def seekable(self):
        return False

    def tell(self):
        raise OSError("a pipe has no position")

    def read(self, size=-1):
        return self._in.read(min(size, 3))

    def write(self, data):
        self.out += data
        return len(data)


def stream(frames=FRAMES, header=HEADER) -> bytes:
    out = io.BytesIO()
    with ContainerWriter(out, header) as writer:
        for frame in frames:
            writer.write(frame)
    return out.getvalue()


def assemble(*packets: Packet, header=HEADER) -> bytes:
    """A stream of exactly these packets, right or wrong, each with a good checksum."""
    packed = (pack_packet(p, digests=header.digests, limit=1 << 20)[0] for p in packets)
    return header.pack() + b"".join(packed)


def read(data: bytes, **options) -> list[Packet]:
    return list(ContainerReader(io.BytesIO(data), **options))


@st.composite
def videos(draw):
    digests = draw(st.booleans())
    kinds = draw(st.lists(st.sampled_from([PacketType.INTRA, PacketType.INTER]), max_size=6))
    frames = [
        Packet(
            kind,
            draw(st.binary(max_size=200)),
            draw(st.integers(0, 63)),
            draw(st.binary(min_size=8, max_size=8)) if digests else None,
        )
        for kind in [PacketType.INTRA, *kinds]
    ]
    return replace(HEADER, digests=digests), frames


@given(videos())
@settings(deadline=None, max_examples=60)
def test_round_trip(video):
    header, frames = video
    data = stream(frames, header)
    reader = ContainerReader(io.BytesIO(data))
    assert list(reader) == frames
    assert reader.header == replace(header, frame_count=len(frames))
    assert reader.frames == len(frames)
    assert [e.frame for e in read_index(io.BytesIO(data))] == [
        i for i, frame in enumerate(frames) if frame.type is PacketType.INTRA
    ]


@given(videos())
@settings(deadline=None, max_examples=60)
def test_every_byte_is_accounted_for(video):
    header, frames = video
    data = stream(frames, header)
    reader = ContainerReader(io.BytesIO(data))
    position = reader.header_bytes
    for number, (packet, placement) in enumerate(reader.placed()):
        assert placement.number == number
        assert placement.offset == position
        assert data[position] == packet.type
        assert placement.payload_bytes == len(packet.payload)
        position = placement.end
    assert position == len(data)


def test_writer_reports_what_the_reader_finds():
    out = io.BytesIO()
    with ContainerWriter(out, HEADER) as writer:
        written = [writer.write(frame) for frame in FRAMES]
    reader = ContainerReader(io.BytesIO(out.getvalue()))
    found = [placement for packet, placement in reader.placed() if packet.type.is_frame]
    assert written == found
    assert writer.offset == len(out.getvalue())


def test_index_points_at_the_intra_packets():
    data = stream()
    entries = read_index(io.BytesIO(data))
    assert [e.frame for e in entries] == [0, 2, 4]
    assert all(data[e.offset] == PacketType.INTRA for e in entries)


def test_pipes_on_both_sides():
    out = Pipe()
    with ContainerWriter(out, HEADER) as writer:
        for frame in FRAMES:
            writer.write(frame)
    reader = ContainerReader(Pipe(out.out))
    assert list(reader) == FRAMES
    assert reader.header.frame_count is None


def test_a_promise_that_a_pipe_cannot_take_back():
    writer = ContainerWriter(Pipe(), replace(HEADER, frame_count=4))
    for frame in FRAMES:
        writer.write(frame)
    with pytest.raises(BitstreamError, match="promised 4 frames and 5 came"):
        writer.close()


def test_a_wrong_guess_of_the_frame_count_is_mended_in_a_file():
    assert stream(header=replace(HEADER, frame_count=4000)) == stream()


def test_writer_refuses():
    writer = ContainerWriter(io.BytesIO(), HEADER)
    with pytest.raises(BitstreamError, match="no frames"):
        writer.close()
    with pytest.raises(ValueError):
        writer.write(FRAMES[1])
    for written in ((), FRAMES[:1]):
        for frame in written:
            writer.write(frame)
        with pytest.raises(ValueError, match=r"END packets are written by close\(\)"):
            writer.write(Packet(PacketType.END, bytes(12)))


def test_a_stream_is_closed_once():
    out = io.BytesIO()
    with ContainerWriter(out, HEADER) as writer:
        for frame in FRAMES:
            writer.write(frame)
        writer.close()
    writer.close()
    assert out.getvalue() == stream()


def test_an_exception_leaves_the_stream_unfinished():
    out = io.BytesIO()
    with pytest.raises(RuntimeError), ContainerWriter(out, HEADER) as writer:
        writer.write(FRAMES[0])
        raise RuntimeError
    with pytest.raises(BitstreamError, match="cut off"):
        read(out.getvalue())


def test_every_bit_flip_is_found():
    data = stream()
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BitstreamError) as caught:
            read(bytes(flipped))
        assert "\n" not in str(caught.value)


def test_every_cut_keeps_exactly_the_whole_packets():
    data = stream()
    reader = ContainerReader(io.BytesIO(data))
    header_bytes = reader.header_bytes
    ends = [placement.end for packet, placement in reader.placed() if packet.type.is_frame]
    for cut in range(len(data)):
        if cut < header_bytes:
            with pytest.raises(BitstreamError):
                read(data[:cut], partial=True)
            continue
        whole = sum(end <= cut for end in ends)
        partial = ContainerReader(io.BytesIO(data[:cut]), partial=True)
        assert list(partial) == FRAMES[:whole]
        assert isinstance(partial.damage, BitstreamError)
        strict = ContainerReader(io.BytesIO(data[:cut]))
        got = []
        with pytest.raises(BitstreamError, match=f"cut off .*(byte {cut}|inside)"):
            got.extend(strict)
        assert strict.frames == whole


def test_damage_is_named_with_its_place_and_the_way_out():
    data = bytearray(stream())
    reader = ContainerReader(io.BytesIO(bytes(data)))
    placement = [placement for _, placement in reader.placed()][3]
    data[placement.end - 5] ^= 1
    source = io.BytesIO(bytes(data))
    source.name = "a.lgmc"
    with pytest.raises(BitstreamError) as caught:
        list(ContainerReader(source))
    message = str(caught.value)
    assert message.startswith(f"a.lgmc is damaged in packet 3 at byte {placement.offset}")
    assert "--partial to keep the 3 whole frames before it" in message
    partial = ContainerReader(io.BytesIO(bytes(data)), partial=True)
    assert list(partial) == FRAMES[:3]


def test_an_intact_stream_read_as_partial_has_no_damage():
    reader = ContainerReader(io.BytesIO(stream()), partial=True)
    assert list(reader) == FRAMES
    assert reader.damage is None


def test_huge_lengths_are_refused():
    data = HEADER.pack() + b"I\xff\xff\xff\xff\x0f"
    with pytest.raises(BitstreamError, match="packet 0 at byte .*longer|over the limit"):
        read(data)
    data = stream()[: START + I_BYTES] + b"X\xff\xff\x3f"
    with pytest.raises(BitstreamError, match="packet 1 at byte .*longer|over the limit"):
        read(data)


def test_many_i_frames_do_not_raise_the_limit_of_a_frame():
    """The index of 6,000 may be longer than a frame of 5x3 pixels."""
    header = replace(HEADER, digests=False)
    frames = [Packet(PacketType.INTRA, b"", 3)] * 6000
    assert len(read(stream(frames, header))) == 6000
    too_long = Packet(PacketType.INTRA, bytes(80000), 3)
    data = assemble(*frames, too_long, header=header)
    with pytest.raises(BitstreamError, match="over the limit of 65776"):
        read(data)


def test_an_index_may_be_longer_than_a_frame(monkeypatch):
    monkeypatch.setattr("codec.bitstream.container.frame_payload_limit", lambda header: 20)
    frames = [Packet(PacketType.INTRA, b"", 3)] * 12
    data = stream(frames, replace(HEADER, digests=False))
    *_, (index, _), _ = ContainerReader(io.BytesIO(data)).placed()
    assert index.type is PacketType.INDEX and len(index.payload) > 20
    assert len(read_index(io.BytesIO(data))) == 12


def test_no_packet_may_be_longer_than_64_mib():
    assert frame_payload_limit(replace(HEADER, width=8192, height=8192)) == 64 << 20


INTRA, INTER = FRAMES[0], FRAMES[1]
START = len(HEADER.pack())
I_BYTES = len(pack_packet(INTRA, digests=True, limit=100)[0])


def end(frames: int, index: int) -> Packet:
    return Packet(PacketType.END, frames.to_bytes(4, "little") + index.to_bytes(8, "little"))


def index(*numbers: int) -> Packet:
    return Packet(PacketType.INDEX, bytes(numbers))


def test_a_stream_without_index_is_whole():
    assert read(assemble(INTRA, INTER, end(2, 0))) == [INTRA, INTER]
    assert read_index(io.BytesIO(stream())) != []
    with pytest.raises(BitstreamError, match="no intact index"):
        read_index(io.BytesIO(assemble(INTRA, INTER, end(2, 0))))


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (assemble(INTER, end(1, 0)), "begin with an I frame"),
        (assemble(INTRA, end(2, 0)), "1 frames came and 2 were promised"),
        (assemble(INTRA, INTER, end(2, 0), header=replace(HEADER, frame_count=3)), "2 .* and 3"),
        (assemble(INTRA, INTER, end(2, 0), header=replace(HEADER, frame_count=1)), "more than"),
        (assemble(end(0, 0)), "no frames"),
        (assemble(INTRA, end(1, 0)) + b"x", "after the end packet"),
        (assemble(INTRA, end(1, 0), INTRA), "after the end packet"),
        (assemble(INTRA, index(1, 0, START), INTER), "follows the index"),
        (assemble(INTRA, index(1, 0, START), index(1, 0, START)), "follows the index"),
        (assemble(INTRA, index(1, 1, START), end(1, START + I_BYTES)), "does not list"),
        (assemble(INTRA, index(0), end(1, START + I_BYTES)), "does not list"),
        (assemble(INTRA, index(2, 0, START), end(1, START + I_BYTES)), "over the limit"),
        (assemble(INTRA, index(2, 0x80, 0x80, 1, 0), end(1, 0)), "shorter than its entries"),
        (assemble(INTRA, index(1, 0, START, 0), end(1, 0)), "left over"),
        (assemble(INTRA, index(1, 0, START), end(1, 7)), "points to another place"),
        (assemble(INTRA, Packet(PacketType.END, bytes(11))), "11 bytes, not 12"),
    ],
)
def test_wrong_order_and_wrong_counts_are_found(data, says):
    with pytest.raises(BitstreamError, match=says):
        read(data)


@given(st.binary(max_size=200))
@settings(deadline=None, max_examples=200)
def test_noise_after_a_good_header_is_never_another_exception(noise):
    with pytest.raises(BitstreamError):
        read(HEADER.pack() + noise)
