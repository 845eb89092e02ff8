"""Running pieces on threads: every piece once, errors come out, forked children go on."""

import multiprocessing
import sys
import threading

import pytest
import torch

from kernels import jit


@pytest.fixture(params=["team", "pool"])
def threads(request, monkeypatch):
    """Two threads, of torch's OpenMP or of our own pool."""
    if request.param == "pool":
        monkeypatch.setattr(jit, "_team", lambda: None)
    elif jit._team() is None:
        pytest.skip("torch does not run on GNU OpenMP here")
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize("count, chunk", [(1, 1), (2, 1), (7, 3), (64, 5)])
def test_every_piece_is_done_once(threads, count, chunk):
    done = []
    jit.run(
        lambda start, stop, add: [add(i) for i in range(start, stop)],
        count,
        done.append,
        chunk=chunk,
    )
    assert sorted(done) == list(range(count))


def test_two_threads_are_at_it(threads):
    meet = threading.Barrier(2, timeout=30)
    jit.run(lambda start, stop: meet.wait(), 2)  # one thread alone would wait for ever


@pytest.mark.parametrize("broken", [0, 3])
def test_an_error_comes_out(threads, broken):
    def kernel(start, stop):
        if start == broken:
            raise ZeroDivisionError(f"piece {start}")

    with pytest.raises(ZeroDivisionError, match=f"piece {broken}"):
        jit.run(kernel, 4)
    jit.run(lambda start, stop: None, 4)  # and the threads are there for the next


def test_interrupts_come_out(threads):
    def kernel(start, stop):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jit.run(kernel, 2)


@pytest.mark.skipif(sys.platform == "win32", reason="no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_forked_child_has_threads(threads):
    jit.run(lambda start, stop: None, 8)
    context = multiprocessing.get_context("fork")
    process = context.Process(target=_child)
    process.start()
    process.join(60)
    alive = process.is_alive()
    if alive:
        process.kill()
    assert not alive and process.exitcode == 0


def _child() -> None:
    done = []
    jit.run(lambda start, stop: done.append(start), 8)
    if sorted(done) != list(range(8)):
        raise SystemExit(1)
