from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.video.timing import (
    constant_rate,
    presentation_times,
    resample,
    resampled_count,
    whole_beginning,
)

RATES = [Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)]


@given(
    rate=st.sampled_from(RATES),
    count=st.integers(3, 400),
    tick=st.sampled_from([Fraction(1, 1000), Fraction(1, 90000), Fraction(1, 600)]),
    start=st.integers(-50, 5000),
    hinted=st.booleans(),
)
@settings(deadline=None, max_examples=80)
def test_rounded_time_stamps_are_constant(rate, count, tick, start, hinted):
    """Any container's rounding of a constant rate is seen through, with its hint or without."""
    times = [round((start + index) / rate / tick) * tick for index in range(count)]
    found = constant_rate(times, [rate] if hinted else [None], tick)
    assert found is not None
    if hinted:
        assert found == rate
    else:  # few frames cannot tell 24 from 23.976
        assert abs(found / rate - 1) < 3 * tick * rate / (count - 1) + Fraction(1, 10**9)


def test_wrong_hints_are_passed_over():
    times = [index / Fraction(25) for index in range(50)]
    assert constant_rate(times, [Fraction(90000), None, Fraction(50)], Fraction(1, 90000)) == 25


@pytest.mark.parametrize("tick", [Fraction(1, 24), Fraction(1, 1000), Fraction(1, 90000)])
@pytest.mark.parametrize(
    "places",
    [
        [0, 1, 3],
        [0, 2, 3],
        [0, 1, 2, 4, 5, 6],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11],
        [0, 1, 2, 4, 6, 8, 10],
        [*range(500), *range(501, 1000)],
    ],
)
def test_gaps_and_changes_are_not_constant(places, tick):
    times = [round(place / Fraction(24) / tick) * tick for place in places]
    assert constant_rate(times, [Fraction(24), None, Fraction(24)], tick) is None


@pytest.mark.parametrize("tick", [Fraction(1, 24), Fraction(1, 1000), Fraction(1, 90000)])
@pytest.mark.parametrize(
    ("places", "whole"),
    [
        ([*range(40), 43], 40),
        ([*range(40), 41, 43, 45], 40),
        ([*range(40), 40, 43, 44], 41),
        ([*range(40)], None),
        ([*range(20), *range(21, 60)], None),
        ([*range(40), *range(40, 80, 2)], None),
        ([*range(40), 40.5, 43], None),
        ([*range(40), 90], None),
        ([*range(40), 56], 40),
        ([*range(40), 57], None),
        ([*range(17), 18], 17),
        ([*range(16), 17], None),
        ([*range(14), 15], None),
        ([0, 1, 3], None),
    ],
)
def test_gaps_at_the_end_alone_are_those_of_a_file_cut_off(tick, places, whole):
    times = [round(Fraction(place) / 24 / tick) * tick for place in places]
    if 40.5 in places and tick == Fraction(1, 24):
        pytest.skip("such ticks have no such place")
    assert whole_beginning(times, [Fraction(24)], tick) == whole


def test_few_frames():
    assert constant_rate([Fraction(5)], [Fraction(30)], Fraction(1, 1000)) == 30
    assert constant_rate([Fraction(0), Fraction(1, 5)], [None], Fraction(1, 1000)) == 5
    assert constant_rate([Fraction(0), Fraction(1, 24)], [Fraction(24)], Fraction(1, 1000)) == 24
    assert constant_rate([], [], Fraction(1, 1000)) is None


def test_presentation_times():
    tick = Fraction(1, 10)
    assert presentation_times([(3, 0), (1, 1), (2, 2)], tick) == [tick, 2 * tick, 3 * tick]
    assert presentation_times([(None, 0), (1, 1)], tick) == [0, tick]
    assert presentation_times([(None, None), (1, None)], tick) == []


def nearest(times, rate, last_duration):
    """By brute force: for each output time the nearest frame, the earlier of two equals."""
    chosen = []
    index = 0
    while times[0] + index / rate < times[-1] + last_duration:
        tick = times[0] + index / rate
        chosen.append(min(range(len(times)), key=lambda i: (abs(times[i] - tick), i)))
        index += 1
    return chosen


@given(
    gaps=st.lists(st.integers(1, 9), min_size=0, max_size=25),
    start=st.integers(-20, 20),
    rate=st.fractions(Fraction(1), Fraction(90), max_denominator=11),
    last=st.integers(1, 9),
)
@settings(deadline=None, max_examples=150)
def test_resampling_takes_the_nearest(gaps, start, rate, last):
    times = [Fraction(start, 30)]
    for gap in gaps:
        times.append(times[-1] + Fraction(gap, 30))
    last = Fraction(last, 30)
    got = list(resample(((time, index) for index, time in enumerate(times)), rate, last))
    assert got == nearest(times, rate, last)
    assert len(got) == resampled_count(times[0], times[-1], rate, last)


def test_resampling_reads_no_further_than_it_must():
    taken = []

    def source():
        for index in range(100):
            taken.append(index)
            yield Fraction(index, 10), index

    out = resample(source(), Fraction(10), Fraction(1, 10))
    assert [next(out) for _ in range(3)] == [0, 1, 2]
    assert len(taken) <= 5


def test_nothing_resampled_is_nothing():
    assert list(resample(iter(()), Fraction(25), Fraction(1))) == []
