"""An encoder of FFmpeg's as an anchor: raw planes in, a raw stream out, checked and decoded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

from codec.errors import ConfigError, VideoError
from codec.video.format import Frame, VideoFormat
from eval.anchors.pictures import Pictures, read_pictures
from eval.anchors.pixels import as_coded, coded_format, from_coded, raw_input
from eval.anchors.program import QUIET, Runner, ffmpeg_has, ffmpeg_version
from eval.anchors.table import ANCHORS
from eval.codec_under_test import DecodeNotes, Encoded
from eval.sequences import Sequence


class Anchor:
    """An anchor of ``ANCHORS`` at one intra period, as ``eval.codec_under_test`` asks for it."""

    parameter = "qp"

    def __init__(self, name: str, intra_period: int = 32, ffmpeg: str | Path | None = None) -> None:
        if name not in ANCHORS:
            raise ConfigError(f"there is no anchor {name!r}: choose from {', '.join(ANCHORS)}")
        check_intra_period(intra_period)
        self.kind = ANCHORS[name]
        self.name = name
        self.extension = self.kind.extension
        self.delay = 0 if self.kind.low_delay else None
        self.intra_period = intra_period
        self._given = ffmpeg
        self.ffmpeg = found_ffmpeg(ffmpeg)
        self._runner = Runner(name)

    @property
    def is_av1(self) -> bool:
        """Whether its levels are quantizers of AV1."""
        return self.kind.is_av1

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.intra_period, self._given)

    def abort(self) -> None:
        """End the FFmpegs that run for this anchor, from any thread; their calls then raise."""
        self._runner.abort()

    def identity(self) -> dict[str, str]:
        """Name, FFmpeg's version and build, and the options as a template."""
        template = self.kind.command("QP", self.intra_period)
        version = ffmpeg_version(self.ffmpeg)
        return {"anchor": self.name, "ffmpeg": version, "options": template}

    def coded_format(self, video_format: VideoFormat) -> VideoFormat:
        """What the encoder is given. Raises ConfigError for chroma that it does not code."""
        return coded_format(video_format, self.kind.coded_depth(video_format))

    def encode_arguments(self, video_format: VideoFormat, qp: int, target: Path) -> list[str]:
        """The whole command: raw planes of ``coded_format(video_format)`` from stdin to a file."""
        import ffmpeg

        coded = self.coded_format(video_format)
        source = ffmpeg.input("pipe:0", **raw_input(coded))
        qp = self.kind.coded_qp(qp, coded.bit_depth)
        options = self.kind.encoder_options(qp, self.intra_period)
        stream = source.output(str(target), **options).global_args(*QUIET).overwrite_output()
        return stream.compile(cmd=self.ffmpeg)

    def decode_arguments(self, video_format: VideoFormat, source: Path) -> list[str]:
        """The whole command: the raw stream ``source`` to raw planes on stdout."""
        coded = self.coded_format(video_format)
        return raw_decoding(self.ffmpeg, self.kind.container, coded, source)

    def encode(self, sequence: Sequence, level: int, target: Path) -> Encoded:
        """Write the raw stream of ``sequence`` at qp ``level`` to ``target``.

        level: 0..51, 0..63 for AV1 and VVC, 1..63 for SVT-AV1. Raises ConfigError for one out of
        range, VideoError where this FFmpeg lacks the encoder or fails, or the stream does not have
        one picture per frame, its intra pictures at the intra period and, with low delay, no
        picture reordered.
        """
        self.kind.check_qp(level)
        arguments = self.encode_arguments(sequence.format, level, target)
        if Path(self.ffmpeg).exists() and not ffmpeg_has(self.ffmpeg, "encoder", self.kind.encoder):
            raise VideoError(
                f"this FFmpeg ({ffmpeg_version(self.ffmpeg)}) has no encoder {self.kind.encoder}: "
                f"leave {self.name} out, or set $FFMPEG to one that has it"
            )
        what = f"{self.name} at qp {level}"
        start = perf_counter()
        with sequence.open() as reader:
            frames = as_coded(reader, sequence.format, self.coded_format(sequence.format))
            peak = self._runner.feed(arguments, frames, what)
        seconds = perf_counter() - start
        pictures = read_pictures(target)
        check_pictures(pictures, sequence.frames, self.intra_period, self.kind.low_delay, what)
        # result files travel: they name the programs and files, not where this machine keeps them
        words = ["ffmpeg", *(target.name if w == str(target) else w for w in arguments[1:])]
        return Encoded(seconds, None, words, pictures.bytes, pictures.types, peak)

    def decode(
        self, source: Path, sequence: Sequence, notes: DecodeNotes | None = None
    ) -> Iterator[Frame]:
        """The decoded frames in the format of ``sequence``; VideoError where FFmpeg fails."""
        coded = self.coded_format(sequence.format)
        arguments = self.decode_arguments(sequence.format, source)
        what = f"decoding {self.name}"
        for frame in self._runner.raw_frames(arguments, coded, what, notes):
            yield from_coded(frame, sequence.format, coded)


def found_ffmpeg(ffmpeg: str | Path | None) -> str:
    """The program given, or the one that ``codec.video.ffmpeg`` finds."""
    if ffmpeg is None:
        from codec.video.ffmpeg import find_ffmpeg

        ffmpeg = find_ffmpeg()
    return str(ffmpeg)


def raw_decoding(ffmpeg: str, container: str, coded: VideoFormat, source: Path) -> list[str]:
    """FFmpeg's command from a raw stream to raw planes of ``coded`` on stdout.

    The frame rate is that of the video: a raw stream need not say one, and none may be made up.
    """
    import ffmpeg as builder

    # a stream of AV1 is given no rate: its demuxer counts temporal units, one a frame
    rate = {} if container == "obu" else {"framerate": str(coded.fps)}
    stream = builder.input(str(source), f=container, **rate)
    options = {"f": "rawvideo", "pix_fmt": coded.pix_fmt, "fps_mode": "passthrough"}
    return stream.output("pipe:1", **options).global_args(*QUIET).compile(cmd=ffmpeg)


def check_intra_period(intra_period: int) -> None:
    """Raise ConfigError unless it is 0 (first frame only) or more."""
    if intra_period < 0:
        raise ConfigError(f"the intra period is 0 (first frame only) or more, not {intra_period}")


def check_pictures(
    pictures: Pictures, frames: int, intra_period: int, low_delay: bool, what: str
) -> None:
    """Raise VideoError unless a stream is what was asked for: pictures, intra ones, order."""
    period = intra_period or frames
    expected = ["P" if i % period else "I" for i in range(frames)]
    if pictures.types != expected:
        raise VideoError(
            f"{what} wrote {len(pictures.types)} pictures, intra ones at "
            f"{[i for i, kind in enumerate(pictures.types) if kind == 'I']}, for "
            f"{frames} frames and intra period {intra_period}: this FFmpeg "
            "cannot be used as an anchor"
        )
    if low_delay and pictures.reordered:
        raise VideoError(
            f"{what} coded pictures in another order than they are shown: it is not of low delay"
        )
