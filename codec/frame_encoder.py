"""The frames of a video one by one: at the video's quality, or at what a rate control chooses."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from torch import Tensor

from codec.bitstream.container import END_PACKET_BYTES
from codec.bitstream.header import SequenceHeader
from codec.bitstream.packets import frame_packet_bytes
from codec.effort import NO_EFFORT, Effort
from codec.rate import CodedFrame, FrameOrder, Outcome, RateController, RateTarget
from codec.video.colour import frame_to_rgb
from codec.video.format import Frame, VideoFormat
from codec.video_codec import Following, FrameCoder, VideoCodec

RANS_END_BYTES = 8
"""Of every frame's stream: rANS's end state."""


@dataclass(frozen=True)
class EncodedFrame:
    """One frame, coded.

    Attributes:
        intra: whether it is an I frame.
        quality: its own quality index, 0..63.
        stream: its rANS stream.
        picture: what a decoder will show, [1, 3, H, W] in [0, 1].
    """

    intra: bool
    quality: int
    stream: bytes
    picture: Tensor


class FrameEncoder:
    """Codes the frames of one video in their order.

    Args:
        codec: with tables built.
        header: of the stream: the video's format, quality and intra period.
        effort: what it tries for each frame.

    Attributes:
        seconds: spent in the network and the entropy coder so far.
    """

    def __init__(self, codec: VideoCodec, header: SequenceHeader, effort: Effort = NO_EFFORT):
        self.seconds = 0.0
        self._header = header
        self._form = VideoFormat(
            header.width,
            header.height,
            header.fps,
            header.chroma,
            header.bit_depth,
            header.matrix,
            header.range,
        )
        # Where no frame refers to another, none is better than the others for their sake.
        levels = _alike if header.intra_period == 1 else codec.frame_quality
        self._order = FrameOrder(header.intra_period, len(codec.config.pattern.inter), levels)
        self._coder = FrameCoder(codec, header.height, header.width, effort)
        self._first_pass: list[CodedFrame] = []
        self._control: RateController | None = None

    def encode(self, number: int, frame: Frame, following: Frame | None) -> EncodedFrame:
        """Code frame ``number``, which is the next one; under control as often as that wants.

        following: the frame after it, see :meth:`followed`.
        """
        if self._control is None:
            return self._code(number, frame, following, self._header.quality)
        before = self._coder.state
        level = self._control.quality_for(number)
        base = self._control.base
        while True:
            coded = self._code(number, frame, following, base, level)
            lower = self._control.coded(number, level, self._packet_bits(coded.stream))
            if lower is None:
                return coded
            self._coder.state, level = before, lower

    def followed(self, frames: Iterable[Frame]) -> Iterator[tuple[Frame, Frame | None]]:
        """Each frame and, where the effort looks ahead, the one after it; None after the last.

        Without such an effort no frame is read before the one that it follows is coded.
        """
        if not self._coder.effort.ahead:
            yield from ((frame, None) for frame in frames)
            return
        held = None
        for frame in frames:
            if held is not None:
                yield held, frame
            held = frame
        if held is not None:
            yield held, None

    def first_pass(self, frames: Iterable[Frame]) -> None:
        """Code the whole video at its quality, only to learn what its frames take."""
        self._first_pass = self._constant(frames)

    def control(
        self, rate: RateTarget, frames: Iterable[Frame], count: int | None
    ) -> Iterator[Frame]:
        """Let a rate control choose the qualities from now on.

        Args:
            frames: of the video; after a first pass, the same ones again.
            count: how many, None where that is not known.

        Returns:
            ``frames``. Where an average is asked for without a first pass, the first ones were
            coded for trial at the video's quality, and wait in memory.
        """
        order, header = self._order, self._header
        self._control = RateController(
            rate,
            order,
            fps=float(header.fps),
            pixels=header.width * header.height,
            quality=header.quality,
            frames=len(self._first_pass) or count,
            fixed=self._packet_bits(bytes(RANS_END_BYTES)),
            overhead=8 * (len(header.pack()) + END_PACKET_BYTES),
            first_pass=self._first_pass,
        )
        following = iter(frames)
        if self._first_pass or rate.bitrate is None:
            return following
        # One more is what the last of them is followed by, where that matters.
        more = order.kinds + bool(self._coder.effort.ahead)
        tried = list(islice(following, more))
        for number, coded in enumerate(self._constant(tried)[: order.kinds]):
            self._control.learn(number, coded.level, coded.bits)
        return chain(tried, following)

    def outcome(self, bits: int) -> Outcome | None:
        """What came of the rate control in a file of so many bits; None without one."""
        return None if self._control is None else self._control.outcome(bits)

    def _constant(self, frames: Iterable[Frame]) -> list[CodedFrame]:
        """What frames from the start on take at the video's quality; nothing stays of them."""
        found = []
        for number, (frame, following) in enumerate(self.followed(frames)):
            coded = self._code(number, frame, following, self._header.quality)
            found.append(CodedFrame(coded.quality, self._packet_bits(coded.stream)))
        self._coder.state = None
        return found

    def _code(
        self,
        number: int,
        frame: Frame,
        following: Frame | None,
        base: int,
        level: int | None = None,
    ) -> EncodedFrame:
        """``base``: the video's quality; ``level``: the frame's, if it is not what follows."""
        if level is None:
            level = self._level(base, number)
        intra = self._is_intra(number)
        rgb = self._rgb(frame)
        after = None
        if following is not None and not self._is_intra(number + 1):
            after = Following(self._rgb(following), self._level(base, number + 1))
        begun = time.perf_counter()
        stream, picture = self._coder.encode(rgb, intra, level, after)
        self.seconds += time.perf_counter() - begun
        return EncodedFrame(intra, level, stream, picture)

    def _is_intra(self, number: int) -> bool:
        return self._order.since_intra(number) == 0

    def _level(self, base: int, number: int) -> int:
        """The quality index of a frame of a video of index ``base``."""
        return self._order.levels(base, self._order.since_intra(number))

    def _rgb(self, frame: Frame) -> Tensor:
        return frame_to_rgb(frame, self._form, self._coder.codec.device).clamp(0, 1)

    def _packet_bits(self, stream: bytes) -> int:
        return 8 * frame_packet_bytes(len(stream), digests=self._header.digests)


def _alike(base: int, _: int) -> int:
    """The level of every frame, where all are alike."""
    return base
