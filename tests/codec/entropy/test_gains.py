"""Tables by quality."""

import pytest
import torch

from codec.entropy.gains import QUALITIES, interpolate_knots, lambda_of, moved_knots


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
