"""Memory that a program keeps between frames."""

import ctypes
import sys

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_TRIM = 2**30
_MAPPED = 2**25  # the most that glibc takes


def keep_freed_memory() -> bool:
    """Tell the C library to keep what a frame frees for the next one; for programs, not libraries.

    glibc gives the top of its heap back to the system each time enough of it is free, so a frame's
    tensors are mapped page by page again and again: 400 to 1,000 page faults a frame of 416x240,
    8 % of decoding (docs/decisions.md). The process does not grow beyond its peak by this.

    Returns:
        Whether it took effect: on Linux with glibc alone.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(_M_TRIM_THRESHOLD, _TRIM)) and bool(mallopt(_M_MMAP_THRESHOLD, _MAPPED))
