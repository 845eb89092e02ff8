"""The exact scale path against plain int64 arithmetic, and its float32 emulation against it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.entropy.gains import interpolate_knots
from codec.entropy.scale_path import ExactScalePath, IntegerConv, SecondScalePath


def int64_conv(x: torch.Tensor, conv: IntegerConv) -> torch.Tensor:
    """The same sums in int64, by loops over the kernel."""
    weight = conv.integer_weight().to(torch.int64)
    bias = conv.integer_bias().to(torch.int64)
    k = weight.shape[-1]
    x = torch.nn.functional.pad(x.to(torch.int64), (k // 2,) * 4)
    height, width = x.shape[-2] - k + 1, x.shape[-1] - k + 1
    out = bias[None, :, None, None].repeat(x.shape[0], 1, height, width)
    for i in range(k):
        for j in range(k):
            patch = x[:, :, i : i + height, j : j + width]
            out += (weight[None, :, :, i, j, None, None] * patch[:, None]).sum(2)
    return out


def int64_path(path, z, previous, quality):
    """ExactScalePath.exact written with integers only."""
    shuffle = torch.nn.functional.pixel_shuffle

    def activate(sums):
        return ((sums + (1 << 11)) >> 12).clamp(0, 1 << 14)

    x = z.to(torch.int64).clamp(-127, 127) * 64
    x = activate(shuffle(int64_conv(x, path.up1).double(), 2).to(torch.int64))
    x = activate(shuffle(int64_conv(x, path.up2).double(), 2).to(torch.int64))
    if path.temporal:
        seen = torch.zeros(x.shape[0], previous.shape[1], *x.shape[-2:], dtype=torch.int64)
        seen[..., : previous.shape[2], : previous.shape[3]] = previous.abs().clamp(max=63)
        x = torch.cat((x, activate(int64_conv(seen * 64, path.previous))), 1)
    sums = int64_conv(activate(int64_conv(x, path.hidden)), path.last)
    sums = sums + path.offset_table[quality].to(torch.int64)[:, :, None, None]
    return (sums + (1 << 17)) >> 18


def path_and_inputs(seed: int, temporal: bool, height: int, width: int, loud: float):
    torch.manual_seed(seed)
    path = ExactScalePath(5, 6, 8, temporal)
    with torch.no_grad():
        for parameter in path.parameters():
            parameter.mul_(loud).add_(0.1 * torch.randn_like(parameter))
    path.update()
    z = torch.randint(-200, 200, (2, 5, height, width)).float()
    previous = torch.randint(-90, 90, (2, 6, 4 * height - 1, 4 * width - 3)).float()
    return path, z, previous, torch.tensor([3, 60])


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 1000), st.booleans(), st.integers(1, 4), st.integers(1, 5), st.floats(0.1, 30)
)
def test_exact_is_integer_arithmetic(seed, temporal, height, width, loud):
    path, z, previous, quality = path_and_inputs(seed, temporal, height, width, loud)
    ours = path.exact(z, previous, quality)
    assert torch.equal(ours.long(), int64_path(path, z, previous, quality).clamp(-1, 1 << 15))


def test_threads_and_memory_layout_do_not_matter():
    path, z, previous, quality = path_and_inputs(1, True, 6, 7, 3.0)
    expected = path.exact(z, previous, quality)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert torch.equal(path.exact(z, previous, quality), expected)
            strided = z.contiguous(memory_format=torch.channels_last)
            assert torch.equal(path.exact(strided, previous, quality), expected)
    finally:
        torch.set_num_threads(threads)


def test_training_sees_what_coding_uses():
    path, z, previous, quality = path_and_inputs(2, True, 5, 4, 0.3)
    z = z / 20
    with torch.no_grad():
        emulated = path(torch.round(z), previous / 20, quality)
    exact = path.exact(torch.round(z), torch.round(previous / 20), quality)
    assert float((emulated - exact).abs().max()) < 0.75


def test_more_products_than_are_exact_are_refused():
    IntegerConv(455, 1, 3)
    with pytest.raises(ValueError, match="at most 4096 products"):
        IntegerConv(456, 1, 3)


def test_nothing_is_learned_through_symbols():
    """Neither those of the frame before nor those of a first pass."""
    path, z, previous, quality = path_and_inputs(3, True, 2, 2, 0.3)
    second = SecondScalePath(6, path.joined, 8)
    torch.nn.init.normal_(second.last.weight)
    previous.requires_grad_()
    symbols = torch.randn(2, 6, 8, 8, requires_grad=True)
    inputs = path.inputs(torch.round(z / 20), previous, quality)
    index = second(symbols, inputs)
    found = torch.autograd.grad(index.sum(), (symbols, previous, path.offset), allow_unused=True)
    assert found[0] is None and found[1] is None and found[2].abs().sum() > 0


def test_no_previous_frame_is_a_frame_of_zeros():
    path, z, previous, quality = path_and_inputs(4, True, 3, 3, 1.0)
    none = path.exact(z, None, quality)
    assert torch.equal(none, path.exact(z, torch.zeros_like(previous), quality))


def test_offsets_follow_the_quality():
    path, z, previous, _ = path_and_inputs(5, False, 2, 2, 0.0)
    with torch.no_grad():
        path.offset.copy_(20 + torch.arange(8.0)[:, None] * 7)
    path.update()
    low = path.exact(z, None, torch.tensor([0, 0]))
    high = path.exact(z, None, torch.tensor([63, 63]))
    shift = interpolate_knots(path.offset.detach(), torch.tensor([63.0])) - interpolate_knots(
        path.offset.detach(), torch.tensor([0.0])
    )
    assert float((high - low).float().mean()) == float(shift.mean())
