"""Frame times: is the rate constant, which one is it, and a constant one by nearest times."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TypeVar

Item = TypeVar("Item")

_COMMON_RATES = tuple(
    Fraction(rate)
    for rate in "24000/1001 24 25 30000/1001 30 48 50 60000/1001 60 120000/1001 120".split()
)

LONGEST_REORDER = 16  # most B frames in a row of H.264 and HEVC


def constant_rate(
    times: list[Fraction], hints: Iterable[Fraction | None], tick: Fraction
) -> Fraction | None:
    """The frame rate on which all times lie, or None if there is none.

    times: ascending presentation times in seconds. hints: rates that the container names, best
    first. tick: the unit of its time stamps in seconds. Tried are the hints, the common rates, and
    the mean rate. A time may be off its place by a tenth of a frame, and by 1.5 ticks where ticks
    are coarse (Matroska's 1/1000 s), which is what rounding time stamps does to a constant rate.
    One frame has the rate of the first hint.
    """
    rates = [Fraction(rate) for rate in hints if rate]
    span = times[-1] - times[0] if times else Fraction(0)
    if span > 0:
        mean = (len(times) - 1) / span
        near = [rate for rate in _COMMON_RATES if abs(rate / mean - 1) < Fraction(1, 50)]
        rates += sorted(near, key=lambda rate: abs(rate - mean))
        rates += [mean.limit_denominator(1001), mean]
    if len(times) < 2:
        return rates[0] if rates else None
    seconds = [float(time - times[0]) for time in times]
    return next((rate for rate in rates if rate > 0 and _fits(seconds, rate, tick)), None)


def whole_beginning(
    times: list[Fraction], hints: Iterable[Fraction | None], tick: Fraction
) -> int | None:
    """How many frames stand before the first gap, where all times lie on one rate but for gaps
    among the last LONGEST_REORDER; None where they do not.

    So ends a file that was cut off: B frames are stored behind the frames that they are shown
    before.
    """
    rate = constant_rate(times[:-LONGEST_REORDER], hints, tick)
    if rate is None or len(times) < LONGEST_REORDER + 2:
        return None
    places = [float((time - times[0]) * rate) for time in times]
    slack = 0.1 + 1.5 * float(tick * rate)
    if any(abs(place - round(place)) > slack for place in places):
        return None
    numbers = [round(place) for place in places]
    gaps = [i for i, number in enumerate(numbers) if number != i]
    return gaps[0] if gaps and numbers[-1] < len(times) + LONGEST_REORDER else None


def presentation_times(
    stamps: Sequence[tuple[int | None, int | None]], tick: Fraction
) -> list[Fraction]:
    """Ascending times in seconds of packets with (pts, dts) in units of `tick`.

    Where a pts is missing (AVI) the dts serve, whose order and spacing are the same; where those
    are missing too (elementary streams) there are no times and the list is empty.
    """
    for which in (0, 1):
        column = [stamp[which] for stamp in stamps]
        if None not in column:
            return [value * tick for value in sorted(column)]
    return []


def _fits(seconds: list[float], rate: Fraction, tick: Fraction) -> bool:
    """Whether seconds[i] = start + i / rate for some start, but for rounding."""
    frame = float(1 / rate)
    slack = frame / 10
    if tick <= frame / 4:  # coarser ticks cannot be told from dropped frames
        slack = max(slack, 1.5 * float(tick))
    errors = [second - index * frame for index, second in enumerate(seconds)]
    return max(errors) - min(errors) <= 2 * slack


def resample(
    timed: Iterable[tuple[Fraction, Item]], rate: Fraction, last_duration: Fraction
) -> Iterator[Item]:
    """Items at a constant rate: for the k-th tick of `rate` the item whose time is nearest, counted
    from the first item's time (the earlier of two equally near ones).

    timed: (seconds, item), ascending; read as needed and never held but for two. last_duration: how
    long the last item lasts, in seconds. Items between ticks are dropped, others come again.
    """
    index = 0
    start = previous = None
    for time, item in timed:
        if previous is None:
            start = time
        else:
            middle = (previous[0] + time) / 2
            while start + index / rate <= middle:
                yield previous[1]
                index += 1
        previous = (time, item)
    if previous is not None:
        while start + index / rate < previous[0] + last_duration:
            yield previous[1]
            index += 1


def resampled_count(
    first: Fraction, last: Fraction, rate: Fraction, last_duration: Fraction
) -> int:
    """How many items `resample` yields for times from `first` to `last`."""
    ticks_before_end = math.ceil((last + last_duration - first) * rate)
    return max(ticks_before_end, 1)
