"""BD-rate: cases whose answer is known, and every refusal."""

import math

import bjontegaard
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.interpolate import Akima1DInterpolator, PchipInterpolator

from eval.bdrate import BdRateError, bd_delta, interval_overlap

CURVE = [(0.05, 31.0), (0.1, 33.4), (0.2, 35.6), (0.4, 37.5), (0.8, 39.1)]


def _scaled(factor, shift=0.0):
    return [(rate * factor, quality + shift) for rate, quality in CURVE]


def test_ten_percent_less_rate_is_minus_ten_percent():
    delta = bd_delta(CURVE, _scaled(0.9))
    assert delta.rate_percent == pytest.approx(-10.0, abs=1e-9)
    assert delta.rate_percent_akima == pytest.approx(-10.0, abs=1e-9)
    assert delta.overlap == 1.0
    assert delta.quality_interval == (31.0, 39.1)
    assert delta.quality_db > 0
    assert delta.warnings == ()


def test_a_shift_in_quality_is_bd_psnr():
    delta = bd_delta(CURVE, _scaled(1.0, 0.5))
    assert delta.quality_db == pytest.approx(0.5, abs=1e-9)
    assert delta.rate_percent < 0
    assert delta.overlap == pytest.approx((8.1 - 0.5) / (8.1 + 0.5))


def test_a_curve_against_itself_is_zero():
    delta = bd_delta(CURVE, CURVE)
    assert delta.rate_percent == delta.quality_db == 0.0


def test_a_straight_line_in_log_rate_by_hand():
    """quality = 10 log10(rate) + c: an offset of 1 dB is a rate factor 10^-0.1 everywhere."""
    anchor = [(10 ** (q / 10), q) for q in (10.0, 20.0, 30.0, 40.0)]
    test = [(10 ** ((q - 1) / 10), q) for q in (10.0, 20.0, 30.0, 40.0)]
    delta = bd_delta(anchor, test)
    assert delta.rate_percent == pytest.approx(100 * (10**-0.1 - 1), abs=1e-9)
    assert delta.quality_db == pytest.approx(1.0, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.floats(0.5, 2.0), st.floats(-1.0, 1.0))
def test_swapping_the_curves_inverts_the_ratio(factor, shift):
    test = _scaled(factor, shift)
    there = bd_delta(CURVE, test).rate_percent
    back = bd_delta(test, CURVE).rate_percent
    assert (1 + there / 100) * (1 + back / 100) == pytest.approx(1.0, rel=1e-9)


@settings(deadline=None, max_examples=25)
@given(st.permutations(CURVE), st.floats(1e-3, 1e6))
def test_the_order_of_points_and_the_unit_of_rate_do_not_matter(points, unit):
    test = _scaled(0.8, 0.2)
    plain = bd_delta(CURVE, test)
    other = bd_delta([(r * unit, q) for r, q in points], [(r * unit, q) for r, q in test])
    assert other.rate_percent == pytest.approx(plain.rate_percent, abs=1e-6)
    assert other.quality_db == pytest.approx(plain.quality_db, abs=1e-6)


@pytest.mark.parametrize(
    ("anchor", "test", "words"),
    [
        (CURVE[:3], CURVE, "A has 3 point.*needs 4 or more"),
        (CURVE, [], "T has 0 point"),
        (CURVE, [*CURVE[:3], (0.3, 35.0), CURVE[4]], "T is not monotone: 35.600 dB at rate 0.2"),
        (CURVE, [*CURVE, (0.8, 40.0)], "T is not monotone"),
        ([*CURVE, (1.0, 39.1)], CURVE, "A is not monotone"),
        (CURVE, [(0.0, 30.0), *CURVE], "rate 0.0"),
        (CURVE, [*CURVE, (1.0, math.inf)], "quality inf"),
        (CURVE, [*CURVE, (1.0, math.nan)], "quality nan"),
        (CURVE, _scaled(1.0, 20.0), "T against A: the curves share 0%"),
        (CURVE, _scaled(1.0, 7.0), "at least 25% is needed"),
        (CURVE, _scaled(1.0, 8.1), "the curves share 0%"),
    ],
)
def test_refusals_are_one_line(anchor, test, words):
    with pytest.raises(BdRateError, match=words) as caught:
        bd_delta(anchor, test, anchor_name="A", test_name="T")
    assert "\n" not in str(caught.value)


def test_no_overlap_is_refused_even_when_none_is_asked_for():
    with pytest.raises(BdRateError, match="share 0%"):
        bd_delta(CURVE, _scaled(1.0, 20.0), min_overlap=0.0)


def test_a_figure_that_is_not_finite_is_refused():
    with pytest.raises(BdRateError, match="no finite value"):
        bd_delta(_scaled(1e-200), _scaled(1e200))


def test_a_small_overlap_is_said():
    delta = bd_delta(CURVE, _scaled(1.0, 3.0))
    assert 0.25 < delta.overlap < 0.75
    assert any("share only" in note for note in delta.warnings)


def test_few_points_inside_the_common_range_are_said():
    wide = [(0.01, 20.0), (0.02, 25.0), (1.0, 45.0), (2.0, 50.0)]
    delta = bd_delta(CURVE, wide)
    assert any("test has 0 point(s) inside" in note for note in delta.warnings)


def test_two_points_inside_the_common_range_are_enough():
    wide = [(0.01, 20.0), (0.1, 33.0), (0.4, 37.0), (2.0, 50.0)]
    delta = bd_delta(CURVE, wide)
    assert not any("point(s) inside" in note for note in delta.warnings)


