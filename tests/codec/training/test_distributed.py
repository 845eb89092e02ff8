"""Processes that train as one: their sums, their runs under torchrun, one of them killed."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp

from codec.errors import ConfigError
from codec.training.distributed import Ranks, ranks_of_torchrun
from codec.training.run import TrainingRun

from .conftest import ROUNDING, last_weights
from .test_run import DEBUG, ROOT, logged
from .two_processes import talk

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def torchrun(folder: Path, overrides: list[str], *options: str) -> list[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += [*options, str(ROOT / "train_codec.py"), str(DEBUG), "--out", str(folder)]
    return [*command, *overrides]


@pytest.fixture(scope="module")
def two(whole, tmp_path_factory) -> Path:
    """The run of all kinds of steps by two processes: one sample of each batch, and two."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    command = torchrun(folder, whole.overrides())
    done = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\ndone: ") == 1
    return folder


def test_two_processes_give_the_weights_of_one(whole, two):
    assert whole.differs_from(two) < ROUNDING
    records = logged(two)
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 15))
    assert [r["event"] for r in records if "event" in r].count("start") == 1
    alone = [r for r in logged(whole.cache.parent / "whole") if "loss" in r]
    for one, other in zip(alone, [r for r in records if "loss" in r], strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        for group in ("bpp", "psnr"):
            assert other[group] == pytest.approx(one[group], rel=1e-4)


def test_one_process_goes_on_in_a_chain_that_two_began(whole, two, tmp_path):
    folder = tmp_path / "fewer"
    shutil.copytree(two, folder)
    shutil.rmtree(folder / "checkpoints" / "step_00000014")
    run = TrainingRun(whole.experiment(), folder)
    assert run.step == 10 and len(run.learner.carried["frame"]) == 3
    run.train()
    assert whole.differs_from(folder) < ROUNDING


def test_a_killed_process_and_the_other_begin_again_at_the_checkpoint(whole, two, tmp_path):
    """SIGKILL for one of two in the middle of a chain; torchrun starts both again."""
    folder = tmp_path / "killed"
    command = torchrun(folder, whole.overrides(), "--max-restarts=1")
    agent = subprocess.Popen(
        command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 120
        while not (folder / "checkpoints" / "step_00000010").exists():
            assert agent.poll() is None and time.monotonic() < deadline, "no checkpoint appeared"
            time.sleep(0.02)
        os.kill(process_of_rank(1, agent.pid), signal.SIGKILL)
        _, errors = agent.communicate(timeout=120)
    finally:
        agent.terminate()  # and its processes, where it is still there
    assert agent.returncode == 0, errors
    records = logged(folder)
    assert [r["step"] for r in records if r.get("event") == "start"] == [0, 10]
    assert [r["step"] for r in records if "loss" in r] == list(range(1, 15))
    expected, got = last_weights(two), last_weights(folder)
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    assert (folder / "model.safetensors").read_bytes()


def process_of_rank(rank: int, agent: int) -> int:
    """The process that torchrun (``agent``) started for a rank."""
    for number in Path(f"/proc/{agent}/task/{agent}/children").read_text().split():
        variables = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(number)
    raise AssertionError(f"torchrun has no process of rank {rank}")


def test_what_two_processes_say_to_each_other(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    mp.spawn(talk, args=(port, tmp_path), nprocs=2)
    order = (tmp_path / "order").read_text().split()
    assert order == ["0", "1"]


def test_alone_nothing_is_sent():
    ranks = Ranks()
    x = torch.rand(3)
    assert ranks.add_up([x])[0] is x
    assert ranks.gathered(x, ranks.rows(3)) is x
    assert ranks.in_turn(lambda: 7) == 7
    ranks.wait()
    ranks.check_alike(weights=1)
    assert not torch.distributed.is_initialized()


def test_processes_that_cannot_share(whole, tmp_path):
    four = Ranks.__new__(Ranks)
    four.rank, four.size, four.local_rank = 1, 4, 1
    with pytest.raises(ConfigError, match="4 processes .* set training.data.batch to at least 4"):
        TrainingRun(whole.experiment(), tmp_path / "run", ranks=four)
    with pytest.raises(ConfigError, match="cuda_graph is for one process"):
        graph = whole.experiment("training.cuda_graph=true", "training.data.batch=4")
        TrainingRun(graph, tmp_path / "run", ranks=four)
    if torch.cuda.device_count() < 2:
        message = "--nproc-per-node" if torch.cuda.is_available() else "'cuda' cannot be used"
        with pytest.raises(ConfigError, match=message):
            four.device("cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_one_line(name, monkeypatch):
    message = f"training.device: '{name}' cannot be used"
    with pytest.raises(ConfigError, match=message):
        Ranks().device(name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match=message), ranks_of_torchrun(name):
        pass
