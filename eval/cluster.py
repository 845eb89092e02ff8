"""The points of an evaluation on a cluster, through Ray (the extra ``cluster``).

A point is one task: any worker can do it, and it is done again where a worker died. Workers read
clips and weights by their paths and write nothing; cache and results are the driver's alone.
"""

from __future__ import annotations

import functools
import os
import pickle
import re
import signal
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from codec.errors import ConfigError, LgmcError
from codec.memory import keep_freed_memory
from eval import conditions
from eval.conditions import Machine
from eval.point import PointTask, measure_point, on_gpu
from eval.pool import Outcome
from eval.results import Failure, RdPoint

if TYPE_CHECKING:
    from ray import ObjectRef

    Running = dict[ObjectRef, tuple[PointTask, "_Node | None"]]

RETRIES = 3
"""How often a task is done again whose worker died."""

_LOCAL = re.compile(r"local(?::([1-9]\d*))?")
_STORE_BYTES = 80 << 20  # results are small; Ray takes no less than 75 MiB
_STOP_SECONDS = 5.0
_KNOCK_SECONDS = 10.0


class ClusterError(LgmcError):
    """A cluster that cannot be joined, or whose workers could not measure what is asked."""


@contextmanager
def open_cluster(address: str, threads: int | None = None) -> Iterator[RayPool]:
    """Join a Ray cluster, or start one on this machine that ends with the block.

    address: "HOST:PORT", "auto" for the cluster that this machine is part of, "local:N" for N
    workers here, "local" for one a core. threads: of a model, all cores of its worker when None.
    Raises ConfigError where Ray is not installed, ClusterError where there is no such cluster.
    """
    ray = _ray()
    options: dict[str, Any] = {"logging_level": "ERROR", "log_to_driver": False}
    local = _LOCAL.fullmatch(address)
    if local:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nobody was asked
        options["num_cpus"] = int(local[1] or conditions.available_cores())
        options.update(include_dashboard=False, object_store_memory=_STORE_BYTES)
    try:
        if not local and address != "auto":
            _knock(address)
        with _our_handler_of_sigterm():
            ray.init("local" if local else address, **options)
    except (OSError, RuntimeError, ValueError) as exc:
        raise ClusterError(
            f"no Ray cluster at {address!r} ({_line(exc)}): start one with `ray start --head`, "
            "or say --cluster local"
        ) from exc
    try:
        yield RayPool(threads)
    finally:
        ray.shutdown()


