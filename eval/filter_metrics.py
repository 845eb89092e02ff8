"""VMAF and XPSNR: what FFmpeg's filters of that name say of the same planes, frame by frame.

Both pictures of a pair go to one FFmpeg, the decoded one above the original in one raw picture, and
are cut apart there: nothing is stored, and no two streams can slip against each other.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np

from codec.errors import ConfigError, VideoError
from codec.video.format import Frame, VideoFormat
from eval.anchors.pixels import as_coded, coded_format
from eval.anchors.program import QUIET, ffmpeg_has, reason
from eval.metrics import PSNR_CAP

FILTERS = {"vmaf": "libvmaf", "xpsnr": "xpsnr"}
"""FFmpeg's filters by the name that --metrics takes."""

GIVES = {"vmaf": ("vmaf",), "xpsnr": ("xpsnr_y", "xpsnr_u", "xpsnr_v")}
"""The metrics that each of them gives."""

VMAF_MODEL = "vmaf_v0.6.1"

XPSNR_MIN_PIXELS = 2026
"""Pictures of fewer luma pixels make FFmpeg's filter divide by zero."""


def check_filters(names: tuple[str, ...], ffmpeg: str) -> None:
    """Raise ConfigError for an unknown name and for one that this FFmpeg was built without."""
    for name in names:
        if name not in FILTERS:
            known = ", ".join(FILTERS)
            raise ConfigError(f"there is no metric {name!r} to ask for: choose from {known}")
        if not ffmpeg_has(ffmpeg, "filter", FILTERS[name]):
            raise ConfigError(
                f"this FFmpeg has no filter {FILTERS[name]}: leave {name} out of the metrics, or "
                "set $FFMPEG to one that has it"
            )


class FilterMetrics:
    """The filters ``names`` over the pairs of pictures of one sequence; use in a with statement.

    RGB is given as 4:4:4 BT.709, odd 4:2:0 padded to even by its last row and column, as for the
    anchors. VMAF: model vmaf_v0.6.1, of luma. XPSNR weighs by the original's activity.
    """

    def __init__(self, names: tuple[str, ...], video_format: VideoFormat, ffmpeg: str) -> None:
        check_filters(names, ffmpeg)
        self.names = names
        self.format = video_format
        self.coded = coded_format(video_format)
        self._ffmpeg = os.path.abspath(ffmpeg)  # it runs in another folder
        self._count = 0

    def __enter__(self) -> FilterMetrics:
        self._folder = tempfile.TemporaryDirectory(prefix="lgmc-metrics-")
        self._messages = tempfile.TemporaryFile()
        self._process = None
        if self._active():
            self._process = subprocess.Popen(
                self.arguments(),
                cwd=self._folder.name,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=self._messages,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            try:
                self._process.stdin.close()
            except BrokenPipeError:
                pass
            self._process.wait()
        self._messages.close()
        self._folder.cleanup()

    def arguments(self) -> list[str]:
        """FFmpeg's whole command; its logs go to the folder that it runs in."""
        coded = self.coded
        size = f"{coded.width}x{2 * coded.height}"
        cut = f"crop={coded.width}:{coded.height}:0"
        names = self._active()
        count = 2 * len(names)
        graph = f"[0:v]split={count}" + "".join(f"[s{i}]" for i in range(count))
        for i, name in enumerate(names):
            graph += f";[s{2 * i}]{cut}:0[d{i}];[s{2 * i + 1}]{cut}:{coded.height}[r{i}]"
            if name == "vmaf":
                options = f"log_fmt=json:log_path=vmaf.json:n_threads=1:model=version={VMAF_MODEL}"
                graph += f";[d{i}][r{i}]libvmaf={options}[o{i}]"
            else:  # this one weighs by the activity of its first input, whatever that is called
                graph += f";[r{i}][d{i}]xpsnr=stats_file=xpsnr.log[o{i}]"
        source = ["-f", "rawvideo", "-pix_fmt", coded.pix_fmt, "-s", size]
        source += ["-framerate", str(coded.fps), "-i", "pipe:0"]
        ends = [word for i in range(len(names)) for word in ("-map", f"[o{i}]")]
        return [self._ffmpeg, *QUIET, *source, "-filter_complex", graph, *ends, "-f", "null", "-"]

    def add(self, original: Frame, decoded: Frame) -> None:
        """The next pair of pictures. Raises VideoError where FFmpeg has given up."""
        self._count += 1
        if self._process is None:
            return
        pair = list(as_coded([decoded, original], self.format, self.coded))
        try:
            for above, below in zip(*pair, strict=True):
                for plane in (above, below):
                    self._process.stdin.write(np.ascontiguousarray(plane).data)
        except BrokenPipeError:
            self._fail()

    def values(self) -> dict[str, list[float | None]]:
        """Every metric per frame; None for all frames where one does not apply to this video.

        XPSNR of identical pictures counts as ``PSNR_CAP``. Raises VideoError where FFmpeg failed or
        did not measure every frame.
        """
        metrics = [metric for name in self.names for metric in GIVES[name]]
        found: dict[str, list[float | None]] = {one: [None] * self._count for one in metrics}
        if self._process is None:
            return found
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        if self._process.wait() != 0:
            self._fail()
        folder = Path(self._folder.name)
        for name in self._active():
            read = read_vmaf if name == "vmaf" else read_xpsnr
            file = folder / ("vmaf.json" if name == "vmaf" else "xpsnr.log")
            if not file.is_file():
                self._fail()
            found.update(read(file.read_text(encoding="utf-8")))
        if any(len(values) != self._count for values in found.values()):
            raise VideoError(f"FFmpeg did not measure all {self._count} frames: measure again")
        return found

    def _active(self) -> list[str]:
        pixels = self.coded.width * self.coded.height
        return [name for name in self.names if name != "xpsnr" or pixels >= XPSNR_MIN_PIXELS]

    def _fail(self) -> None:
        self._process.wait()
        raise VideoError(f"measuring {', '.join(self.names)} failed: {reason(self._messages)}")


def read_vmaf(text: str) -> dict[str, list[float | None]]:
    """VMAF per frame, 0..100, from libvmaf's JSON log."""
    frames = sorted(json.loads(text)["frames"], key=lambda frame: frame["frameNum"])
    return {"vmaf": [float(frame["metrics"]["vmaf"]) for frame in frames]}


def read_xpsnr(text: str) -> dict[str, list[float | None]]:
    """XPSNR per frame and plane in dB, at most ``PSNR_CAP``, from the filter's log.

    None where that says NaN.
    """
    rows = re.findall(r"^n: .*XPSNR y: (\S+) .*XPSNR u: (\S+) .*XPSNR v: (\S+)$", text, re.M)
    columns = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        name: [_capped(float(value)) for value in column]
        for name, column in zip(GIVES["xpsnr"], columns, strict=True)
    }


def _capped(value: float) -> float | None:
    return None if math.isnan(value) else min(PSNR_CAP, value)
