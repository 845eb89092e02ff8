"""Standard input as a stream of bytes, for videos and for .lgmc files alike."""

from __future__ import annotations

import sys
from typing import BinaryIO

from codec.errors import LgmcError


def standard_input(what: str, error: type[LgmcError]) -> BinaryIO:
    """Standard input, which a reader's `close` leaves open.

    what: is expected there, as in "pipe y4m video into it". Raises `error` where standard input is
    closed or a terminal.
    """
    if sys.stdin is None or sys.stdin.closed:
        raise error(f"standard input is closed: pipe {what} into it")
    if sys.stdin.isatty():
        raise error(f"standard input is a terminal: pipe {what} into it, or name a file")
    # Closing descriptor 0 would hand it to the next file opened.
    return _Kept(sys.stdin.buffer)


class _Kept:
    """A stream whose close is somebody else's business."""

    def __init__(self, stream: BinaryIO) -> None:
        self.read = stream.read
        self.readline = stream.readline
        self.readinto = stream.readinto

    def close(self) -> None:
        """Left open."""

    def __enter__(self) -> _Kept:
        return self

    def __exit__(self, *_: object) -> None:
        """Left open."""
