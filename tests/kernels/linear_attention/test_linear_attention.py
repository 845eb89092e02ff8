"""Linear cross-attention: every back end against naive.py, and what the definition promises."""

import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import linear_attention
from kernels.linear_attention import naive, op


@pytest.fixture(autouse=True)
def _poison():
    """torch.empty gives NaN, so that an element nobody writes is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def images(query: tuple, key: tuple, channels: int, values: int, batch: int = 1, spread=1.0):
    """query, key, value in float32."""
    return (
        torch.randn(batch, channels, *query) * spread,
        torch.randn(batch, channels, *key) * spread,
        torch.randn(batch, values, *key),
    )


def with_gradients(function, inputs, grad: Tensor, *arguments, **options) -> list[Tensor]:
    """The output and the gradients of all inputs."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, *arguments, **options)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def check(inputs, heads: int = 1, mask: Tensor | None = None, tolerance: float = 5e-6) -> None:
    """Output and gradients of the CPU path as the naive ones in float64."""
    shape = (inputs[0].shape[0], inputs[2].shape[1], *inputs[0].shape[2:])
    grad = torch.randn(shape).to(inputs[0].dtype)
    found = with_gradients(linear_attention, inputs, grad, heads, mask, backend="cpu")
    exact = [x.double() for x in inputs]
    expected = with_gradients(naive.linear_attention, exact, grad, heads, mask)
    terms = cancelling(exact, grad, heads, mask)
    for ours, truth, x, size in zip(found, expected, (inputs[0], *inputs), terms, strict=True):
        assert ours.shape == truth.shape and ours.dtype == x.dtype
        error = (ours.double() - truth).norm() / max(truth.norm(), size, 0.1)
        assert error <= tolerance, f"relative error {error:.2e}"


def cancelling(inputs, grad: Tensor, heads: int, mask: Tensor | None) -> list[float]:
    """The norm of the terms that the gradients of query and key are small differences of.

    The gradient of a softmax is p (d - sum of p d). Where p is 1, as for a key of one pixel, it is
    exactly 0, and in float32 a rounding error of d.
    """
    q, p, v = naive._normalised(*inputs, heads, mask)
    g = naive._by_head(grad.double(), heads)
    to_query = q * (p @ v.mT @ g).abs()
    to_key = p * (q @ g.mT @ v).abs()
    return [0.0, to_query.norm().item(), to_key.norm().item(), 0.0]


sizes = st.tuples(st.integers(1, 23), st.integers(1, 23))


@settings(deadline=None, max_examples=60)
@given(
    query=sizes,
    key=sizes,
    heads=st.integers(1, 3),
    width=st.integers(1, 11),
    values=st.integers(1, 9),
    batch=st.integers(1, 2),
    masked=st.booleans(),
    spread=st.sampled_from([0.1, 1.0, 10.0]),
    seed=st.integers(0, 2**16),
)
def test_output_and_gradients(query, key, heads, width, values, batch, masked, spread, seed):
    torch.manual_seed(seed)
    inputs = images(query, key, heads * width, heads * values, batch, spread)
    mask = torch.rand(batch, 1, *key) < 0.6 if masked else None
    check(inputs, heads, mask)


@pytest.mark.parametrize("channels, heads", [(64, 2), (32, 1), (72, 1), (160, 1)])
def test_sizes_of_the_codec_in_several_parts(channels, heads):
    """More pixels than a part holds, and no whole number of tiles."""
    check(images((61, 145), (97, 131), channels, channels, 2), heads)


def test_bfloat16_sums_in_float32():
    inputs = [x.bfloat16() for x in images((40, 50), (60, 70), 32, 32)]
    check(inputs, 2, tolerance=2.0**-8)
    # Many equal values: a bfloat16 sum would stop growing at 256 of them.
    ones = torch.ones(1, 4, 40, 40, dtype=torch.bfloat16)
    assert torch.equal(linear_attention(ones, ones, ones, backend="cpu"), ones)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("backend", ["naive", "cpu", None])
