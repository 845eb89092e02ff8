"""The correlation volume: every back end against naive.py, and what the definition promises."""

from importlib.util import find_spec

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from kernels import correlation
from kernels.correlation import naive

FAST = ["cpu"] + ["sampler"] * (find_spec("spatial_correlation_sampler") is not None)


@pytest.fixture(autouse=True)
def _poison():
    """torch.empty gives NaN, so that an element nobody writes is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def with_gradients(function, inputs, grad: Tensor, *arguments, **options) -> list[Tensor]:
    """The volume and the gradients of both images."""
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, *arguments, **options)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def check(inputs, radius: int, backend: str = "cpu", tolerance: float = 1e-6, **options) -> None:
    """Volume and gradients as the naive ones in float64.

    Sums that nearly cancel are as exact as their terms are: these count by a quarter of what they
    would add up to without their signs.
    """
    batch, _, height, width = inputs[0].shape
    grad = torch.randn(batch, (2 * radius + 1) ** 2, height, width)
    found = with_gradients(correlation, inputs, grad, radius, backend=backend, **options)
    exact = [x.double() for x in inputs]
    expected = with_gradients(naive.correlation, exact, grad.double(), radius, **options)
    terms = [x.abs() for x in exact], grad.double().abs()
    gross = with_gradients(naive.correlation, *terms, radius, **options)
    for ours, truth, most, dtype in zip(
        found, expected, gross, (torch.float32, *(x.dtype for x in inputs)), strict=True
    ):
        assert ours.shape == truth.shape and ours.dtype == dtype
        limit = tolerance if dtype == torch.float32 else 2.0**-8
        error = (ours.double() - truth).norm() / max(truth.norm(), most.norm() / 4, 1e-3)
        assert error <= limit, f"relative error {error:.2e}"


@settings(deadline=None, max_examples=80)
@given(
    height=st.integers(1, 21),
    width=st.integers(1, 37),
    channels=st.integers(1, 19),
    batch=st.integers(1, 2),
    radius=st.integers(0, 6),
    stride=st.integers(1, 3),
    normalise=st.booleans(),
    seed=st.integers(0, 2**16),
)
@example(  # a single sum of 14 products that nearly cancel
    height=1, width=1, channels=14, batch=1, radius=0, stride=1, normalise=False, seed=14
)
def test_volume_and_gradients(height, width, channels, batch, radius, stride, normalise, seed):
    torch.manual_seed(seed)
    inputs = torch.randn(2, batch, channels, height, width).unbind()
    check(inputs, radius, stride=stride, normalise=normalise)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("radius, stride", [(4, 1), (3, 2)])
def test_sizes_of_the_codec(backend, radius, stride):
    check(torch.randn(2, 2, 64, 30, 58).unbind(), radius, backend, stride=stride)


def test_bfloat16_sums_in_float32():
    inputs = [x.bfloat16() for x in torch.randn(2, 1, 24, 14, 33)]
    check(inputs, 3)
    # A bfloat16 sum of ones would stop growing at 256.
    ones = torch.ones(1, 1000, 2, 2, dtype=torch.bfloat16)
    assert (correlation(ones, ones, 0, normalise=False) == 1000).all()


@pytest.mark.parametrize("layout", ["channels_last", "transposed", "cropped"])
def test_any_strides(layout):
    query, key = torch.randn(2, 2, 9, 14, 18)
    change = {
        "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last),
        "transposed": lambda x: x.transpose(2, 3),
        "cropped": lambda x: F.pad(x, (1, 2, 3, 4))[:, :, 3:-4, 1:-2],
    }[layout]
    check((change(query), change(key)), 2)
    volume = correlation(change(query), change(key), 2)
    assert torch.equal(volume, correlation(change(query).contiguous(), change(key).contiguous(), 2))
    grad = torch.randn(volume.shape)
    wide = torch.stack((grad, grad), -1)[..., 0]  # not contiguous
    pair = change(query), change(key)
    for a, b in zip(
        with_gradients(correlation, pair, wide, 2),
        with_gradients(correlation, pair, grad, 2),
        strict=True,
    ):
        assert torch.equal(a, b)


def test_the_result_does_not_depend_on_the_number_of_threads():
    inputs = torch.randn(2, 1, 16, 70, 90).unbind()
    grad = torch.randn(1, 49, 70, 90)
    one = with_gradients(correlation, inputs, grad, 3)
    torch.set_num_threads(2)
    try:
        two = with_gradients(correlation, inputs, grad, 3)
    finally:
        torch.set_num_threads(1)
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("backend", ["naive", *FAST])
@pytest.mark.parametrize("dx, dy", [(0, 0), (2, -1), (-3, 3)])
def test_a_shifted_copy_is_found(backend, dx, dy):
    key = F.normalize(torch.randn(1, 32, 20, 24), dim=1)
    query = torch.roll(key, (-dy, -dx), (2, 3))  # query(y, x) = key(y + dy, x + dx)
    volume = correlation(query, key, 3, normalise=False, backend=backend)
    best = volume[:, :, 4:-4, 4:-4].argmax(1)
    assert (best == (dy + 3) * 7 + dx + 3).all()
    found = volume[:, (dy + 3) * 7 + dx + 3, 4:-4, 4:-4]
    torch.testing.assert_close(found, torch.ones_like(found))


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_zero_outside_of_the_image(backend):
    ones = torch.ones(1, 4, 3, 5)
    volume = correlation(ones, ones, 2, backend=backend).reshape(5, 5, 3, 5)
    for i in range(5):
        for j in range(5):
            y, x = torch.arange(3) + i - 2, torch.arange(5) + j - 2
            inside = ((y >= 0) & (y < 3))[:, None] & ((x >= 0) & (x < 5))
            assert torch.equal(volume[i, j], inside.float())


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_a_broken_pixel_shows_where_it_is_met_and_nowhere_else(backend):
    query, key = torch.randn(2, 1, 4, 9, 40)
    key[0, 2, 4, 20] = float("nan")
    broken = correlation(query, key, 1, backend=backend).isnan()[0]
    expected = torch.zeros_like(broken)
    for i in range(3):
        for j in range(3):
            expected[3 * i + j, 4 - (i - 1), 20 - (j - 1)] = True
    assert torch.equal(broken, expected)


def test_gradcheck_in_float64():
    inputs = [x.requires_grad_() for x in torch.randn(2, 1, 2, 3, 4, dtype=torch.float64)]
    assert torch.autograd.gradcheck(lambda *x: correlation(*x, 1, stride=2), inputs)
    assert torch.autograd.gradgradcheck(lambda *x: correlation(*x, 1), inputs)


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_the_operator_is_registered_as_torch_asks(backend):
    inputs = [x.requires_grad_() for x in torch.randn(2, 2, 3, 4, 5).unbind()]
    torch.library.opcheck(torch.ops.lgmc.correlation.default, (*inputs, 2, 1, True, backend))


@pytest.mark.parametrize("backend", ["naive", *FAST])
def test_torch_compile_sees_one_operator(backend):
    inputs = torch.randn(2, 1, 4, 6, 7).unbind()
    grad = torch.randn(1, 9, 6, 7)

    def block(query, key):
        return correlation(query * 2, key, 1, backend=backend) + 1

    plain = with_gradients(block, inputs, grad)
    compiled = with_gradients(
        torch.compile(block, fullgraph=True, backend="aot_eager"), inputs, grad
    )
    for a, b in zip(plain, compiled, strict=True):
        torch.testing.assert_close(a, b)

    class Net(torch.nn.Module):
        def forward(self, query, key):
            return block(query, key)

    graph = torch.export.export(Net(), tuple(inputs)).graph
    called = [node.target for node in graph.nodes if node.op == "call_function"]
    assert torch.ops.lgmc.correlation.default in called


@pytest.mark.parametrize(
    "change, words",
    [
        ({"query": torch.zeros(4, 5, 5)}, ["query", "[4, 5, 5]", "[B, C, H, W]"]),
        ({"query": torch.zeros(1, 4, 5, 5).half()}, ["query", "float16", "float32"]),
        ({"key": torch.zeros(1, 4, 5, 6)}, ["key", "[1, 4, 5, 6]", "[1, 4, 5, 5]"]),
        ({"key": torch.zeros(1, 4, 5, 5).bfloat16()}, ["key", "bfloat16", "float32"]),
        ({"key": torch.zeros(1, 4, 5, 5, device="meta")}, ["key", "meta", "cpu"]),
        ({"radius": -1}, ["radius", "-1", ">= 0"]),
        ({"radius": 1.5}, ["radius", "1.5", "whole"]),
        ({"stride": 0}, ["stride", "0", ">= 1"]),
        ({"backend": "quick"}, ["backend", "'quick'", "'sampler'"]),
    ],
)
def test_wrong_arguments(change, words):
    arguments = {
        "query": torch.zeros(1, 4, 5, 5),
        "key": torch.zeros(1, 4, 5, 5),
        "radius": 1,
        **change,
    }
    with pytest.raises(ValueError) as error:
        correlation(**arguments)
    assert all(word in str(error.value) for word in words), error.value


def test_what_the_fast_paths_refuse():
    image = torch.zeros(1, 2, 3, 3, dtype=torch.float64)
    with pytest.raises(ValueError, match="backend.*naive"):
        correlation(image, image, 1, backend="cpu")
    assert correlation(image, image, 1).dtype == torch.float64
    if "sampler" in FAST:
        with pytest.raises(ValueError, match="backend.*bfloat16"):
            correlation(image.bfloat16(), image.bfloat16(), 1, backend="sampler")
    else:
        with pytest.raises(ValueError, match="backend.*spatial-correlation-sampler"):
            correlation(image.float(), image.float(), 1, backend="sampler")
