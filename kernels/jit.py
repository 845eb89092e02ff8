"""Compiling the CPU paths (numba) and running them on threads.

Import this module only from a CPU path, which op.py loads at its first use: it imports numba. Why a
JIT
and not a library that comes built: docs/kernels.md.
"""

import ctypes
import functools
import inspect
import itertools
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path

import llvmlite.binding
import numba
import torch
from torch import Tensor

_FEATURES = llvmlite.binding.get_host_cpu_features()
# float32 numbers in a vector register of this CPU.
LANES = 16 if _FEATURES.get("avx512f") else 8 if _FEATURES.get("avx2") else 4


_PIECES = 4  # of the work, for each thread
_OPTIONS = {
    "nogil": True,
    "boundscheck": False,
    "error_model": "numpy",
    "fastmath": {"contract"},
}


def compiled(function: Callable) -> Callable:
    """Compile ``function`` at its first call; the result stays in __pycache__ (NUMBA_CACHE_DIR).

    No bounds checks; the interpreter's lock is released. Multiplications and additions may fuse,
    nothing
    else is relaxed: infinities and NaN keep their meaning.
    """
    dispatcher = numba.njit(cache=True, **_OPTIONS)(function)
    forget_outdated(dispatcher, function)
    return dispatcher


def part(function: Callable) -> Callable:
    """Compile ``function`` into the kernels that call it; Python cannot call it quickly.

    Always inlined: a call would pass every field of a NamedTuple by itself, through memory.
    """
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True, **_OPTIONS)(
        function
    )


def stage(function: Callable) -> Callable:
    """As ``part`` for long functions that do much work in a call: they stay apart, which keeps
    what the compiler looks at small."""
    return numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, **_OPTIONS)(function)


def forget_outdated(dispatcher: Callable, function: Callable) -> None:
    """Drop cached code of a ``cache=True`` dispatcher older than what it was built from.

    numba compares the cache with the function's own file only; the kernels also hold code of the
    files beside this one and of the other cpu*.py of their folder.
    """
    folder = dispatcher.stats.cache_path
    if folder is None:
        return
    own = Path(inspect.getfile(function))
    sources = [*Path(__file__).parent.glob("*.py"), *own.parent.glob("cpu*.py")]
    newest = max(source.stat().st_mtime for source in sources)
    for index in Path(folder).glob(f"{own.stem}.{function.__qualname__}-*.nbi"):
        try:
            if index.stat().st_mtime < newest:
                index.unlink()
        except FileNotFoundError:  # another process was quicker
            pass


_pool: ThreadPoolExecutor | None = None


def _forget_pool() -> None:
    """A forked child has the pool's object but not its threads, nor OpenMP's."""
    global _pool, _team
    _pool = None
    _team = lambda: None  # noqa: E731


if sys.platform != "win32":
    os.register_at_fork(after_in_child=_forget_pool)


def _workers(count: int) -> ThreadPoolExecutor:
    """At least ``count`` threads that wait for work; made at the first use in this process."""
    global _pool
    if _pool is None or _pool._max_workers < count:
        _pool = ThreadPoolExecutor(count, thread_name_prefix="kernels")
    return _pool


def run(kernel: Callable, count: int, *arguments, chunk: int = 1) -> None:
    """Call ``kernel(start, stop, *arguments)`` over the items 0 .. count - 1 in pieces of
    ``chunk``.

    On torch.get_num_threads() threads, this one included; a thread takes the next piece when it has
    finished one. Pieces must not depend on one another.
    """
    pieces = -(-count // chunk)
    threads = min(torch.get_num_threads(), pieces)
    if threads <= 1:
        kernel(0, count, *arguments)
        return
    taken = itertools.count()

    def work() -> None:
        while (piece := next(taken)) < pieces:
            kernel(piece * chunk, min((piece + 1) * chunk, count), *arguments)

    team = _team()
    if team is None:
        _with_pool(work, threads)
    else:
        _with_team(team, work, threads)


def _with_pool(work: Callable[[], None], threads: int) -> None:
    """Call ``work`` on as many threads, this one included."""
    jobs = [_workers(threads - 1).submit(work) for _ in range(threads - 1)]
    try:
        work()
    finally:
        wait(jobs)
    for job in jobs:
        job.result()


_WORK = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@functools.cache
def _team() -> Callable | None:
    """GNU OpenMP's own way to begin a parallel region, where torch runs on that library.

    The threads that torch's operators end with wait for the next region in a busy loop, for about a
    millisecond: threads of another pool would have to share the cores with them.
    """
    try:
        # Only a copy that this process has loaded, for torch as a rule: another has other threads.
        library = ctypes.CDLL("libgomp.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
        begin = library.GOMP_parallel
    except (OSError, AttributeError):
        return None
    begin.argtypes = [_WORK, ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint]
    begin.restype = None
    return begin


def _with_team(begin: Callable, work: Callable[[], None], threads: int) -> None:
    """Call ``work`` on as many of torch's threads, this one included."""
    errors = []

    def guarded(_: object) -> None:
        try:
            work()
        except BaseException as error:  # not to be thrown through C
            errors.append(error)

    begin(_WORK(guarded), None, threads, 0)
    if errors:
        raise errors[0]


def pieces(count: int) -> int:
    """A ``chunk`` for ``run``: large enough that calls cost little, small enough that the thread
    that ends last is not far behind."""
    return max(1, -(-count // (_PIECES * torch.get_num_threads())))


def padded(channels: int) -> int:
    """``channels`` rounded up to whole vectors."""
    return -(-channels // LANES) * LANES


def address(tensor: Tensor) -> int:
    """Where the tensor's data begins. Keep the tensor alive while a kernel uses it."""
    return tensor.data_ptr()
