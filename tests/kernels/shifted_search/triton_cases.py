"""The Triton back end against naive.py. ``test_triton.py`` runs this file in a process of its own:
interpreted on a machine without a GPU, compiled on CUDA tensors where there is one."""

import itertools

import pytest
import torch
from torch import Tensor

from kernels import gather, scatter, shifted_attention, shifted_search
from kernels.shifted_search import triton as backend
from kernels.shifted_search.options import GatherOptions, SearchOptions

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch):
    """The interpreter pays per program, so it gets larger tiles; those at the edge stay partial."""
    if DEVICE == "cpu":
        monkeypatch.setattr(backend, "query_tile", lambda channels, heavy=False: (4, 8))


@pytest.fixture(autouse=True)
def _poison():
    """torch.empty gives NaN, so that an element nobody writes is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


def features(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def pair(
    channels: int = 6, size: tuple[int, int] = (4, 5), references: int | None = None, reach=3.0
) -> list[Tensor]:
    """query, key, flow."""
    many = () if references is None else (references,)
    query = features(1, channels, *size)
    return [query, features(1, *many, channels, *size), reach * features(1, *many, 2, *size)]


def outputs_and_gradients(function, name: str, inputs: list[Tensor], options: dict):
    inputs = [x.detach().requires_grad_() for x in inputs]
    outputs = function(*inputs, **options, backend=name)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(1)
    loss = 0.0
    for out in outputs:
        weight = torch.randn(out.shape, generator=generator).to(out.device)
        loss = loss + (torch.where(out.isfinite(), out, 0.0) * weight).sum()
    return outputs, torch.autograd.grad(loss, inputs, allow_unused=True)


def check(function, inputs: list[Tensor], **options) -> None:
    """Outputs and all gradients as the naive back end's."""
    expected = outputs_and_gradients(function, "naive", inputs, options)
    found = outputs_and_gradients(function, "triton", inputs, options)
    for part, a, b in zip(("output", "gradient"), expected, found, strict=True):
        for i, (x, y) in enumerate(zip(a, b, strict=True)):
            if x is None:
                assert y is None or not y.any(), f"{part} {i} of {options}"
                continue
            assert x.dtype == y.dtype
            message = f"{part} {i} of {options}: "
            torch.testing.assert_close(
                y, x, rtol=1e-4, atol=1e-4, msg=lambda text, m=message: m + text
            )


SEARCHES = [
    (None, {"window": 1, "topk": 1, "metric": "l2"}),
    (None, {"window": 5, "topk": 3, "heads": 2, "metric": "l2", "keep_in_image": True}),
    (None, {"window": 3, "topk": 3, "patch": 3, "dilation": 2, "metric": "l2", "query_stride": 2}),
    (None, {"window": 3, "topk": 3, "search_stride": 0.5, "heads": 2}),
    (None, {"window": 3, "topk": 9, "search_stride": 2.0, "positions": "integer"}),
    (2, {"window": 3, "topk": 3, "anchor": "query"}),
    (2, {"window": 3, "topk": 3, "anchor": "flow"}),
    (2, {"window": 3, "topk": 2, "anchor": "exclude_query", "per_reference": True}),
    (2, {"window": 3, "topk": 2, "anchor": "query", "per_reference": True, "metric": "l2"}),
    (2, {"window": 3, "topk": 2, "positions": "integer"}),
]


@pytest.mark.parametrize(("references", "options"), SEARCHES)
def test_search(references, options):
    check(shifted_search, pair(references=references), **options)


def test_several_tiles():
    check(shifted_search, pair(size=(5, 10)), window=3, topk=4)


ATTENTIONS = [
    (None, 4, {"window": 3, "topk": 4, "heads": 2}),
    (2, 3, {"window": 3, "topk": 4, "metric": "l2", "scale": 0.3}),
    (None, 3, {"window": 3, "topk": 2, "patch": 3}),
    (None, 4, {"window": 3, "topk": 4, "query_stride": 2, "search_stride": 2.0, "anchor": "query"}),
    (2, 3, {"window": 3, "topk": 2, "per_reference": True}),
]


