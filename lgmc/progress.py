"""Progress on stderr: a bar on a terminal, a plain line every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from typing import TextIO

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Counts frames for someone who waits; a context manager, called with the frames done so far.

    Args:
        what: the verb, e.g. "encode".
        stream: where to; the bar needs a terminal there.
    """

    def __init__(self, what: str, stream: TextIO | None = None) -> None:
        self._what = what
        self._stream = stream or sys.stderr
        self._bar = None
        self._terminal = self._stream.isatty()
        self._start = self._spoke = time.monotonic()

    def __call__(self, done: int, total: int | None = None) -> None:
        """``done`` frames of ``total`` (None: not known) are finished."""
        if self._terminal:
            self._draw(done, total)
            return
        now = time.monotonic()
        if now - self._spoke < SECONDS_BETWEEN_LINES:
            return
        self._spoke = now
        of = "" if total is None else f" of {total}"
        speed = done / (now - self._start)
        print(f"{self._what}: {done}{of} frames, {speed:.2f} a second", file=self._stream)

    def _draw(self, done: int, total: int | None) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                desc=self._what, total=total, unit="frame", file=self._stream, leave=False
            )
        self._bar.update(done - self._bar.n)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()