def test_disagreeing_interpolations_are_said():
    bent = [(0.05, 31.0), (0.052, 33.3), (0.3, 33.5), (0.8, 39.1)]
    delta = bd_delta(CURVE, bent)
    assert abs(delta.rate_percent - delta.rate_percent_akima) > 1.0
    assert any("measure more points" in note for note in delta.warnings)


def test_bd_psnr_is_absent_where_the_rates_do_not_meet():
    delta = bd_delta(CURVE, _scaled(0.001))
    assert delta.rate_percent == pytest.approx(-99.9, abs=1e-9)
    assert delta.quality_db is None
    assert any("no BD-PSNR" in note for note in delta.warnings)


def test_bd_psnr_is_absent_where_the_rates_hardly_meet():
    delta = bd_delta(CURVE, _scaled(0.1))
    shared = math.log(0.08 / 0.05) / math.log(0.8 / 0.005)
    assert delta.quality_db is None
    assert f"no BD-PSNR: the curves share {shared:.0%} of their (log) rate range" in delta.warnings
    assert bd_delta(CURVE, _scaled(0.1), min_overlap=0.05).quality_db > 0


def test_overlap_by_hand():
    assert interval_overlap([0, 10], [5, 15]) == pytest.approx(5 / 15)
    assert interval_overlap([5, 15], [0, 10]) == pytest.approx(5 / 15)
    assert interval_overlap([0, 10], [4, 6]) == interval_overlap([6, 4], [10, 0]) == 2 / 10
    assert interval_overlap([0, 1], [2, 3]) == 0.0
    assert interval_overlap([2, 2], [2, 2]) == 0.0


# Points and their BD-rates as published in Netflix's VMAF, python/test/bd_rate_calculator_test.py
# (BDrateCalculatorJCTVCTest), whose calculator is said to be validated against JCTVC-E137; the
# contribution itself (JCTVC-E137-v1.zip, phenix.it-sudparis.eu/jct) was not looked at. Piecewise
# cubic, rates in kbit/s. No pair of curves with a published BD-PSNR by that method was found.
PUBLISHED = {
    "JCTVC-E137, 1": (
        [(108048.8736, 43.6471), (61279.976, 40.3953), (33905.6656, 37.247), (18883.6928, 34.2911)],
        [
            (108061.2784, 43.6768),
            (61299.9936, 40.4232),
            (33928.7472, 37.2761),
            (18910.912, 34.3147),
        ],
        -0.465215420752807,
    ),
    "JCTVC-E137, 2": (
        [(40433.8848, 37.5761), (7622.7456, 35.3756), (2394.488, 33.8977), (1017.6184, 32.0603)],
        [(40370.12, 37.5982), (7587.0024, 35.4025), (2390.0944, 33.9194), (1017.0984, 32.0822)],
        -1.8779823450567612,
    ),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_bd_rates(name):
    anchor, test, rate_percent = PUBLISHED[name]
    assert bd_delta(anchor, test).rate_percent == pytest.approx(rate_percent, abs=1e-6)


@st.composite
def _curves(draw):
    """Two strictly rising curves of 4 to 8 points each that overlap by far more than a quarter."""
    pair = []
    for _ in range(2):
        steps = draw(st.lists(st.floats(0.2, 2.0), min_size=3, max_size=7))
        factors = draw(st.lists(st.floats(1.05, 3.0), min_size=len(steps), max_size=len(steps)))
        start = draw(st.floats(30.0, 30.2))
        scale = 10.0 / sum(steps)  # every curve spans 10 dB
        rate, quality = draw(st.floats(0.01, 0.05)), start
        points = [(rate, quality)]
        for step, factor in zip(steps, factors, strict=True):
            rate, quality = rate * factor, quality + step * scale
            points.append((rate, quality))
        pair.append(draw(st.permutations(points)))
    return pair


@settings(deadline=None, max_examples=100)
@given(_curves())
def test_random_curves_agree_with_the_package(pair):
    """Order, refusals and warnings around it do not change what the package says."""
    columns = [list(column) for curve in pair for column in zip(*sorted(curve), strict=True)]
    options = {"require_matching_points": False, "min_overlap": 0}
    delta = bd_delta(*pair)
    for method, found in (("pchip", delta.rate_percent), ("akima", delta.rate_percent_akima)):
        expected = bjontegaard.bd_rate(*columns, method=method, **options)
        assert found == pytest.approx(expected, abs=1e-6)
    if delta.quality_db is not None:
        expected = bjontegaard.bd_psnr(*columns, method="pchip", **options)
        assert delta.quality_db == pytest.approx(expected, abs=1e-6)


def _mean_gap(anchor, test, interpolator):
    """Mean of test - anchor over the common range of x, of curves [(x, y)], by definition."""
    low = max(anchor[0][0], test[0][0])
    high = min(anchor[-1][0], test[-1][0])
    areas = [
        interpolator(*zip(*curve, strict=True)).integrate(low, high) for curve in (anchor, test)
    ]
    return float(areas[1] - areas[0]) / (high - low)


@settings(deadline=None, max_examples=100)
@given(_curves())
def test_random_curves_agree_with_the_definition(pair):
    """Bjontegaard's integrals written out over SciPy's interpolation of log10 rate."""
    by_quality = [sorted((q, math.log10(r)) for r, q in curve) for curve in pair]
    by_rate = [sorted((math.log10(r), q) for r, q in curve) for curve in pair]
    delta = bd_delta(*pair)
    for interpolator, found in (
        (PchipInterpolator, delta.rate_percent),
        (Akima1DInterpolator, delta.rate_percent_akima),
    ):
        expected = 100 * (10 ** _mean_gap(*by_quality, interpolator) - 1)
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-6)
    if delta.quality_db is not None:
        assert delta.quality_db == pytest.approx(_mean_gap(*by_rate, PchipInterpolator), abs=1e-6)
