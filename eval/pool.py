"""Who measures the points of an evaluation: threads of this process, or workers elsewhere.

``eval.cluster`` has the workers elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Protocol

from eval import conditions
from eval.conditions import Machine
from eval.point import PointTask, measure_point
from eval.results import Failure, RdPoint

Outcome = tuple[PointTask, RdPoint | Failure, Machine | None]
"""A task, what came of it, and the machine that measured it (None: it never ran)."""


class Pool(Protocol):
    """Measures tasks, in any order, and says where each was measured."""

    measures_here: bool
    """Whether in this process: then its codecs have to be ready to run."""

    def prepare(self, tasks: list[PointTask]) -> list[Machine]:
        """The kinds of machines that may measure them, the commonest first.

        Raises LgmcError where it is clear beforehand that they cannot be measured.
        """
        ...

    def threads(self, machine: Machine) -> int:
        """How many a model runs with on that machine."""
        ...

    def run(self, tasks: list[PointTask], *, alone: bool) -> Iterator[Outcome]:
        """Every task once, as it is done.

        alone: one at a time on a machine, with ``threads``; else as many as it has cores.
        Closed before its end, it stops what runs.
        """
        ...


class LocalPool:
    """Threads of this process.

    jobs: tasks at once where they are not alone, all cores when None.
    """

    measures_here = True

    def __init__(self, jobs: int | None = None) -> None:
        self.jobs = jobs

    def prepare(self, tasks: list[PointTask]) -> list[Machine]:
        """This machine."""
        return [conditions.machine()]

    def threads(self, machine: Machine) -> int:
        """As many as torch has in this process."""
        import torch

        return torch.get_num_threads()

    def run(self, tasks: list[PointTask], *, alone: bool) -> Iterator[Outcome]:
        """As ``Pool.run``; tasks that run alone do so in the thread that asks for them."""
        machine = conditions.machine()
        if alone:
            for task in tasks:
                yield task, measure_point(task), machine
            return
        with ThreadPoolExecutor(self.jobs or conditions.available_cores()) as threads:
            futures = {threads.submit(measure_point, task): task for task in tasks}
            try:
                for future in as_completed(futures):
                    yield futures[future], future.result(), machine
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                for task in tasks:
                    task.codec.abort()
                raise