def test_autocast_rounds_nothing(backend, dtype):
    inputs = [x.to(dtype) for x in images((9, 11), (9, 11), 16, 16)]
    grad = torch.randn(1, 16, 9, 11)
    wanted = with_gradients(linear_attention, inputs, grad, 2, backend=backend)
    leaves = [x.detach().requires_grad_() for x in inputs]
    with torch.autocast("cpu", torch.bfloat16):
        out = linear_attention(*leaves, 2, backend=backend)
        assert torch.is_autocast_enabled("cpu")
    found = [out.detach(), *torch.autograd.grad(out, leaves, grad.to(dtype))]
    for ours, truth in zip(found, wanted, strict=True):
        assert ours.dtype == dtype and torch.equal(ours, truth)
    with torch.autocast("cpu", torch.bfloat16):
        found = naive.gradients(grad, *inputs, 2, None)
    for ours, truth in zip(found, naive.gradients(grad, *inputs, 2, None), strict=True):
        assert torch.equal(ours, truth)


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "cropped"])
def test_any_strides(layout):
    inputs = images((18, 22), (18, 22), 8, 8, 2)
    if layout == "channels_last":
        inputs = [x.contiguous(memory_format=torch.channels_last) for x in inputs]
    elif layout == "transposed":
        inputs = [x.transpose(2, 3) for x in inputs]
    else:
        inputs = [F.pad(x, (1, 2, 3, 4))[:, :, 3:-4, 1:-2] for x in inputs]
    check(inputs, 2)
    grad = torch.randn(2, 8, *inputs[0].shape[2:]).contiguous(memory_format=torch.channels_last)
    plain = [x.contiguous() for x in inputs]
    for a, b in zip(
        with_gradients(linear_attention, inputs, grad, 2, backend="cpu"),
        with_gradients(linear_attention, plain, grad.contiguous(), 2, backend="cpu"),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_the_result_does_not_depend_on_the_number_of_threads():
    inputs = images((90, 110), (90, 110), 16, 16)
    grad = torch.randn(1, 16, 90, 110)
    one = with_gradients(linear_attention, inputs, grad, 2, backend="cpu")
    torch.set_num_threads(2)
    try:
        two = with_gradients(linear_attention, inputs, grad, 2, backend="cpu")
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_two_threads_at_once():
    """The operator may be called from several threads of a program."""
    cases = [images((30, 40), (30, 40), 8, 8) for _ in range(4)]
    expected = [linear_attention(*case, backend="cpu") for case in cases]
    found = [None] * len(cases)

    def work(i):
        for _ in range(5):
            found[i] = linear_attention(*cases[i], backend="cpu")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("backend", ["naive", "cpu"])
@pytest.mark.parametrize("shift", [-1e4, 1e4])
def test_large_logits(backend, shift):
    """Softmax knows only differences: a common shift of 10,000 changes nothing to speak of."""
    query, key, value = images((20, 30), (40, 50), 8, 8)
    # Multiples of 1/1024, the spacing of float32 there, so that the shift itself loses nothing.
    query, key = (torch.round(x * 1024) / 1024 for x in (query, key))
    plain = linear_attention(query, key, value, 2, backend=backend)
    shifted = linear_attention(query + shift, key + shift, value, 2, backend=backend)
    torch.testing.assert_close(shifted, plain, atol=1e-6, rtol=1e-5)


def test_logits_far_apart():
    """One pixel far above the others is the whole sum; far below, it is nothing."""
    query, key, value = images((5, 6), (70, 80), 4, 4)
    for spread in (1e4, 1e30):
        check((query * spread, key * spread, value), tolerance=1e-5)
    key[..., 35, 40] = 1e4
    context = value[0, :, 35, 40].reshape(1, 4, 1, 1)
    found = linear_attention(query, key, value, backend="cpu")
    torch.testing.assert_close(found, context.expand_as(found))


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_a_constant_value_comes_back(backend):
    """The rows of the implied attention map sum to 1, whatever the size."""
    for size in ((1, 1), (4, 4), (33, 65), (270, 480)):
        query, key, _ = images(size, size, 8, 8)
        value = torch.full((1, 8, *size), 0.7)
        out = linear_attention(query, key, value, 2, backend=backend)
        torch.testing.assert_close(out, value, atol=2e-6, rtol=0)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_padding_does_not_leak(backend):
    """With the mask, padded keys and values give what the image alone gives, NaN or not."""
    query, key, value = images((9, 13), (9, 13), 6, 6, 2)
    grad = torch.randn(2, 6, 9, 13)
    alone = with_gradients(linear_attention, (query, key, value), grad, 2, backend=backend)
    for filler in (0.0, 1e4, float("nan"), float("inf")):
        wide_key, wide_value = (F.pad(x, (0, 3, 0, 7), value=filler) for x in (key, value))
        mask = F.pad(torch.ones(2, 1, 9, 13, dtype=torch.bool), (0, 3, 0, 7), value=False)
        padded = with_gradients(
            linear_attention, (query, wide_key, wide_value), grad, 2, mask, backend=backend
        )
        for i, (ours, truth) in enumerate(zip(padded, alone, strict=True)):
            if i >= 2:
                assert not ours[:, :, 9:].any() and not ours[:, :, :, 13:].any()
                ours = ours[:, :, :9, :13]
            torch.testing.assert_close(ours, truth, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_an_image_without_a_pixel_that_counts_gives_zeros(backend):
    inputs = images((7, 9), (5, 6), 4, 4, 2)
    mask = torch.zeros(2, 5, 6, dtype=torch.bool)
    mask[1] = True
    grad = torch.randn(2, 4, 7, 9)
    out, *grads = with_gradients(linear_attention, inputs, grad, 2, mask, backend=backend)
    assert not out[0].any() and out[1].any()
    for gradient in grads:
        assert not gradient[0].any() and gradient[1].any()


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_a_broken_pixel_shows(backend):
    """NaN in a pixel that counts is not swept under the carpet."""
    query, key, value = images((6, 6), (20, 20), 4, 4)
    key[0, 1, 3, 3] = float("nan")
    assert linear_attention(query, key, value, backend=backend).isnan().all()


def test_gradcheck_in_float64():
    inputs = [x.double().requires_grad_() for x in images((3, 2), (2, 4), 4, 2)]
    mask = torch.rand(1, 1, 2, 4) < 0.7
    options = {"nondet_tol": 0.0}
    assert torch.autograd.gradcheck(lambda *x: linear_attention(*x, 2, mask), inputs, **options)
    assert torch.autograd.gradgradcheck(lambda *x: linear_attention(*x, 2), inputs)


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_the_operator_is_registered_as_torch_asks(backend):
    operator = torch.ops.lgmc.linear_attention.default
    for dtype, mask in ((torch.float32, None), (torch.float32, torch.rand(2, 1, 3, 5) < 0.5)):
        inputs = [x.to(dtype).requires_grad_() for x in images((4, 3), (3, 5), 4, 6, 2)]
        torch.library.opcheck(operator, (*inputs, 2, mask, backend))


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_torch_compile_sees_one_operator(backend):
    inputs = images((8, 9), (7, 6), 4, 4)
    grad = torch.randn(1, 4, 8, 9)

    def block(query, key, value):
        return linear_attention(query * 2, key, value, 2, backend=backend) + 1

    plain = with_gradients(block, inputs, grad)
    compiled = with_gradients(
        torch.compile(block, fullgraph=True, backend="aot_eager"), inputs, grad
    )
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b)

    class Net(torch.nn.Module):
        def forward(self, query, key, value):
            return block(query, key, value)

    graph = torch.export.export(Net(), inputs).graph
    called = [node.target for node in graph.nodes if node.op == "call_function"]
    assert torch.ops.lgmc.linear_attention.default in called


def test_small_images_take_the_short_way_with_the_same_result():
    inputs = images((4, 4), (4, 4), 64, 64)
    short = linear_attention(*inputs, 2)
    assert short.grad_fn is None
    torch.testing.assert_close(short, linear_attention(*inputs, 2, backend="cpu"))


def test_where_the_short_way_ends():
    def short(size, dtype=torch.float32, backend=None, threads=1):
        x = torch.empty(1, 64, *size, dtype=dtype)
        torch.set_num_threads(threads)
        try:
            return op._tiny(backend, x, x)
        finally:
            torch.set_num_threads(1)

    assert short((16, 28)) and not short((24, 40)) and not short((4, 4), backend="cpu")
    assert short((24, 40), threads=2) and not short((64, 112), threads=2)
    assert not short((24, 40), torch.bfloat16, threads=2)


@pytest.mark.parametrize(
    "change, words",
    [
        ({"query": torch.zeros(1, 4, 5)}, ["query", "[1, 4, 5]", "[B, C, H, W]"]),
        ({"query": torch.zeros(1, 4, 5, 5, dtype=torch.int32)}, ["query", "int32", "float32"]),
        ({"key": torch.zeros(1, 6, 3, 3)}, ["key", "[1, 6, 3, 3]", "[1, 4, 3, 3]"]),
        ({"key": torch.zeros(1, 4, 3, 3).double()}, ["key", "float64", "float32"]),
        ({"value": torch.zeros(1, 4, 3, 4)}, ["value", "[1, 4, 3, 4]", "[1, 4, 3, 3]"]),
        ({"value": torch.zeros(1, 3, 3, 3)}, ["heads", "2", "3"]),
        ({"value": None}, ["value", "NoneType", "a tensor"]),
        ({"heads": 3}, ["heads", "3", "4 channels"]),
        ({"heads": 0}, ["heads", "0", ">= 1"]),
        ({"mask": torch.zeros(1, 1, 3, 3)}, ["mask", "float32", "bool"]),
        ({"mask": torch.ones(1, 3, 4, dtype=torch.bool)}, ["mask", "[1, 3, 4]", "[1, 3, 3]"]),
        ({"backend": "quick"}, ["backend", "'quick'", "'naive'"]),
        ({"query": torch.zeros(1, 4, 0, 5)}, ["query", "[1, 4, 0, 5]", "empty"]),
    ],
)
def test_wrong_arguments(change, words):
    arguments = {
        "query": torch.zeros(1, 4, 5, 5),
        "key": torch.zeros(1, 4, 3, 3),
        "value": torch.zeros(1, 4, 3, 3),
        "heads": 2,
        **change,
    }
    with pytest.raises(ValueError) as error:
        linear_attention(**arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_float64_is_not_for_the_fast_path():
    inputs = [x.double() for x in images((2, 2), (2, 2), 2, 2)]
    with pytest.raises(ValueError, match="backend.*naive"):
        linear_attention(*inputs, backend="cpu")
    assert linear_attention(*inputs).dtype == torch.float64


def test_exponentials_of_the_fast_path():
    """Within two units in the last place of the true exp, over the whole range."""
    from kernels.linear_attention.cpu_tiles import exponentials

    points = np.linspace(-86.9, 0.0, 20011, dtype=np.float32)[None]
    tile, total = points.copy(), np.zeros(1, np.float32)
    exponentials(tile, 1, tile.shape[1], np.zeros(1, np.float32), np.ones(1, np.float32), total)
    truth = np.exp(points.astype(np.float64))
    assert np.max(np.abs(tile / truth - 1)) < 2.0**-22
    assert abs(total[0] / truth.sum() - 1) < 1e-5
    tile = np.array([[-88.0, -1e30, -np.inf, np.nan, -0.0]], np.float32)
    exponentials(tile, 1, 5, np.zeros(1, np.float32), np.ones(1, np.float32), total)
    assert tile[0, :3].tolist() == [0, 0, 0] and np.isnan(tile[0, 3]) and tile[0, 4] == 1