class RayPool:
    """The workers of the cluster that this process has joined, as an ``eval.pool.Pool``.

    threads: of a model, all cores of its worker when None.
    """

    measures_here = False

    def __init__(self, threads: int | None = None) -> None:
        self._threads = threads

    def threads(self, machine: Machine) -> int:
        """Those that were asked for, else all cores of the machine."""
        return self._threads or int(machine["cores"])

    def prepare(self, tasks: list[PointTask]) -> list[Machine]:
        """The kinds of machines in the cluster, after a look at each machine.

        Raises ClusterError where one does not see a clip or a model's file, or differs in what
        decides a point: versions, sources, FFmpeg, weights. Machines themselves may differ.
        """
        ray = _ray()
        nodes = _nodes()
        orders = [_Order.of(task) for task in _representatives(tasks)]
        for order in orders:
            if not any(node.can_run(order) for node in nodes):
                lacks = "GPU: say --device cpu" if nodes else "core: start workers (`ray start`)"
                raise ClusterError(f"the cluster has no {lacks}")
        looks = []
        for node in nodes:
            fitting = [order for order in orders if node.can_run(order)]
            gpus = max((order.gpus for order in fitting), default=0)
            options = {"num_cpus": 0, "num_gpus": gpus, "scheduling_strategy": node.affinity()}
            looks.append(ray.remote(_look).options(**options).remote(fitting))
        kinds: Counter[tuple[Any, ...]] = Counter()
        machines: dict[tuple[Any, ...], Machine] = {}
        for node, look in zip(nodes, looks, strict=True):
            try:
                machine, complaint = ray.get(look)
            except ray.exceptions.RayError as exc:
                raise ClusterError(
                    f"the worker at {node.address} cannot run LGMC ({_line(exc)}): install there "
                    "what is installed here"
                ) from exc
            if complaint:
                raise ClusterError(f"the worker at {node.address} {complaint}")
            kind = tuple(machine[name] for name in ("cpu", "cores", "gpu"))
            kinds[kind] += 1
            machines.setdefault(kind, machine)
        return [machines[kind] for kind, _ in kinds.most_common()]

    def run(self, tasks: list[PointTask], *, alone: bool) -> Iterator[Outcome]:
        """As ``Pool.run``. A point whose workers died ``RETRIES`` + 1 times is a Failure."""
        running: Running = {}
        try:
            yield from (self._alone if alone else self._together)(tasks, running)
        except BaseException:
            _cancel(list(running))
            raise

    def _together(self, tasks: list[PointTask], running: Running) -> Iterator[Outcome]:
        for task in tasks:
            options = {"num_cpus": 1, "scheduling_strategy": "SPREAD"}
            running[self._submit(_Order.of(task), None, options)] = task, None
        while running:
            ref = _next(running)
            task, _ = running.pop(ref)
            yield task, *_outcome(task, ref)

    def _alone(self, tasks: list[PointTask], running: Running) -> Iterator[Outcome]:
        """A task takes all cores that Ray counts on a node, so nothing else runs there."""
        waiting = deque((task, _Order.of(task)) for task in tasks)
        orders = dict(waiting)
        idle = _nodes()
        while waiting or running:
            for node in list(idle):
                found = next((one for one in waiting if node.can_run(one[1])), None)
                if found is not None:
                    waiting.remove(found)
                    idle.remove(node)
                    task, order = found
                    options = {"num_cpus": node.cores, "scheduling_strategy": node.affinity()}
                    running[self._submit(order, self._threads or 0, options)] = task, node
            if not running:
                for task, _ in waiting:
                    yield task, _failure(task, "no worker is left that could measure it"), None
                return
            ref = _next(running)
            task, node = running.pop(ref)
            point, machine = _outcome(task, ref)
            if machine is None and node not in _nodes():  # lost with its node: to another one
                waiting.appendleft((task, orders[task]))
                continue
            idle.append(node)
            yield task, point, machine

    def _submit(self, order: _Order, threads: int | None, options: dict[str, Any]) -> ObjectRef:
        task = _ray().remote(_measure_there)
        options = {"max_retries": RETRIES, "num_gpus": order.gpus, **options}
        return task.options(**options).remote(order, threads)


@dataclass(frozen=True)
class _Node:
    """A machine of the cluster that has cores for us."""

    id: str
    address: str
    cores: int
    gpus: int

    def can_run(self, order: _Order) -> bool:
        return self.gpus >= order.gpus

    def affinity(self) -> Any:
        """Ray's way to say: here and nowhere else."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        return NodeAffinitySchedulingStrategy(self.id, soft=False)


@dataclass(frozen=True)
class _Order:
    """A task on its way to a worker.

    packed: the task, unpacked by the worker's own hands, which can say what is wrong with it there.
    decided_by: what the driver says decides the point; a worker that finds something else refuses.
    """

    packed: bytes
    decided_by: dict[str, Any]
    gpus: int

    @classmethod
    def of(cls, task: PointTask) -> _Order:
        path = Path(os.path.abspath(task.sequence.path))
        parts = task.decided_by()
        task = replace(task, sequence=replace(task.sequence, path=path))
        return cls(_ray().cloudpickle.dumps(task), parts, int(on_gpu(parts["codec"])))

    def unpacked(self) -> tuple[PointTask | None, str]:
        """In a worker: the task, or None and what hinders it, as what a sentence says of it."""
        try:
            task: PointTask = pickle.loads(self.packed)
            path = task.sequence.path
            if not path.exists():
                return None, f"does not see {path}: keep clips and models where all machines do"
            difference = _difference(self.decided_by, task.decided_by())
        except LgmcError as exc:
            return None, f"says: {exc}"
        if difference:
            return None, f"has {difference} as here: install the same on all machines"
        return task, ""


def _look(orders: list[_Order]) -> tuple[Machine, str]:
    """In a worker: its machine, and what hinders the first of the orders that is hindered."""
    complaints = (order.unpacked()[1] for order in orders)
    complaint = next(filter(None, complaints), "")
    return _machine(), complaint


def _measure_there(
    order: _Order, threads: int | None
) -> tuple[RdPoint | Failure | str, Machine | None]:
    """In a worker: the point and the machine, or what hindered it.

    threads: of torch, 0 for all cores of the worker, None for as many as there are.
    """
    _heed_interrupts()
    keep_freed_memory()
    task, complaint = order.unpacked()
    if task is None:
        return f"a worker {complaint}", None
    if threads is not None:
        import torch

        torch.set_num_threads(threads or _cores())
    return measure_point(task), _machine()


def _heed_interrupts() -> None:
    """In a worker: what a shell starts in the background ignores SIGINT, and so do its children.

    Ray cancels a task by such a signal, which would go unheard.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _machine() -> Machine:
    """Of a worker: with the cores that Ray counts on its node, if those are fewer."""
    return {**conditions.machine(), "cores": _cores()}


