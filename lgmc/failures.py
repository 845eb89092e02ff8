"""From exceptions and signals to one line on stderr and an exit code."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator

from codec.errors import LgmcError, VideoWarning

ERROR = 1
READER_GONE = 128 + signal.SIGPIPE
_AGAIN = 1.0  # seconds

_WHAT_TO_DO = {
    errno.ENOENT: "there is no such file or folder; check the path",
    errno.EACCES: "permission denied; choose another place or change the permissions",
    errno.EPERM: "not permitted; choose another place",
    errno.EROFS: "the file system is read-only; choose another place",
    errno.EEXIST: "this exists already; choose another name",
    errno.EISDIR: "this is a folder; give a file",
    errno.ENOTDIR: "a part of this path is a file, not a folder; check the path",
    errno.ENOSPC: "no space left on the disk; free some, or write elsewhere",
    errno.EDQUOT: "the disk quota is used up; free some space, or write elsewhere",
    errno.ENAMETOOLONG: "the name is too long; choose a shorter one",
    errno.EMFILE: "too many open files; raise the limit (ulimit -n)",
}


class Stopped(KeyboardInterrupt):
    """A signal asked us to end: unwinds like Ctrl-C, so that temporary files are removed."""

    def __init__(self, number: int) -> None:
        super().__init__(f"signal {number}")
        self.number = number


def guarded(run: Callable[[], int]) -> int:
    """``run()``'s exit code, or that of what went wrong, said in one line on stderr."""
    if sys.stderr is None:  # closed; print(file=None) would write into standard output
        sys.stderr = open(os.devnull, "w")
    try:
        with signals_unwind(), warnings_complain():
            code = run()
            _flush_stdout()
            return code
    except BrokenPipeError:
        # `lgmc decode x - | ffplay -`, closed: not worth a word, and not a success either. First,
        # because codec.video's own error for it is an LgmcError too.
        _drop_stdout()
        return READER_GONE
    except LgmcError as exc:
        complain(str(exc))
    except OSError as exc:
        complain(explain_os_error(exc))
    except MemoryError:
        complain("not enough memory; take a smaller video, or close other programs")
    except KeyboardInterrupt as exc:
        complain("stopped")
        return 128 + getattr(exc, "number", signal.SIGINT)
    except RuntimeError as exc:
        if not _is_torch_out_of_memory(exc):
            raise
        complain("not enough memory; take a smaller video, or another --device")
    _drop_stdout()
    return ERROR


def complain(message: str) -> None:
    """``lgmc: message`` as one line on stderr."""
    print("lgmc:", " ".join(message.split()), file=sys.stderr)


def explain_os_error(exc: OSError) -> str:
    """What failed, at which path, and what to do about it where we know."""
    advice = _WHAT_TO_DO.get(exc.errno, exc.strerror or str(exc) or type(exc).__name__)
    path = exc.filename
    if path is None or isinstance(path, int):
        return advice
    return f"{os.fsdecode(path)}: {advice}"


@contextlib.contextmanager
def warnings_complain() -> Iterator[None]:
    """A warning about a video inside becomes one line on stderr."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning, category: type[Warning], *more: object) -> None:
            if issubclass(category, VideoWarning):
                complain(str(message))
            else:
                usual(message, category, *more)

        warnings.showwarning = show
        yield


@contextlib.contextmanager
def signals_unwind() -> Iterator[None]:
    """TERM and HUP raise ``Stopped`` inside, where by default they would end us at once.

    Where it falls into a callback of a library it may be lost there, with no more than a line on
    stderr; so it is raised again each second until it unwinds.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: object) -> None:
        def again(alarm: int, frame: object) -> None:
            if sys.exc_info()[0] is None:  # nothing is unwinding
                raise Stopped(number)

        signal.signal(signal.SIGALRM, again)
        signal.setitimer(signal.ITIMER_REAL, _AGAIN, _AGAIN)
        raise Stopped(number)

    numbers = signal.SIGTERM, signal.SIGHUP
    before = {number: signal.getsignal(number) for number in (*numbers, signal.SIGALRM)}
    for number in numbers:
        signal.signal(number, stop)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _flush_stdout() -> None:
    if sys.stdout is not None:  # closed (`>&-`): prints go nowhere
        sys.stdout.flush()


def _drop_stdout() -> None:
    """Nothing is left to be flushed at exit into an output that already failed."""
    try:
        _flush_stdout()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _is_torch_out_of_memory(exc: RuntimeError) -> bool:
    """torch has a class for CUDA only; its CPU allocator says so in the message."""
    return type(exc).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(exc)
