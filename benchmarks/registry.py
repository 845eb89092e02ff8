"""What can be measured: a benchmark is a gate and a list of figures."""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
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
class Measured:
    """What a suite that compares many things found.

    Attributes:
        figures: the numbers that somebody holds the project to.
        rows: one for each thing at each size, with the keys of ``benchmarks.kernels``.
        ceilings: what the machine can do, measured beside them.
    """

    figures: list[Figure]
    rows: list[dict]
    ceilings: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """A suite.

    Attributes:
        gate: raises LgmcError where results are wrong; runs first.
        measure: the figures, or figures and rows, given the command's options.
        packages: distributions whose versions matter to it besides those of every result file.
    """

    gate: Callable[[dict], None]
    measure: Callable[[dict], list[Figure] | Measured]
    packages: tuple[str, ...] = ()

    def results(self, options: dict) -> Measured:
        """Pass the gate, then measure."""
        self.gate(options)
        found = self.measure(options)
        return found if isinstance(found, Measured) else Measured(found, [])


# Suite -> the module that defines ``BENCHMARK``.
_SUITES = {
    "codec": "benchmarks.codec_speed",
    "kernels": "benchmarks.kernels",
    "loader": "benchmarks.loader",
    "training": "benchmarks.training",
}


def suites() -> list[str]:
    return list(_SUITES)


def load(name: str) -> Benchmark:
    return import_module(_SUITES[name]).BENCHMARK
