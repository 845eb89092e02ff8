"""The anchors: x264 and x265 as the field's papers run them, through FFmpeg, to raw streams.

Fixed qp (crf depends on the frame rate), low delay, one intra frame every ``intra_period``, no
scene cuts, an explicit frame rate, raw .264 / .265 files whose bytes are the bits. Two things
differ from a bare command line, both in the anchor's favour and both measured in docs/protocol.md:
the text messages (SEI) in which x264 and x265 describe themselves are removed, and x264 runs one
thread per stream, since ``-tune zerolatency`` would cut every picture into as many slices as there
are cores. The cores are used by coding several points at once.
"""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter
from typing import IO

import numpy as np

from codec.errors import ConfigError, VideoError
from codec.video.format import Frame, VideoFormat
from eval.codec_under_test import Encoded
from eval.sequences import Sequence

MAX_QP = 51


@dataclass(frozen=True)
class AnchorKind:
    """One row of the table: an encoder and a preset.

    message_units: NAL unit types of the SEI messages, as FFmpeg's filter_units takes them.
    """

    name: str
    encoder: str
    preset: str
    container: str
    extension: str
    message_units: str

    def encoder_options(self, qp: int | str, intra_period: int) -> dict[str, str]:
        """FFmpeg's output options of one point, in order; intra period 0: only the first frame."""
        gop = f"keyint={intra_period}:min-keyint={intra_period}:scenecut=0"
        if intra_period == 0:
            endless = "infinite" if self.encoder == "libx264" else "-1"
            gop = f"keyint={endless}:scenecut=0"
        options = {"c:v": self.encoder, "preset": self.preset, "tune": "zerolatency"}
        if self.encoder == "libx264":
            options["qp"] = str(qp)
            options["x264-params"] = f"{gop}:threads=1"
        else:  # one worker thread: the same bits as with many, wavefronts included
            options["x265-params"] = f"qp={qp}:{gop}:pools=1:log-level=error"
        options["bsf:v"] = f"filter_units=remove_types={self.message_units}"
        options["f"] = self.container
        return options


def _x264(preset: str) -> AnchorKind:
    return AnchorKind(f"x264-{preset}", "libx264", preset, "h264", ".264", "6")


def _x265(preset: str) -> AnchorKind:
    return AnchorKind(f"x265-{preset}", "libx265", preset, "hevc", ".265", "39-40")


