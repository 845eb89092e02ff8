"""Exceptions and signals become one line and an exit code; faults of ours stay tracebacks."""

import contextlib
import errno
import os
import signal
import time
import warnings

import pytest

from codec.errors import BitstreamError, VideoWarning
from codec.video.writer import ClosedPipeError
from lgmc import failures
from lgmc.failures import Stopped, guarded, signals_unwind


def raising(exc):
    def run():
        raise exc

    return run


@pytest.mark.parametrize(
    ("exc", "code", "line"),
    [
        (BitstreamError("a.lgmc is damaged"), 1, "lgmc: a.lgmc is damaged\n"),
        (BitstreamError("two\nlines"), 1, "lgmc: two lines\n"),
        (FileNotFoundError(errno.ENOENT, "no", "x.mp4"), 1, "lgmc: x.mp4: there is no such file"),
        (PermissionError(errno.EACCES, "no", b"x.mp4"), 1, "lgmc: x.mp4: permission denied"),
        (FileExistsError(errno.EEXIST, "no", "out"), 1, "lgmc: out: this exists already; choose"),
        (OSError(errno.ENOSPC, "no"), 1, "lgmc: no space left on the disk"),
        (OSError(errno.EIO, "Input/output error", "d"), 1, "lgmc: d: Input/output error\n"),
        (OSError("strange"), 1, "lgmc: strange\n"),
        (MemoryError(), 1, "lgmc: not enough memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), 1, "lgmc: not enough memory"),
        (KeyboardInterrupt(), 130, "lgmc: stopped\n"),
        (Stopped(signal.SIGTERM), 143, "lgmc: stopped\n"),
        (BrokenPipeError(), 141, ""),
        (ClosedPipeError("standard output: nobody reads it any more"), 141, ""),
    ],
)
def test_one_line_and_a_code(exc, code, line, capsys):
    assert guarded(raising(exc)) == code
    err = capsys.readouterr().err
    assert err.startswith(line)
    assert err.count("\n") == (1 if line else 0)


def test_a_warning_about_a_video_is_one_line_and_no_failure(capsys):
    def run():
        warnings.warn("x.mp4 is\ninterlaced", VideoWarning, stacklevel=1)
        return 0

    assert guarded(run) == 0
    assert capsys.readouterr().err == "lgmc: x.mp4 is interlaced\n"


def test_closed_standard_streams_are_no_fault(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout", None)  # as Python has it after `>&-`
    assert guarded(lambda: 0) == 0
    assert guarded(raising(BitstreamError("a.lgmc is damaged"))) == 1
    assert capsys.readouterr().err == "lgmc: a.lgmc is damaged\n"


def test_nothing_for_stderr_goes_to_stdout(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)
    assert guarded(raising(BitstreamError("a.lgmc is damaged"))) == 1
    assert capsys.readouterr().out == ""


def test_success_passes_its_code_on(capsys):
    assert guarded(lambda: 0) == 0
    assert guarded(lambda: 3) == 3
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("exc", [ValueError("a bug"), RuntimeError("a bug"), AssertionError()])
def test_faults_of_ours_are_not_hidden(exc):
    with pytest.raises(type(exc)):
        guarded(raising(exc))


def test_term_unwinds_and_the_old_handler_comes_back(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    temporary = tmp_path / "half"

    def run():
        try:
            temporary.touch()
            os.kill(os.getpid(), signal.SIGTERM)
        finally:
            temporary.unlink()
        return 0

    assert guarded(run) == 143
    assert not temporary.exists()
    assert signal.getsignal(signal.SIGTERM) is before


def test_signals_are_left_alone_outside_the_main_thread():
    from concurrent.futures import ThreadPoolExecutor

    def enter():
        with signals_unwind():
            return signal.getsignal(signal.SIGTERM)

    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(enter).result() is signal.getsignal(signal.SIGTERM)


def test_a_stop_that_was_lost_comes_again_and_does_not_disturb_what_cleans_up(monkeypatch):
    monkeypatch.setattr(failures, "_AGAIN", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    cleaned = []

    def run():
        with contextlib.suppress(Stopped):  # as a callback from C would
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        try:
            for _ in range(1000):
                time.sleep(0.01)
        finally:
            time.sleep(0.3)  # several alarms long
            cleaned.append(True)
        return 0

    assert guarded(run) == 143
    assert cleaned == [True]
    assert signal.getsignal(signal.SIGALRM) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
