"""Several processes that learn as one, started by torchrun: which of them this is, and their sums.

Each takes its rows of every batch. Gradients and what is logged are added up, so all of them take
the same step and hold the same weights; the first alone writes files.
"""

import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from codec.errors import ConfigError, TrainingError
from codec.training.rows import Rows

# The first process decodes videos, validates and exports while the others wait for it. One that is
# dead is noticed at once: its connections close, and torchrun ends the others.
_PATIENCE = timedelta(hours=1)

T = TypeVar("T")


def take_gpu(local_rank: int) -> torch.device:
    """The GPU of that number, from now on the one that "cuda" means in this process.

    Raises:
        ConfigError: the machine has fewer GPUs than processes.
    """
    if local_rank >= torch.cuda.device_count():
        raise ConfigError(
            f"process {local_rank} of this machine has no GPU of its own: give torchrun "
            f"--nproc-per-node={torch.cuda.device_count()}"
        )
    device = torch.device("cuda", local_rank)
    torch.cuda.set_device(device)
    return device


def usable_device(name: str) -> torch.device:
    """The device that the configuration names. Makes no context on a GPU.

    Raises:
        ConfigError: torch does not know it, or this machine has none.
    """
    try:
        device = torch.device(name)
        if device.type != "cuda":
            torch.empty(0, device=device)
        there = torch.cuda.device_count()
    except (RuntimeError, AssertionError) as error:
        line = " ".join(str(error).split())[:160]
        raise ConfigError(f"training.device: {name!r} cannot be used ({line}); use cpu") from None
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ConfigError(
            f"training.device: {name!r} cannot be used (torch sees {there} GPUs here); use cpu"
        )
    return device


class Ranks:
    """This process among those that train together; made without arguments, it is alone.

    All methods but :meth:`rows` have to be called by every process, in the same order. Alone, none
    of them sends or copies anything.

    Attributes:
        rank: of this process, 0 to ``size - 1``.
        size: how many there are.
        local_rank: of this process among those of its machine.
    """

    def __init__(self, rank: int = 0, size: int = 1, local_rank: int = 0):
        self.rank, self.size, self.local_rank = rank, size, local_rank
        # For what lies on the CPU, and for waits that are no work for a GPU.
        self._group = dist.new_group(backend="gloo", timeout=_PATIENCE) if size > 1 else None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def device(self, name: str) -> torch.device:
        """Where this process computes: of several GPUs of a machine each has its own.

        Raises:
            ConfigError: the device cannot be used, or the machine has fewer GPUs than processes.
        """
        device = usable_device(name)
        if self.size == 1 or device.type != "cuda":
            return device
        return take_gpu(self.local_rank)

    def rows(self, batch: int) -> Rows:
        """Those of a batch that this process learns from."""
        return Rows.all(batch).split(self.size)[self.rank]

    def add_up(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """The sum of each tensor over the processes, in float32, to the last bit alike in all.

        Args:
            tensors: on this process's device, of the same shapes everywhere.
        """
        if self.size == 1:
            return list(tensors)
        message = torch.cat([tensor.detach().reshape(-1).float() for tensor in tensors])
        dist.all_reduce(message)
        parts = message.split([tensor.numel() for tensor in tensors])
        return [part.view(tensor.shape) for part, tensor in zip(parts, tensors, strict=True)]

    def add_gradients(self, parameters: Sequence[nn.Parameter]) -> None:
        """Each gradient becomes the sum over the processes; one that none has stays None."""
        if self.size == 1:
            return
        there = torch.tensor([float(p.grad is not None) for p in parameters])
        own = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        counts, *sums = self.add_up([there.to(own[0].device), *own])
        for parameter, count, total in zip(parameters, counts.tolist(), sums, strict=True):
            if not count:
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            parameter.grad.copy_(total)

    def gathered(self, tensor: Tensor, rows: Rows) -> Tensor:
        """The whole batch's [whole, ...] from the rows of it that each process has."""
        if rows.is_all:
            return tensor
        whole = rows.whole_like(tensor).zero_()
        whole[rows.slice] = tensor
        return whole.copy_(self.add_up([whole])[0])  # the others' rows were zero

    def wait(self) -> None:
        """Until all are here."""
        if self.size > 1:
            dist.barrier(self._group)

    def in_turn(self, work: Callable[[], T]) -> T:
        """What ``work`` returns here, done by the first process before all others.

        Then by one of every other machine, then by the rest: what the first of them leaves on a
        disk the others find there.
        """
        turn = 0 if self.is_first else 1 if self.local_rank == 0 else 2
        for _ in range(turn):
            self.wait()
        try:
            return work()
        finally:
            for _ in range(2 - turn):
                self.wait()

    def check_alike(self, **values: Any) -> None:
        """Make sure that all processes have the same values.

        Raises:
            TrainingError: they have not; in every process.
        """
        if self.size == 1:
            return
        of_all: list[Any] = [None] * self.size
        dist.all_gather_object(of_all, values, self._group)
        for name, value in of_all[0].items():
            for rank, others in enumerate(of_all):
                if others[name] != value:
                    raise TrainingError(
                        f"process {rank} does not have the {name} of process 0: give all the same "
                        "command, the same clips and a run folder that every machine sees"
                    )


@contextmanager
def ranks_of_torchrun(device: str) -> Iterator[Ranks]:
    """The processes that torchrun started, joined to one another; without it, one alone.

    Args:
        device: the configuration's; GPUs talk by NCCL, CPUs by gloo.

    Raises:
        ConfigError: the device cannot be used.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield Ranks()
        return
    backend = "nccl" if usable_device(device).type == "cuda" else "gloo"
    store, rank, size = next(dist.rendezvous("env://", timeout=_PATIENCE))
    store = _of_this_start(store, rank, size)
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=_PATIENCE)
    yield Ranks(rank, size, int(os.environ["LOCAL_RANK"]))
    dist.destroy_process_group()  # not after an error: the others may be in the middle of a sum


def _of_this_start(store: dist.Store, rank: int, size: int) -> dist.Store:
    """The part of a store that belongs to these processes, and to none that torchrun has ended.

    Where torchrun starts processes again they meet in the store of those before them, find the
    addresses of the dead there and cannot connect (github.com/pytorch/pytorch/issues/135712); how
    often it did so each machine counts for itself. So the first process gives this start a name,
    and tells it to each that asks by a name of its own, until all have heard it.
    """
    own = uuid.uuid4().hex
    if rank > 0:
        store.set(f"asks/{rank}", own)
        start = store.get(f"told/{own}").decode()  # waits for it
        store.set(f"{start}/heard/{rank}", "")
        return dist.PrefixStore(start, store)
    waiting = set(range(1, size))
    while waiting:
        for other in waiting:
            if store.check([f"asks/{other}"]):  # or one before it did
                store.set(f"told/{store.get(f'asks/{other}').decode()}", own)
        waiting = {other for other in waiting if not store.check([f"{own}/heard/{other}"])}
        time.sleep(0.02)
    return dist.PrefixStore(own, store)