@functools.cache
def _cores() -> int:
    own = _ray().get_runtime_context().get_node_id()
    return min([conditions.available_cores(), *(node.cores for node in _nodes() if node.id == own)])


def _nodes() -> list[_Node]:
    """The living nodes with at least one core."""
    found = []
    for node in _ray().nodes():
        resources = node["Resources"]
        cores, gpus = int(resources.get("CPU", 0)), int(resources.get("GPU", 0))
        if node["Alive"] and cores >= 1:
            found.append(_Node(node["NodeID"], node["NodeManagerAddress"], cores, gpus))
    return found


def _representatives(tasks: list[PointTask]) -> list[PointTask]:
    """So many of the tasks that every codec and every clip is among them."""
    chosen, seen = [], set()
    for task in tasks:
        parts = {id(task.codec), task.sequence.path}
        if not parts <= seen:
            seen |= parts
            chosen.append(task)
    return chosen


def _next(running: Running) -> ObjectRef:
    (ref, *_), _ = _ray().wait(list(running), num_returns=1)
    return ref


def _outcome(task: PointTask, ref: ObjectRef) -> tuple[RdPoint | Failure, Machine | None]:
    ray = _ray()
    try:
        point, machine = ray.get(ref)
    except ray.exceptions.RayError as exc:
        return _failure(task, f"its workers died or were lost ({_line(exc)})"), None
    return (_failure(task, point) if isinstance(point, str) else point), machine


def _failure(task: PointTask, error: str) -> Failure:
    return Failure(sequence=task.sequence.name, level=task.level, error=error)


def _cancel(refs: list[ObjectRef]) -> None:
    """End tasks: by an interrupt, which ends their encoders too, then by force."""
    ray = _ray()
    for ref in refs:
        ray.cancel(ref)
    if refs:
        _, left = ray.wait(refs, num_returns=len(refs), timeout=_STOP_SECONDS)
        for ref in left:
            ray.cancel(ref, force=True)


def _difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """The first entry that is not as expected, "torch 2.10.0, not 2.11.0"; empty if there is none.

    Of dictionaries in dictionaries the innermost entry.
    """
    for name in {**expected, **found}:
        one, other = expected.get(name), found.get(name)
        if one == other:
            continue
        if isinstance(one, dict) and isinstance(other, dict):
            return _difference(one, other)
        return f"{name} {_short(other)}, not {_short(one)}"
    return ""


def _short(value: Any) -> str:
    """A digest by its beginning, anything else whole."""
    text = "none" if value is None else str(value)
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1", text)


def _line(exc: BaseException) -> str:
    """The last line of a message: Ray puts the cause after tracebacks."""
    lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
    return (lines[-1] if lines else type(exc).__name__)[:300]


def _knock(address: str) -> None:
    """Raise OSError or ValueError where nobody listens: Ray would try for many minutes."""
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise ValueError("an address is HOST:PORT")
    socket.create_connection((host, int(port)), _KNOCK_SECONDS).close()


@contextmanager
def _our_handler_of_sigterm() -> Iterator[None]:
    """Ray sets one that leaves at once; ours unwinds, so that the tasks are cancelled."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


def _ray() -> ModuleType:
    """Ray, imported only where a cluster is asked for."""
    try:
        import ray
    except ImportError as exc:
        raise ConfigError(
            "a cluster needs Ray, which is not installed: pip install 'lvc-lgmc[cluster]'"
        ) from exc
    return ray
