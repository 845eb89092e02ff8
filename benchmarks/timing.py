"""Times of interleaved runs: A B C A B C, so that what else the machine does hits all alike."""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

BLOCK_SECONDS = {"cpu": 0.04, "cuda": 0.015}
"""A quick call is repeated this long within a round; the round's time is the repeats' median."""
MAX_REPEATS = 50
FLUSHED_BYTES = 256 << 20
"""Written before each timed call on a GPU, so that no call finds its input in the cache."""


@dataclass(frozen=True)
class Times:
    """Milliseconds of one contender, one figure a round.

    Attributes:
        forward: of the call, or of the part before the mark.
        backward: of the part after the mark; empty for calls without one.
    """

    forward: list[float]
    backward: list[float]

    @property
    def total(self) -> list[float]:
        """Forward and backward together, a round each."""
        if not self.backward:
            return self.forward
        return [a + b for a, b in zip(self.forward, self.backward, strict=True)]

    @staticmethod
    def of(rounds: list[tuple[float, float | None]]) -> "Times":
        return Times([f for f, _ in rounds], [b for _, b in rounds if b is not None])


Step = Callable[[], object]
Pair = tuple[Step, Callable[[object], object] | None]
"""A forward call, and what runs its backward on the forward's result (None: forward only)."""


def interleaved(
    calls: Mapping[str, Pair],
    rounds: int,
    device: str,
    *,
    warm_up: int = 1,
    seconds: float | None = None,
) -> dict[str, Times]:
    """Times of each call in ``rounds`` rounds, one after the other within a round.

    Args:
        calls: name -> (forward, backward or None).
        device: ``"cpu"`` or ``"cuda"``; on a GPU the time is the stream's, between events, with
            the cache overwritten before each call.
        warm_up: untimed runs of each call before the first round.
        seconds: begin no further round after this many seconds; the first always runs.
    """
    clock = _cuda_clock() if device == "cuda" else _cpu_clock
    for call in calls.values():
        for _ in range(warm_up):
            clock(call)
    found: dict[str, list[tuple[float, float | None]]] = {name: [] for name in calls}
    started = time.perf_counter()
    for _ in range(rounds):
        for name, call in calls.items():
            found[name].append(_block(clock, call, BLOCK_SECONDS[device]))
        if seconds is not None and time.perf_counter() - started > seconds:
            break
    return {name: Times.of(values) for name, values in found.items()}


def ratios(slow: list[float], fast: list[float]) -> tuple[float, float, float]:
    """Median, lowest and highest of slow / fast, round by round."""
    values = [a / b for a, b in zip(slow, fast, strict=True)]
    return statistics.median(values), min(values), max(values)


def _block(clock: Callable, call: Pair, seconds: float) -> tuple[float, float | None]:
    results: list[tuple[float, float | None]] = []
    started = time.perf_counter()
    while not results or (time.perf_counter() - started < seconds and len(results) < MAX_REPEATS):
        results.append(clock(call))
    backward = [b for _, b in results if b is not None]
    return (
        statistics.median(f for f, _ in results),
        statistics.median(backward) if backward else None,
    )


def _cpu_clock(call: Pair) -> tuple[float, float | None]:
    forward, backward = call
    started = time.perf_counter()
    result = forward()
    middle = time.perf_counter()
    if backward is None:
        return 1000 * (middle - started), None
    backward(result)
    return 1000 * (middle - started), 1000 * (time.perf_counter() - middle)


def _cuda_clock() -> Callable[[Pair], tuple[float, float | None]]:
    import torch

    flushed = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device="cuda")

    def clock(call: Pair) -> tuple[float, float | None]:
        forward, backward = call
        start, middle, end = (torch.cuda.Event(enable_timing=True) for _ in range(3))
        flushed.zero_()
        start.record()
        result = forward()
        middle.record()
        if backward is not None:
            backward(result)
        end.record()
        torch.cuda.synchronize()
        after = middle.elapsed_time(end) if backward is not None else None
        return start.elapsed_time(middle), after

    return clock
