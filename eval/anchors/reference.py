"""HM and VTM, the reference software of HEVC and VVC, where the user has built them.

They are named by environment variables and not by a search: $HM_ENCODER and $VTM_ENCODER are the
encoder's executable, $HM_CFG and $VTM_CFG the folder with the configurations that come with it.
Their streams are ordinary ones and are decoded by FFmpeg like those of the other anchors.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from codec.errors import ConfigError, VideoError
from codec.video.format import Frame, VideoFormat
from eval.anchors.anchor import check_intra_period, check_pictures, found_ffmpeg, raw_decoding
from eval.anchors.pictures import read_pictures
from eval.anchors.pixels import as_coded, coded_format, from_coded
from eval.anchors.program import Runner, ffmpeg_version
from eval.codec_under_test import DecodeNotes, Encoded
from eval.sequences import Sequence


@dataclass(frozen=True)
class ReferenceKind:
    """A reference encoder and one of the configurations that come with it.

    program: "HM" or "VTM", the start of the environment variables' names.
    """

    name: str
    program: str
    configuration: str
    extension: str
    container: str
    low_delay: bool
    max_qp: int


REFERENCES: dict[str, ReferenceKind] = {
    kind.name: kind
    for kind in (
        ReferenceKind("hm-ld", "HM", "encoder_lowdelay_main10.cfg", ".265", "hevc", True, 51),
        ReferenceKind("hm-ra", "HM", "encoder_randomaccess_main10.cfg", ".265", "hevc", False, 51),
        ReferenceKind("vtm-ld", "VTM", "encoder_lowdelay_vtm.cfg", ".266", "vvc", True, 63),
        ReferenceKind("vtm-ra", "VTM", "encoder_randomaccess_vtm.cfg", ".266", "vvc", False, 63),
    )
}
"""The reference encoders by name."""


class ReferenceAnchor:
    """HM or VTM at one intra period, as ``eval.codec_under_test`` asks for it.

    All video is coded at 10 bit: 8-bit planes are multiplied by 4 and what is decoded is rounded
    back, as it is for VVenC.
    """

    parameter = "qp"
    is_av1 = False

    def __init__(self, name: str, intra_period: int = 32, ffmpeg: str | Path | None = None) -> None:
        if name not in REFERENCES:
            raise ConfigError(f"there is no anchor {name!r}: choose from {', '.join(REFERENCES)}")
        check_intra_period(intra_period)
        self.kind = REFERENCES[name]
        self.name = name
        self.extension = self.kind.extension
        self.delay = 0 if self.kind.low_delay else None
        self.intra_period = intra_period
        self._given = ffmpeg
        self.ffmpeg = found_ffmpeg(ffmpeg)
        self._runner = Runner(name, f"set ${self.kind.program}_ENCODER to the encoder's executable")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.name, self.intra_period, self._given)

    def abort(self) -> None:
        """End the programs that run for this anchor, from any thread; their calls then raise."""
        self._runner.abort()

    def identity(self) -> dict[str, str]:
        """Name, digests of the executable and its configuration, the settings on top of it."""
        parts = {"anchor": self.name, "ffmpeg": ffmpeg_version(self.ffmpeg)}
        parts["options"] = f"-c {self.kind.configuration} {self._settings('QP')}"
        for part, path in (("executable", self._executable()), ("cfg", self._configuration())):
            found = path is not None and path.is_file()
            parts[part] = hashlib.sha256(path.read_bytes()).hexdigest() if found else "none"
        return parts

    def encode_arguments(
        self, video_format: VideoFormat, qp: int, source: Path, target: Path, frames: int
    ) -> list[str]:
        """The whole command, from a file of raw planes of ``frames`` frames to a stream.

        Raises VideoError where the environment names no executable or no configuration.
        """
        program, kind = self.kind.program, self.kind
        executable, configuration = self._executable(), self._configuration()
        if executable is None:
            raise VideoError(
                f"{self.name} needs the reference encoder: set ${program}_ENCODER to its "
                f"executable and ${program}_CFG to the folder of its configurations"
            )
        if configuration is None or not configuration.is_file():
            raise VideoError(
                f"{self.name} needs {kind.configuration}: set ${program}_CFG to the folder that "
                "holds it"
            )
        coded = coded_format(video_format, 10)
        words = f"{self._settings(qp)} --InputChromaFormat={coded.chroma}"
        words += f" --ChromaFormatIDC={coded.chroma} --SourceWidth={coded.width}"
        words += f" --SourceHeight={coded.height} --FrameRate={round(coded.fps)}"
        words += f" --FramesToBeEncoded={frames}"
        ends = [f"--InputFile={source}", f"--BitstreamFile={target}"]
        return [str(executable), "-c", str(configuration), *words.split(), *ends]

    def _settings(self, qp: int | str) -> str:
        period = self.intra_period or -1  # -1: only the first
        # as the papers have them; refresh type 2: every intra frame is an IDR
        return (
            f"--QP={qp} --IntraPeriod={period} --DecodingRefreshType=2 --Level=6.2 "
            "--InputBitDepth=10 --InternalBitDepth=10 --ConformanceWindowMode=1 "
            "--SEIDecodedPictureHash=0"
        )

    def encode(self, sequence: Sequence, level: int, target: Path) -> Encoded:
        """Write the stream of ``sequence`` at qp ``level`` to ``target``.

        Raises ConfigError for a qp out of range, VideoError where the encoder is not there or
        fails, or the stream is not what was asked for.
        """
        if not 0 <= level <= self.kind.max_qp:
            raise ConfigError(f"a qp is 0..{self.kind.max_qp}, not {level}")
        what = f"{self.name} at qp {level}"
        coded = coded_format(sequence.format, 10)
        with tempfile.TemporaryDirectory(prefix="lgmc-reference-") as folder:
            source = Path(folder) / "input.yuv"
            arguments = self.encode_arguments(
                sequence.format, level, source, target, sequence.frames
            )
            start = perf_counter()
            with sequence.open() as reader, source.open("wb") as file:
                for frame in as_coded(reader, sequence.format, coded):
                    for plane in frame:
                        file.write(np.ascontiguousarray(plane).data)
            peak = self._runner.feed(arguments, (), what)
            seconds = perf_counter() - start
        if not target.is_file():
            raise VideoError(f"{what} wrote no stream: look at what the encoder says")
        pictures = read_pictures(target)
        check_pictures(pictures, sequence.frames, self.intra_period, self.kind.low_delay, what)
        words = [Path(arguments[0]).name]
        words += ["-c", self.kind.configuration, *arguments[3:-2]]
        words += ["--InputFile=input.yuv", f"--BitstreamFile={target.name}"]
        return Encoded(seconds, None, words, pictures.bytes, pictures.types, peak)

    def decode(
        self, source: Path, sequence: Sequence, notes: DecodeNotes | None = None
    ) -> Iterator[Frame]:
        """The decoded frames in the format of ``sequence``; VideoError where FFmpeg fails."""
        coded = coded_format(sequence.format, 10)
        arguments = raw_decoding(self.ffmpeg, self.kind.container, coded, source)
        what = f"decoding {self.name}"
        for frame in self._runner.raw_frames(arguments, coded, what, notes):
            yield from_coded(frame, sequence.format, coded)

    def _executable(self) -> Path | None:
        named = os.environ.get(f"{self.kind.program}_ENCODER")
        found = shutil.which(named) if named else None
        return Path(found) if found else None

    def _configuration(self) -> Path | None:
        folder = os.environ.get(f"{self.kind.program}_CFG")
        return Path(folder) / self.kind.configuration if folder else None