ANCHORS: dict[str, AnchorKind] = {
    kind.name: kind
    for kind in (_x264("medium"), _x264("veryslow"), _x265("medium"), _x265("veryslow"))
}
"""Every anchor by name."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "x264": ("x264-medium", "x264-veryslow"),
    "x265": ("x265-medium", "x265-veryslow"),
    "all": tuple(ANCHORS),
    "none": (),
}
"""Names that stand for several anchors: a bare encoder is both of its presets."""


def anchor_names(text: str) -> list[str]:
    """ "x264,x265-veryslow" -> the names of anchors in the order given, each once.

    Raises ConfigError for an unknown name.
    """
    names: list[str] = []
    for word in (part.strip() for part in text.split(",")):
        if word and word not in FAMILIES and word not in ANCHORS:
            known = ", ".join([*FAMILIES, *ANCHORS])
            raise ConfigError(f"there is no anchor {word!r}: choose from {known}")
        names.extend(FAMILIES.get(word, (word,) if word else ()))
    return list(dict.fromkeys(names))


class Anchor:
    """An anchor of ``ANCHORS`` at one intra period, as ``eval.codec_under_test`` asks for it."""

    parameter = "qp"

    def __init__(self, name: str, intra_period: int = 32, ffmpeg: str | Path | None = None) -> None:
        if name not in ANCHORS:
            raise ConfigError(f"there is no anchor {name!r}: choose from {', '.join(ANCHORS)}")
        if intra_period < 0:
            raise ConfigError(
                f"the intra period is 0 (first frame only) or more, not {intra_period}"
            )
        if ffmpeg is None:
            from codec.video.ffmpeg import find_ffmpeg

            ffmpeg = find_ffmpeg()
        self.kind = ANCHORS[name]
        self.name = name
        self.extension = self.kind.extension
        self.intra_period = intra_period
        self.ffmpeg = str(ffmpeg)
        self._running: set[subprocess.Popen] = set()
        self._aborted = False

    def abort(self) -> None:
        """End the FFmpegs that run for this anchor, from any thread; their calls then raise."""
        self._aborted = True
        for process in list(self._running):
            process.kill()

    def identity(self) -> dict[str, str]:
        """Name, FFmpeg's version and build, and the options as a template."""
        template = self.kind.encoder_options("QP", self.intra_period)
        options = " ".join(f"-{name} {value}" for name, value in template.items())
        return {"anchor": self.name, "ffmpeg": ffmpeg_version(self.ffmpeg), "options": options}

    def encode_arguments(self, video_format: VideoFormat, qp: int, target: Path) -> list[str]:
        """The whole command: raw planes of ``coded_format(video_format)`` from stdin to a file."""
        import ffmpeg

        source = ffmpeg.input("pipe:0", **_raw_input(coded_format(video_format)))
        options = self.kind.encoder_options(qp, self.intra_period)
        stream = source.output(str(target), **options).global_args(*_QUIET).overwrite_output()
        return stream.compile(cmd=self.ffmpeg)

    def decode_arguments(self, video_format: VideoFormat, source: Path) -> list[str]:
        """The whole command: the raw stream ``source`` to raw planes on stdout."""
        import ffmpeg

        coded = coded_format(video_format)
        stream = ffmpeg.input(str(source), f=self.kind.container, framerate=str(coded.fps))
        stream = stream.output("pipe:1", f="rawvideo", pix_fmt=coded.pix_fmt)
        return stream.global_args(*_QUIET).compile(cmd=self.ffmpeg)

    def encode(self, sequence: Sequence, level: int, target: Path) -> Encoded:
        """Write the raw stream of ``sequence`` at qp ``level`` (0..51) to ``target``.

        Raises ConfigError for a qp out of range, VideoError where FFmpeg fails or the stream does
        not have one picture per frame and its intra pictures at the intra period.
        """
        if not 0 <= level <= MAX_QP:
            raise ConfigError(f"a qp is 0..{MAX_QP}, not {level}")
        arguments = self.encode_arguments(sequence.format, level, target)
        start = perf_counter()
        with sequence.open() as reader:
            frames = _as_coded(reader, sequence.format)
            self._feed(arguments, frames, f"{self.name} at qp {level}")
        seconds = perf_counter() - start
        frame_bytes, frame_types = _pictures(target)
        period = self.intra_period or sequence.frames
        expected = ["P" if i % period else "I" for i in range(sequence.frames)]
        if frame_types != expected:
            raise VideoError(
                f"{self.name} at qp {level} wrote {len(frame_types)} pictures, intra ones at "
                f"{[i for i, kind in enumerate(frame_types) if kind == 'I']}, for "
                f"{sequence.frames} frames and intra period {self.intra_period}: this FFmpeg "
                "cannot be used as an anchor"
            )
        # result files travel: they name the programs and files, not where this machine keeps them
        words = ["ffmpeg", *(target.name if w == str(target) else w for w in arguments[1:])]
        return Encoded(seconds, None, words, frame_bytes, frame_types)

    def decode(self, source: Path, sequence: Sequence) -> Iterator[Frame]:
        """The decoded frames in the format of ``sequence``; VideoError where FFmpeg fails."""
        coded = coded_format(sequence.format)
        arguments = self.decode_arguments(sequence.format, source)
        for frame in self._raw_frames(arguments, coded, f"decoding {self.name}"):
            yield _from_coded(frame, sequence.format)

    def _feed(self, arguments: list[str], frames: Iterable[Frame], what: str) -> None:
        """Run FFmpeg with the frames' planes on its stdin. Raises VideoError with its own words."""
        with self._ffmpeg(arguments, stdin=subprocess.PIPE) as (process, messages):
            try:
                for frame in frames:
                    for plane in frame:
                        process.stdin.write(np.ascontiguousarray(plane).data)
                process.stdin.close()
            except BrokenPipeError:
                pass  # it stopped early: its exit status and messages say why
            if process.wait() != 0:
                raise VideoError(f"{what} failed: {_reason(messages)}")

    def _raw_frames(self, arguments: list[str], coded: VideoFormat, what: str) -> Iterator[Frame]:
        """Run FFmpeg and cut its stdout into frames. Raises VideoError with its own words."""
        with self._ffmpeg(arguments, stdout=subprocess.PIPE) as (process, messages):
            while data := process.stdout.read(coded.frame_bytes):
                if len(data) != coded.frame_bytes:
                    process.wait()
                    raise VideoError(f"{what} stopped inside a frame: {_reason(messages)}")
                yield _planes(data, coded)
            if process.wait() != 0:
                raise VideoError(f"{what} failed: {_reason(messages)}")

    @contextmanager
    def _ffmpeg(
        self, arguments: list[str], **pipes: int
    ) -> Iterator[tuple[subprocess.Popen, IO[bytes]]]:
        """A running FFmpeg and the file of its messages; no process is left behind."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes}
        with tempfile.TemporaryFile() as messages:
            if self._aborted:
                raise VideoError(f"{self.name} was stopped: run the command again to go on")
            try:
                process = subprocess.Popen(arguments, bufsize=1 << 20, stderr=messages, **streams)
            except OSError as exc:
                where = f"{arguments[0]} does not start"
                raise VideoError(f"{where}: install FFmpeg or set $FFMPEG") from exc
            self._running.add(process)
            try:
                yield process, messages
            finally:
                _stop(process)
                self._running.discard(process)


_QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")


@functools.cache
def ffmpeg_version(executable: str) -> str:
    """The version word of an FFmpeg, e.g. "n9.0.2-17-g2a571b6068-20260930".

    Raises VideoError where it does not run.
    """
    try:
        done = subprocess.run(
            [executable, "-hide_banner", "-version"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError) as exc:
        raise VideoError(f"{executable} does not run: install FFmpeg or set $FFMPEG") from exc
    words = done.stdout.split()
    return words[2] if words[:2] == ["ffmpeg", "version"] else "unknown"


def coded_format(video_format: VideoFormat) -> VideoFormat:
    """What an anchor is given for a video of this format.

    Y'CbCr as it is, but 4:2:0 of odd size padded to even (both encoders refuse it), and RGB as
    4:4:4 BT.709 limited range of the same depth, through codec.video.colour both ways.
    """
    if video_format.chroma == "rgb":
        return replace(video_format, chroma="444", matrix="bt709", range="limited")
    if video_format.chroma == "420":
        width, height = (side + side % 2 for side in (video_format.width, video_format.height))
        return replace(video_format, width=width, height=height)
    return video_format


def _as_coded(frames: Iterable[Frame], video_format: VideoFormat) -> Iterator[Frame]:
    coded = coded_format(video_format)
    for frame in frames:
        if video_format.chroma == "rgb":
            from codec.video.colour import convert_frame

            yield convert_frame(frame, video_format, coded)
        elif coded != video_format:
            y, u, v = frame  # chroma is rounded up already, only luma lacks a row or column
            pad = ((0, coded.height - y.shape[0]), (0, coded.width - y.shape[1]))
            yield np.pad(y, pad, mode="edge"), u, v
        else:
            yield frame


def _from_coded(frame: Frame, video_format: VideoFormat) -> Frame:
    if video_format.chroma == "rgb":
        from codec.video.colour import convert_frame

        return convert_frame(frame, coded_format(video_format), video_format)
    y, u, v = frame
    return np.ascontiguousarray(y[: video_format.height, : video_format.width]), u, v


def _raw_input(coded: VideoFormat) -> dict[str, str]:
    size = f"{coded.width}x{coded.height}"
    rate = str(coded.fps)
    return {"f": "rawvideo", "pix_fmt": coded.pix_fmt, "s": size, "framerate": rate}


def _planes(data: bytes, coded: VideoFormat) -> Frame:
    samples = np.frombuffer(data, dtype=coded.dtype)
    planes, start = [], 0
    for height, width in coded.plane_shapes():
        planes.append(samples[start : start + height * width].reshape(height, width))
        start += height * width
    return tuple(planes)


def _pictures(path: Path) -> tuple[list[int], list[str]]:
    """Bytes and types ("I" or "P") of the pictures of a raw stream, in coding order."""
    import av

    try:
        with av.open(str(path)) as container:
            packets = [(p.size, p.is_keyframe) for p in container.demux(video=0) if p.size]
    except (av.FFmpegError, OSError) as exc:
        raise VideoError(f"the stream {path.name} cannot be read back: {exc}") from exc
    return [size for size, _ in packets], ["I" if key else "P" for _, key in packets]


def _stop(process: subprocess.Popen) -> None:
    """Close the pipes and leave no process behind, whatever happened."""
    if process.poll() is None:
        process.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                pass
    process.wait()


def _reason(messages: IO[bytes]) -> str:
    """FFmpeg's first complaint: the first is the cause, the rest are its consequences."""
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    first = next((line for line in lines if line.strip()), "FFmpeg gave no reason")
    return re.sub(r"^\[[^]]*\]\s*", "", first.strip())
