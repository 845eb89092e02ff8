"""What can be measured: a benchmark is a gate and a list of figures."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured, e.g. ``decode 416x240``.
        value, unit: the median where there were several runs.
        low, high: their minimum and maximum.
        limit: what the project holds it to, ``"<= 80"`` or ``">= 15"``; empty for none.
    """

    name: str
    value: float
    unit: str
    low: float | None = None
    high: float | None = None
    limit: str = ""

    @property
    def holds(self) -> bool | None:
        """Whether the value is within its limit; None without one."""
        if not self.limit:
            return None
        relation, bound = self.limit.split()
        return self.value <= float(bound) if relation == "<=" else self.value >= float(bound)

    def as_json(self) -> dict[str, object]:
        return {**asdict(self), "holds": self.holds}


@dataclass(frozen=True)
class Benchmark:
    """A suite.

    Attributes:
        gate: raises LgmcError where results are wrong; runs first.
        measure: the figures, given the command's options.
    """

    gate: Callable[[dict], None]
    measure: Callable[[dict], list[Figure]]


# Suite -> the module that defines ``BENCHMARK``.
_SUITES = {"codec": "benchmarks.codec_speed"}


def suites() -> list[str]:
    return list(_SUITES)


def load(name: str) -> Benchmark:
    return import_module(_SUITES[name]).BENCHMARK
