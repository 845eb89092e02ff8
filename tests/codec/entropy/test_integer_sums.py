"""Exact convolutions by the inputs that are not zero, against loops over int64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.entropy.integer_sums import convolved

MOST = 1 << 14  # of an activation, and twice that of a weight: codec/entropy/scale_path.py


def expected(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """In int64, tap by tap."""
    weight, size = weight.to(torch.int64), weight.shape[-1]
    x = torch.nn.functional.pad(x.to(torch.int64), (size // 2,) * 4)
    height, width = x.shape[-2] - size + 1, x.shape[-1] - size + 1
    out = bias.to(torch.int64)[None, :, None, None].repeat(x.shape[0], 1, height, width)
    for i in range(size):
        for j in range(size):
            patch = x[:, None, :, i : i + height, j : j + width]
            out += (weight[None, :, :, i, j, None, None] * patch).sum(2)
    return out


def on_threads(count, *arguments):
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        return convolved(*arguments)
    finally:
        torch.set_num_threads(before)


def inputs(batch, channels, outputs, height, width, size, share, seed):
    torch.manual_seed(seed)
    x = torch.randint(-MOST, MOST + 1, (batch, channels, height, width))
    x = (x * (torch.rand(x.shape) < share)).double()
    weight = torch.randint(-2 * MOST, 2 * MOST + 1, (outputs, channels, size, size)).double()
    return x, weight, torch.randint(-(1 << 28), 1 << 28, (outputs,)).double()


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    channels=st.integers(1, 9),
    outputs=st.integers(1, 70),
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    size=st.sampled_from([1, 3, 5]),
    share=st.sampled_from([0.0, 0.1, 0.6, 1.0]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_it_is_what_loops_over_integers_give(threads, **what):
    x, weight, bias = inputs(**what)
    out = on_threads(threads, x, weight, bias)
    assert out.dtype == torch.float64
    assert torch.equal(out.to(torch.int64), expected(x, weight, bias))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_rows_that_pieces_share_are_whole(threads):
    """More rows than one piece has, in images whose ends lie inside of pieces."""
    x, weight, bias = inputs(3, 4, 6, 37, 5, 3, 0.3, 7)
    out = on_threads(threads, x, weight, bias)
    assert torch.equal(out.to(torch.int64), expected(x, weight, bias))


def test_sums_are_exact_where_float32_is_not():
    """As many products as there may be, each as large as it may be, and one unit more."""
    x = torch.full((1, 455, 3, 3), float(MOST), dtype=torch.float64)
    weight = torch.full((2, 455, 3, 3), float(2 * MOST), dtype=torch.float64)
    bias = torch.tensor([1.0, -1.0], dtype=torch.float64)
    middle = convolved(x, weight, bias)[0, :, 1, 1]
    assert middle.tolist() == [9 * 455 * 2 * MOST**2 + 1, 9 * 455 * 2 * MOST**2 - 1]


def test_any_strides_and_inference_mode():
    x, weight, bias = inputs(2, 6, 5, 4, 7, 3, 0.5, 3)
    whole = convolved(x, weight, bias)
    wider = torch.zeros(2, 6, 4, 14, dtype=torch.float64)
    wider[..., ::2] = x
    assert torch.equal(convolved(wider[..., ::2], weight, bias), whole)
    with torch.inference_mode():
        last = x.contiguous(memory_format=torch.channels_last)
        assert torch.equal(convolved(last, weight.clone(), bias.clone()), whole)