@pytest.mark.parametrize(("references", "channels", "options"), ATTENTIONS)
def test_attention(references, channels, options):
    query, key, flow = pair(references=references)
    value = features(*key.shape[:-3], channels, *key.shape[-2:])
    check(shifted_attention, [query, key, value, flow], **options)


def chosen(references: int | None, query_stride: int, count: int = 3, heads: int = 2):
    """value [.., 4, 4, 5], weights, offsets."""
    many = () if references is None else (references,)
    grid = (1, heads, 3 // query_stride + 1, 4 // query_stride + 1, count)
    offsets = 3 * features(*grid, 2)
    if references is not None:
        which = torch.randint(0, references, (*grid, 1), device=DEVICE)
        offsets = torch.cat((which, offsets), -1)
    return features(1, *many, 4, 4, 5), features(*grid), offsets


@pytest.mark.parametrize("mode", ["sum", "stack"])
@pytest.mark.parametrize(("references", "patch", "stride"), [(None, 1, 1), (2, 1, 2), (2, 3, 2)])
def test_gather(references, patch, stride, mode):
    inputs = list(chosen(references, stride))
    check(gather, inputs, heads=2, patch=patch, query_stride=stride, mode=mode)


@pytest.mark.parametrize(("references", "patch", "stride"), [(None, 1, 1), (2, 2, 2)])
def test_scatter(references, patch, stride):
    _, weights, offsets = chosen(references, stride)
    inputs = [features(1, 4, 4, 5), weights, offsets]
    check(scatter, inputs, heads=2, patch=patch, query_stride=stride, references=references)


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_windows_wider_than_the_image(metric):
    check(shifted_search, pair(size=(2, 3)), window=5, topk=25, metric=metric)


def test_an_image_of_one_pixel():
    query, key, flow = pair(size=(1, 1))
    check(shifted_attention, [query, key, key.clone(), flow], window=3, topk=2)


def test_wild_flows():
    query, key, flow = pair(size=(2, 7))
    values = [0.0, 1e30, -1e30, float("inf"), -float("inf"), float("nan"), 400.0]
    flow[0, 0] = torch.tensor(values, device=DEVICE)
    expected = shifted_search(query, key, flow, window=3, topk=9, backend="naive")
    found = shifted_search(query, key, flow, window=3, topk=9, backend="triton")
    for x, y in zip(expected, found, strict=True):
        torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("topk", [1, 4, 9])
def test_of_equal_scores_the_first_in_scan_order_wins(topk):
    query = torch.ones(1, 4, 5, 7, device=DEVICE)
    flow = torch.zeros(1, 2, 5, 7, device=DEVICE)
    _, offsets = shifted_search(query, query, flow, window=3, topk=topk, backend="triton")
    inner = offsets[0, 0, 1:-1, 1:-1]
    order = [(x, y) for y, x in itertools.product((-1.0, 0.0, 1.0), repeat=2)][:topk]
    expected = torch.tensor(order, device=DEVICE).expand_as(inner)
    assert torch.equal(inner, expected)


def test_a_shifted_copy_is_found_exactly():
    query = features(1, 8, 6, 7)
    key = query.roll((2, -1), (2, 3))
    flow = torch.zeros(1, 2, 6, 7, device=DEVICE)
    scores, offsets = shifted_search(
        query, key, flow, window=5, topk=1, metric="l2", backend="triton"
    )
    inner = (0, 0, slice(0, 4), slice(1, 7), 0)
    assert (scores[inner] == 0).all()
    assert torch.equal(offsets[inner][..., 0], torch.full((4, 6), -1.0, device=DEVICE))
    assert torch.equal(offsets[inner][..., 1], torch.full((4, 6), 2.0, device=DEVICE))


def test_bfloat16_sums_in_float32():
    query, key, flow = pair(channels=16)
    inputs = [query.bfloat16(), key.bfloat16(), flow]
    options = {"window": 3, "topk": 2, "metric": "l2"}
    expected = outputs_and_gradients(shifted_search, "naive", inputs, options)
    found = outputs_and_gradients(shifted_search, "triton", inputs, options)
    for x, y in zip(expected[0], found[0], strict=True):
        torch.testing.assert_close(y, x, rtol=1e-4, atol=1e-4)
    for x, y in zip(expected[1], found[1], strict=True):
        assert x.dtype == y.dtype
        torch.testing.assert_close(y, x, rtol=2e-2, atol=2e-2)  # gradients rounded to bfloat16


def test_any_strides():
    query, key, flow = pair(channels=8)
    value = features(1, 4, 4, 5)
    query = query.contiguous(memory_format=torch.channels_last)
    key = features(1, 8, 4, 10)[..., ::2]
    value = value.contiguous(memory_format=torch.channels_last)
    flow = flow.transpose(2, 3).contiguous().transpose(2, 3)
    inputs = [query, key, value, flow]
    check(shifted_attention, inputs, window=3, topk=2)
    leaves = [x.detach().requires_grad_() for x in inputs]
    shifted_attention(*leaves, window=3, topk=2, backend="triton").sum().backward()
    for x in leaves:
        assert x.grad.isfinite().all()


@pytest.mark.parametrize("last", [False, True])
def test_the_operators_are_what_their_fakes_say(last):
    """Shapes, dtypes and memory order, which compiled graphs rely on."""
    query, key, flow = pair(size=(3, 4), references=2)
    if last:
        query = query.contiguous(memory_format=torch.channels_last)
        key = key.movedim(2, -1).contiguous().movedim(-1, 2)
    options = (*SearchOptions(window=3, topk=2).values(), "triton")
    operators = torch.ops.lgmc
    tests = ("test_schema", "test_faketensor")
    out, weights, offsets = operators.shifted_attention(query, key, key, flow, 1.0, *options)
    saved = (query, key, key.clone(), flow, weights, offsets)
    torch.library.opcheck(
        operators.shifted_attention,
        (query, key, key.clone(), flow, 1.0, *options),
        test_utils=tests,
    )
    torch.library.opcheck(
        operators.shifted_attention_backward, (out, *saved, 1.0, *options), test_utils=tests
    )


def test_gradients_of_gather_and_scatter_are_contiguous():
    """Values, weights and offsets may lie in any order; fakes say contiguous."""
    value, x = (features(1, 4, 3, 4).contiguous(memory_format=torch.channels_last) for _ in "ab")
    weights = features(1, 1, 2, 3, 4).permute(0, 1, 3, 4, 2)
    offsets = features(1, 1, 2, 2, 3, 4).permute(0, 1, 4, 5, 2, 3)
    settings = (*GatherOptions().values(), "triton")
    for operator, arguments in (
        (torch.ops.lgmc.gather_backward, (x, value[:, None], weights, offsets, *settings)),
        (torch.ops.lgmc.scatter_backward, (value[:, None], x, weights, offsets, *settings)),
    ):
        assert all(result.is_contiguous() for result in operator(*arguments))
        torch.library.opcheck(operator, arguments, test_utils=("test_faketensor",))


@pytest.mark.skipif(DEVICE == "cpu", reason="takes the interpreter minutes")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels", [64, 96])
@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_large(channels, metric, dtype):
    query, key, flow = pair(channels, (67, 93))
    inputs = [x.to(dtype) for x in (query, key, features(1, channels, 67, 93))]
    options = {"window": 9, "topk": 9, "metric": metric, "scale": channels**-0.5}
    expected = outputs_and_gradients(shifted_attention, "naive", [*inputs, flow], options)
    found = outputs_and_gradients(shifted_attention, "triton", [*inputs, flow], options)
    tolerance = 1e-3 if dtype == torch.float32 else 5e-2
    for a, b in zip(expected, found, strict=True):
        for x, y in zip(a, b, strict=True):
            assert y.isfinite().all()
            # Of 81 candidates the 9th and the 10th may be equal but for rounding, once in a while.
            wrong = (x.float() - y.float()).abs() > tolerance * (1 + x.float().abs())
            assert wrong.float().mean() < 1e-3
