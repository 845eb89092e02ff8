"""Running encoders and decoders: frames through pipes, complaints in a line, no process left."""

from __future__ import annotations

import functools
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np

from codec.errors import VideoError
from codec.video.format import Frame, VideoFormat
from eval.anchors.pixels import planes_of
from eval.codec_under_test import DecodeNotes
from eval.conditions import peak_memory_mib

QUIET = ("-hide_banner", "-nostdin", "-loglevel", "error")
"""FFmpeg says nothing but errors."""


class Runner:
    """The processes of one anchor; may be used from several threads.

    name: of the anchor, for messages. hint: what to do where a program does not start.
    """

    def __init__(self, name: str, hint: str = "install FFmpeg or set $FFMPEG") -> None:
        self.name = name
        self.hint = hint
        self._running: set[subprocess.Popen] = set()
        self._aborted = False

    def abort(self) -> None:
        """End what runs, from any thread; the calls that wait for it then raise VideoError."""
        self._aborted = True
        for process in list(self._running):
            process.kill()

    def feed(self, arguments: list[str], frames: Iterable[Frame], what: str) -> float | None:
        """Run a program with the frames' planes on its stdin; peak of its memory in MiB, or None.

        The peak is looked up until the program ends, so what its last 50 ms add is not in it.
        Raises VideoError with the program's own words where it fails.
        """
        peaks = []
        with self._process(arguments, stdin=subprocess.PIPE) as (process, messages):
            try:
                for frame in frames:
                    for plane in frame:
                        process.stdin.write(np.ascontiguousarray(plane).data)
                peaks.append(peak_memory_mib(process.pid))
                process.stdin.close()
            except BrokenPipeError:
                pass  # it stopped early: its exit status and messages say why
            while process.poll() is None:
                peaks.append(peak_memory_mib(process.pid))
                try:
                    process.wait(0.05)
                except subprocess.TimeoutExpired:
                    continue
            if process.returncode != 0:
                raise VideoError(f"{what} failed: {reason(messages)}")
        return max((peak for peak in peaks if peak), default=None)

    def raw_frames(
        self,
        arguments: list[str],
        coded: VideoFormat,
        what: str,
        notes: DecodeNotes | None = None,
    ) -> Iterator[Frame]:
        """Run a program and cut its stdout into frames of ``coded``.

        notes: gets the peak of its memory, looked up with every frame.

        Raises VideoError with the program's own words where it fails or stops inside a frame.
        """
        with self._process(arguments, stdout=subprocess.PIPE) as (process, messages):
            while data := process.stdout.read(coded.frame_bytes):
                if notes is not None:
                    notes.saw(peak_memory_mib(process.pid))
                if len(data) != coded.frame_bytes:
                    process.wait()
                    raise VideoError(f"{what} stopped inside a frame: {reason(messages)}")
                yield planes_of(data, coded)
            if process.wait() != 0:
                raise VideoError(f"{what} failed: {reason(messages)}")

    @contextmanager
    def _process(
        self, arguments: list[str], **pipes: int
    ) -> Iterator[tuple[subprocess.Popen, IO[bytes]]]:
        """A running program and the file of its messages; no process is left behind."""
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **pipes}
        with tempfile.TemporaryFile() as messages:
            if self._aborted:
                raise VideoError(f"{self.name} was stopped: run the command again to go on")
            try:
                process = subprocess.Popen(arguments, bufsize=1 << 20, stderr=messages, **streams)
            except OSError as exc:
                raise VideoError(f"{arguments[0]} does not start: {self.hint}") from exc
            self._running.add(process)
            try:
                yield process, messages
            finally:
                _stop(process)
                self._running.discard(process)


@functools.cache
def ffmpeg_version(executable: str) -> str:
    """The version word of an FFmpeg, e.g. "n9.0.2-17-g2a571b6068-20260930".

    Raises VideoError where it does not run.
    """
    words = _asked(executable, "-version").split()
    return words[2] if words[:2] == ["ffmpeg", "version"] else "unknown"


@functools.cache
def ffmpeg_has(executable: str, what: str, name: str) -> bool:
    """Whether an FFmpeg was built with something; what: "encoder" or "filter".

    Raises VideoError where it does not run.
    """
    lines = _asked(executable, f"-{what}s").splitlines()
    return any(line.split()[1:2] == [name] for line in lines)


def _asked(executable: str, option: str) -> str:
    try:
        return subprocess.run(
            [executable, "-hide_banner", option], capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as exc:
        raise VideoError(f"{executable} does not run: install FFmpeg or set $FFMPEG") from exc


def reason(messages: IO[bytes]) -> str:
    """The first complaint: it is the cause, the rest are its consequences."""
    messages.seek(0)
    lines = messages.read().decode("utf-8", "replace").strip().splitlines()
    chatter = re.compile(r"\s*$|Svt\[(info|warn)]|Configuration warning")
    first = next((line for line in lines if not chatter.match(line)), "it gave no reason")
    return re.sub(r"^\[[^]]*\]\s*", "", first.strip())


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
