"""Counted, bounded reading from a stream that may be a pipe."""

from __future__ import annotations

from typing import BinaryIO

from codec.errors import BitstreamError

# A declared length is believed one step at a time, so that a lie in a short file allocates little.
READ_STEP = 1 << 20


class Truncated(BitstreamError):
    """The stream ended inside a field."""


class ByteSource:
    """Reads exactly as many bytes as asked and knows where it stands; needs no seeking.

    Args:
        fileobj: binary stream with ``read``; short reads (pipes) are joined.
        offset: position in the file at which ``fileobj`` stands now, in bytes.
    """

    def __init__(self, fileobj: BinaryIO, offset: int = 0) -> None:
        self._fileobj = fileobj
        self.offset = offset

    def take_up_to(self, size: int) -> bytes:
        """The next ``size`` bytes, or fewer at the end of the stream."""
        parts: list[bytes] = []
        missing = size
        while missing:
            part = self._fileobj.read(min(missing, READ_STEP))
            if not part:
                break
            parts.append(part)
            missing -= len(part)
            self.offset += len(part)
        return b"".join(parts)

    def take(self, size: int) -> bytes:
        """Exactly the next ``size`` bytes; raises Truncated when the stream ends before."""
        data = self.take_up_to(size)
        if len(data) < size:
            raise Truncated(f"the file ends at byte {self.offset}, {size - len(data)} bytes early")
        return data
