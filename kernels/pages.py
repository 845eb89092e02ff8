"""Memory for large results on the CPU: on large pages, and used again.

A fresh block of memory is mapped as it is first written, and the kernel zeroes each page then. For
a result of 133 MB that took as long as computing it; with pages of 2 MiB in the place of 4 KiB it
is a sixth. And the C library gives every block above a size back when it is freed, so that each
call of an operator pays again. So blocks that are free again are kept for the next result of that
size, as torch does on a GPU. What is kept beyond a first part is marked as free to take
(MADV_FREE): Linux takes it when it is short of memory.

On other systems than Linux ``empty`` is ``torch.empty``.
"""

import contextlib
import math
import mmap
import os
import sys
import weakref

import numpy as np
import torch
from torch import Tensor

HUGE = 2 * 2**20
LEAST = 2**18
"""Bytes from which a result has a block of its own; below, the C library keeps what is freed."""
KEPT_SHARE = 1 / 8
"""Of the machine's memory: the most that is kept for later results."""

UNMARKED = 64 * 2**20
"""Bytes that are kept without a mark: to mark and write 10 MB again takes 0.5 ms."""

_LINUX = sys.platform.startswith("linux")
# (bytes on large pages, bytes) -> free blocks. Lists are changed by single appends and pops alone,
# so without a lock: the end of a tensor can come in the middle of any other line of Python.
_kept: dict[tuple[int, int], list[mmap.mmap]] = {}


def empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """``torch.empty(*shape, dtype=dtype)`` on the CPU, contiguous.

    A large one cannot be made larger by ``resize_``, like a tensor made from a numpy array.
    """
    size = math.prod(shape) * dtype.itemsize
    if not _LINUX or size < LEAST:
        return torch.empty(*shape, dtype=dtype)
    kind = size // HUGE * HUGE, -(-size // HUGE) * HUGE
    block = _block(*kind)
    array = np.frombuffer(block, np.uint8, size)
    # The array ends with the last tensor that shares its memory.
    weakref.finalize(array, _keep, kind, block).atexit = False
    tensor = torch.from_numpy(array).view(dtype).view(shape)
    if (
        torch.are_deterministic_algorithms_enabled()
        and torch.utils.deterministic.fill_uninitialized_memory
    ):
        tensor.fill_(math.nan if dtype.is_floating_point else torch.iinfo(dtype).max)
    return tensor


def kept_bytes() -> int:
    """Bytes in blocks that wait for another result."""
    return sum(size * len(blocks) for (_, size), blocks in list(_kept.items()))


def forget() -> None:
    """Give all blocks that wait back to the system."""
    _kept.clear()


def _block(filled: int, rounded: int) -> mmap.mmap:
    """A free block of ``rounded`` bytes, the first ``filled`` of them on large pages.

    What does not fill a large page lies on small ones: those that are never touched take no memory.
    """
    with contextlib.suppress(KeyError, IndexError):
        return _kept[filled, rounded].pop()
    block = mmap.mmap(-1, rounded, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError, AttributeError):  # no large pages in this system
        if filled:
            block.madvise(mmap.MADV_HUGEPAGE, 0, filled)
        if filled < rounded:
            block.madvise(mmap.MADV_NOHUGEPAGE, filled, rounded - filled)
    return block


def _keep(kind: tuple[int, int], block: mmap.mmap) -> None:
    """The block's tensor is gone: keep it for the next one."""
    size, most = len(block), KEPT_SHARE * _memory()
    if kept_bytes() + size > most:
        forget()  # of other sizes, in all likelihood
    if size <= most:
        if kept_bytes() + size > UNMARKED:
            with contextlib.suppress(OSError, AttributeError):
                block.madvise(mmap.MADV_FREE)
        _kept.setdefault(kind, []).append(block)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
