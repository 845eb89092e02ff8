"""Tables by quality."""

import math

import pytest
import torch

from codec.entropy.gains import (
    QUALITIES,
    half_log_range,
    interpolate_knots,
    lambda_of,
    make_gain,
    moved_knots,
)


def test_rows_at_the_knots_are_theirs_and_between_them_on_a_line():
    table = torch.randn(8, 5)
    at_knots = interpolate_knots(table, torch.arange(8) * 9)
    torch.testing.assert_close(at_knots, table, atol=1e-5, rtol=0)
    between = interpolate_knots(table, torch.tensor([3.0, 57.0]))
    expected = torch.stack((table[0] * 2 + table[1], table[6] * 2 + table[7])) / 3
    torch.testing.assert_close(between, expected, atol=1e-5, rtol=0)
    beyond = interpolate_knots(table, torch.tensor([-3.0, 70.0]))
    torch.testing.assert_close(beyond, table[[0, -1]], atol=1e-5, rtol=0)


def test_a_fresh_gain_has_its_span_and_its_middle():
    span = half_log_range(16.0, 4096.0)
    assert span == pytest.approx(math.log(16))
    factors = make_gain(True, 3, span, 4.0)(torch.tensor([0.0, 31.5, 63.0]))
    assert factors.shape == (3, 3, 1, 1)
    expected = torch.tensor([1.0, 4.0, 16.0])[:, None].expand(3, 3)
    torch.testing.assert_close(factors[..., 0, 0].detach(), expected)
    assert torch.equal(make_gain(True, 2)(torch.tensor([50.0])), torch.ones(1, 2, 1, 1))
    assert torch.equal(make_gain(False, 3, span, 4.0)(torch.zeros(2)), torch.ones(2, 1, 1, 1))


@pytest.mark.parametrize("old, new", [((32, 8192), (64, 16384)), ((10, 90), (20, 45))])
def test_moved_tables_keep_what_each_lambda_has(old, new):
    """Of a table that is straight in log lambda all of it, beyond its ends too."""
    knots = torch.linspace(-1, 1, 8)[:, None] * torch.tensor([2.0, -0.5, 0.0]) + 0.3
    moved = moved_knots(knots, old, new)
    quality = torch.arange(QUALITIES)
    slope = (knots[-1] - knots[0]) / (QUALITIES - 1)
    log_lambda = torch.log(lambda_of(quality, *new))
    ends = torch.log(torch.tensor(old, dtype=torch.float32))
    position = (log_lambda - ends[0]) / (ends[1] - ends[0]) * (QUALITIES - 1)
    expected = knots[0] + position[:, None] * slope
    torch.testing.assert_close(interpolate_knots(moved, quality), expected, atol=1e-5, rtol=1e-5)


def test_the_same_range_moves_nothing():
    table = torch.randn(8, 5)
    assert torch.equal(moved_knots(table, (32, 8192), (32, 8192)), table)
