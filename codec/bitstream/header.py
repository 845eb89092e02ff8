"""The sequence header: what a decoder must know before the first frame.

The byte layout is specified in docs/bitstream.md; a change to it is a new ``VERSION``.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction

from codec.bitstream.source import ByteSource, Truncated
from codec.bitstream.varint import pack_varint, read_varint
from codec.errors import BitstreamError

MAGIC = b"LGMC"
VERSION = 1

MAX_SIDE = 16384
MAX_PIXELS = 1 << 26
MIN_FPS, MAX_FPS = Fraction(1, 1000), Fraction(1000)
MAX_FPS_TERM = (1 << 32) - 1
MAX_QUALITY = 63
MAX_INTRA_PERIOD = 65535
MAX_FRAMES = (1 << 32) - 1
MAX_MODEL_NAME = 64
WEIGHTS_DIGEST_BYTES = 16
# No valid body is longer: 4 format bytes, flags, quality, numbers, frame count, name and digest.
MAX_BODY = 128

CHROMAS = ("420", "444", "rgb")
BIT_DEPTHS = (8, 10)
MATRICES = ("bt601", "bt709")
RANGES = ("limited", "full")

FLAG_DIGESTS = 1


@dataclass(frozen=True)
class SequenceHeader:
    """One video's format and the model that codes it. Checked on construction and on parsing.

    Attributes:
        width, height: luma size in pixels, each 1..16384, product at most 2**26.
        fps: frames per second, 1/1000..1000.
        chroma: "420", "444" or "rgb" (planes R, G, B).
        bit_depth: 8 or 10.
        matrix: "bt601" or "bt709"; range: "limited" or "full".
        frame_count: frames in the stream, 1..2**32-1; None when not known as the header was
            written (streaming).
        model: the model's name, 1..64 bytes of UTF-8, printable.
        weights_digest: 16 bytes that name the model's weights.
        quality: default quality index, 0..63; each frame packet carries its own.
        intra_period: frames from one I frame to the next; 0: only the first frame is one.
        digests: every frame packet carries a digest of its decoded planes.

    Raises:
        BitstreamError: a value is outside its limits.
    """

    width: int
    height: int
    fps: Fraction
    chroma: str
    bit_depth: int
    matrix: str
    range: str
    model: str
    weights_digest: bytes
    quality: int
    intra_period: int
    frame_count: int | None = None
    digests: bool = True

    def __post_init__(self) -> None:
        _within("width", self.width, 1, MAX_SIDE)
        _within("height", self.height, 1, MAX_SIDE)
        if self.width * self.height > MAX_PIXELS:
            raise BitstreamError(
                f"{self.width}x{self.height} is over the limit of {MAX_PIXELS} pixels a frame"
            )
        object.__setattr__(self, "fps", Fraction(self.fps))
        if not MIN_FPS <= self.fps <= MAX_FPS:
            raise BitstreamError(f"frame rate {self.fps} is outside 1/1000..1000 frames a second")
        if max(self.fps.numerator, self.fps.denominator) > MAX_FPS_TERM:
            raise BitstreamError(f"frame rate {self.fps} has a term over {MAX_FPS_TERM}")
        _one_of("chroma", self.chroma, CHROMAS)
        _one_of("bit depth", self.bit_depth, BIT_DEPTHS)
        _one_of("matrix", self.matrix, MATRICES)
        _one_of("range", self.range, RANGES)
        _within("quality", self.quality, 0, MAX_QUALITY)
        _within("intra period", self.intra_period, 0, MAX_INTRA_PERIOD)
        if self.frame_count is not None:
            _within("frame count", self.frame_count, 1, MAX_FRAMES)
        _check_model_name(self.model)
        if len(self.weights_digest) != WEIGHTS_DIGEST_BYTES:
            raise BitstreamError(
                f"weights digest has {len(self.weights_digest)} bytes, not {WEIGHTS_DIGEST_BYTES}"
            )

    def pack(self) -> bytes:
        """The header as it stands in the file, magic and checksum included.

        The length does not depend on ``frame_count``, so a writer that can seek may fill it in.
        """
        name = self.model.encode()
        body = b"".join(
            (
                bytes((FLAG_DIGESTS if self.digests else 0,)),
                bytes((CHROMAS.index(self.chroma), self.bit_depth)),
                bytes((MATRICES.index(self.matrix), RANGES.index(self.range))),
                bytes((self.quality,)),
                pack_varint(self.intra_period),
                pack_varint(self.width),
                pack_varint(self.height),
                pack_varint(self.fps.numerator),
                pack_varint(self.fps.denominator),
                struct.pack("<I", self.frame_count or 0),
                bytes((len(name),)),
                name,
                self.weights_digest,
            )
        )
        head = MAGIC + bytes((VERSION, len(body))) + body
        return head + struct.pack("<I", zlib.crc32(head))


def read_header(source: ByteSource) -> SequenceHeader:
    """Read magic, version and header from the start of a stream.

    Raises:
        BitstreamError: not a .lgmc stream, of another version, damaged or outside the limits.
    """
    magic = source.take_up_to(len(MAGIC))
    if not magic:
        raise BitstreamError("is empty; make a stream with `lgmc encode`")
    if magic != MAGIC[: len(magic)]:
        raise BitstreamError("is not a .lgmc stream; make one with `lgmc encode`")
    try:
        start = source.take(len(MAGIC) + 2 - len(magic))
        version, size = start[-2:]
        if version != VERSION:
            raise BitstreamError(
                f"is .lgmc version {version}, and this program reads version {VERSION}; "
                "decode it with the program that made it"
            )
        if size > MAX_BODY:
            raise BitstreamError("has a damaged sequence header (its length is impossible)")
        body = source.take(size)
        (checksum,) = struct.unpack("<I", source.take(4))
    except Truncated:
        raise BitstreamError(
            f"ends inside its sequence header, at byte {source.offset}; no frame can be decoded"
        ) from None
    if checksum != zlib.crc32(magic + start + body):
        raise BitstreamError(
            "has a damaged sequence header (its checksum does not match); fetch the file again"
        )
    return _parse_body(body)


def _parse_body(body: bytes) -> SequenceHeader:
    """Fields of a header whose checksum held; what is wrong now was written so."""
    source = ByteSource(io.BytesIO(body))
    try:
        flags, chroma, bit_depth, matrix, range_, quality = source.take(6)
        if flags & ~FLAG_DIGESTS:
            raise BitstreamError(f"unknown flags {flags:#04x}")
        intra_period = read_varint(source, MAX_INTRA_PERIOD)[0]
        width = read_varint(source, MAX_SIDE)[0]
        height = read_varint(source, MAX_SIDE)[0]
        numerator = read_varint(source, MAX_FPS_TERM)[0]
        denominator = read_varint(source, MAX_FPS_TERM)[0]
        if not denominator or Fraction(numerator, denominator).denominator != denominator:
            raise BitstreamError(f"frame rate {numerator}/{denominator} is not in lowest terms")
        (frame_count,) = struct.unpack("<I", source.take(4))
        name = source.take(source.take(1)[0])
        digest = source.take(WEIGHTS_DIGEST_BYTES)
        if source.take_up_to(1):
            raise BitstreamError("bytes left over")
        return SequenceHeader(
            width=width,
            height=height,
            fps=Fraction(numerator, denominator),
            chroma=_code("chroma", chroma, CHROMAS),
            bit_depth=bit_depth,
            matrix=_code("matrix", matrix, MATRICES),
            range=_code("range", range_, RANGES),
            model=name.decode(),
            weights_digest=digest,
            quality=quality,
            intra_period=intra_period,
            frame_count=frame_count or None,
            digests=bool(flags & FLAG_DIGESTS),
        )
    except (BitstreamError, UnicodeDecodeError) as exc:
        raise BitstreamError(f"has a sequence header outside the format: {exc}") from None


def _code(what: str, code: int, names: tuple[str, ...]) -> str:
    if code >= len(names):
        raise BitstreamError(f"{what} code {code} is not known")
    return names[code]


def _within(what: str, value: int, low: int, high: int) -> None:
    if not low <= value <= high:
        raise BitstreamError(f"{what} {value} is outside {low}..{high}")


def _one_of(what: str, value: object, allowed: tuple) -> None:
    if value not in allowed:
        raise BitstreamError(f"{what} {value!r} is none of {', '.join(map(str, allowed))}")


def _check_model_name(name: str) -> None:
    if not 1 <= len(name.encode()) <= MAX_MODEL_NAME:
        raise BitstreamError(f"model name {name!r} does not take 1..{MAX_MODEL_NAME} bytes")
    if not name.isprintable():
        raise BitstreamError(f"model name {name!r} has characters that do not print")
