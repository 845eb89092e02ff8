"""Means of BD figures: per class, over classes, over sequences, and where one is refused."""

import json
import re

import pytest

from codec.errors import ConfigError
from eval.bdrate import BdDelta
from eval.compare import Comparison
from eval.report.papers import latex
from eval.tables import comparison_lines
from eval.testsets import load_sets
from eval.testsets.classes import REST, classes_of, load_classes

B = ("Cactus_1920x1080_50", "ParkScene_1920x1080_24", "Kimono1_1920x1080_24")
C = ("BQMall_832x480_60",)


def _delta(rate, quality=1.0):
    return BdDelta(rate, quality, rate, 1.0, (30.0, 40.0))


def _comparison(deltas, **fields):
    return Comparison("x265", "lite", "psnr_rgb", deltas, **fields)


def test_every_sequence_of_a_test_set_is_in_the_class_of_its_name():
    for one in load_sets().values():
        names = [sequence.name for sequence in one.sequences]
        assert set(classes_of(names).values()) == {one.name}


def test_a_mapping_goes_before_the_test_sets_and_the_rest_is_one_class():
    names = (B[0], C[0], "mine", "yours")
    assert classes_of(names) == {B[0]: "HEVC-B", C[0]: "HEVC-C", "mine": REST, "yours": REST}
    found = classes_of(names, {"mine": "home", B[0]: "home"})
    assert found == {B[0]: "home", C[0]: "HEVC-C", "mine": "home", "yours": REST}


def test_means_by_hand():
    """Three sequences in one class, one in the other: the two means are different figures."""
    rates = dict(zip((*B, *C), (-10.0, -20.0, -30.0, 40.0), strict=True))
    gains = dict(zip((*B, *C), (1.0, 2.0, 3.0, -4.0), strict=True))
    comparison = _comparison({name: _delta(rates[name], gains[name]) for name in rates})
    assert list(comparison.by_class) == ["HEVC-B", "HEVC-C"]
    assert comparison.by_class["HEVC-B"].rate_percent == pytest.approx(-20.0)
    assert comparison.by_class["HEVC-B"].quality_db == pytest.approx(2.0)
    assert comparison.over_sequences.rate_percent == pytest.approx(-5.0)
    assert comparison.over_sequences.quality_db == pytest.approx(0.5)
    assert comparison.over_classes.rate_percent == pytest.approx(10.0)
    assert comparison.over_classes.quality_db == pytest.approx(-1.0)
    assert not comparison.over_classes.partial and comparison.over_classes.total == 2
    content = json.loads(json.dumps(comparison.to_json(), allow_nan=False))
    assert content["mean_over_classes"]["rate_percent"] == pytest.approx(10.0)
    assert content["mean_over_sequences"]["rate_percent"] == content["mean_rate_percent"]
    assert content["classes"]["HEVC-B"]["computed"] == 3
    text = "\n".join(comparison_lines(comparison))
    assert "class HEVC-B (3)" in text and "class HEVC-C (1)" in text
    assert "mean over classes (2)" in text and "mean over sequences (4)" in text
    assert "partial" not in text


def test_a_refused_sequence_leaves_the_other_means_and_marks_them_as_partial():
    deltas = {B[0]: _delta(-10.0), B[1]: "no overlap", C[0]: _delta(40.0)}
    comparison = _comparison(deltas)
    classes = comparison.by_class
    assert (classes["HEVC-B"].rate_percent, classes["HEVC-B"].partial) == (-10.0, True)
    assert (classes["HEVC-B"].computed, classes["HEVC-B"].total) == (1, 2)
    assert (classes["HEVC-C"].rate_percent, classes["HEVC-C"].partial) == (40.0, False)
    assert comparison.over_sequences.rate_percent == pytest.approx(15.0)
    assert comparison.over_sequences.partial
    assert comparison.over_classes.rate_percent == pytest.approx(15.0)
    assert comparison.over_classes.partial
    text = "\n".join(comparison_lines(comparison))
    assert "class HEVC-B (1 of 2, partial)" in text and "class HEVC-C (1)" in text
    assert "mean over classes (2, partial)" in text
    assert "mean over sequences (2 of 3, partial)" in text


def test_a_partial_mean_has_a_star_in_latex():
    whole = _comparison({B[0]: _delta(-10.0), B[1]: _delta(-20.0)})
    part = _comparison({B[0]: _delta(-10.0), B[1]: "no overlap"})
    assert "Mean & $-15.00$ & $-10.00^{*}$" in latex([whole, part])


def test_a_class_without_any_figure_is_shown_and_is_in_no_mean():
    comparison = _comparison({B[0]: "no overlap", C[0]: _delta(40.0)})
    assert comparison.by_class["HEVC-B"].rate_percent is None
    assert comparison.over_classes.rate_percent == 40.0
    assert (comparison.over_classes.computed, comparison.over_classes.total) == (1, 2)
    text = "\n".join(comparison_lines(comparison))
    assert re.search(r"class HEVC-B \(0 of 1\) +none", text)
    assert "mean over classes (1 of 2, partial)" in text


def test_nothing_computed_has_no_means():
    comparison = _comparison({B[0]: "no overlap", C[0]: "too few points"})
    assert comparison.over_classes.rate_percent is None
    assert comparison.over_sequences.quality_db is None
    text = "\n".join(comparison_lines(comparison))
    assert re.search(r"mean over sequences \(0 of 2\) +none", text)


def test_bd_psnr_that_is_missing_is_counted_apart():
    comparison = _comparison({B[0]: _delta(-10.0, None), B[1]: _delta(-20.0, 0.5)})
    mean = comparison.over_sequences
    assert (mean.computed, mean.quality_computed, mean.quality_db) == (2, 1, 0.5)
    assert not mean.partial
    text = "\n".join(comparison_lines(comparison))
    assert re.search(r"mean over sequences \(2, BD-PSNR of 1\) .* \+0.500 dB", text)


def test_one_class_alone_has_one_mean():
    text = "\n".join(comparison_lines(_comparison({B[0]: _delta(-10.0), B[1]: _delta(-20.0)})))
    assert "mean over sequences (2)" in text and "class" not in text


def test_vmaf_is_not_of_decibels():
    deltas = {B[0]: _delta(-10.0), B[1]: _delta(-20.0)}
    text = "\n".join(comparison_lines(Comparison("x265", "lite", "vmaf", deltas)))
    assert "+1.000" in text and "dB" not in text
    assert "+1.000 dB" in "\n".join(comparison_lines(_comparison(deltas)))


def test_a_file_of_classes(tmp_path):
    path = tmp_path / "classes.json"
    path.write_text('{"A": ["one", "two"], "B": ["three"]}')
    assert load_classes(path) == {"one": "A", "two": "A", "three": "B"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("[]", "is not of the form"),
        ('{"A": "one"}', "is not of the form"),
        ('{"A": [1]}', "is not of the form"),
        ('{"A": ["one"], "B": ["one"]}', "has one in A and in B"),
    ],
)
def test_a_file_that_is_not_of_classes_is_refused(tmp_path, text, words):
    path = tmp_path / "classes.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        load_classes(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        load_classes(tmp_path / "none.json")
