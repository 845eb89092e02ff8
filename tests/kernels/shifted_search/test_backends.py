"""The CPU back end against naive: outputs, offsets and all gradients.

The Triton back end is held to the same comparison in triton_cases.py.
"""

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kernels import gather, scatter, shifted_attention, shifted_search

OPTIONS = [
    {},
    {"heads": 2},
    {"heads": 6},
    {"metric": "l2"},
    {"patch": 2},
    {"patch": 3, "dilation": 2},
    {"patch": 3, "metric": "l2", "heads": 3},
    {"query_stride": 2},
    {"query_stride": 2, "patch": 3},
    {"search_stride": 2.0},
    {"search_stride": 3.0, "metric": "l2"},
    {"search_stride": 0.5},
    {"search_stride": 0.5, "metric": "l2"},
    {"positions": "integer"},
    {"keep_in_image": True},
    {"keep_in_image": True, "search_stride": 0.5, "window": 5},
    {"per_reference": True},
    {"anchor": "query"},
    {"anchor": "query", "metric": "l2", "patch": 3},
    {"anchor": "query", "per_reference": True},
    {"anchor": "query", "topk": 1},
    {"anchor": "flow"},
    {"anchor": "flow", "per_reference": True, "metric": "l2"},
    {"anchor": "exclude_query"},
    {"window": 1, "topk": 1},
    {"window": 5, "topk": 25},
    {"window": 17, "topk": 12},
]
SIZES = [(7, 9), (1, 1), (5, 19)]


def _name(options: dict) -> str:
    return "-".join(f"{key}={value}" for key, value in options.items()) or "plain"


def _search(options: dict):
    def search(query, key, flow, backend):
        return shifted_search(query, key, flow, backend=backend, **options)

    return search


def _attention(options: dict):
    def attention(query, key, flow, value, backend):
        return shifted_attention(query, key, value, flow, scale=0.4, backend=backend, **options)

    return attention


@pytest.mark.parametrize("references", [0, 3], ids=["pair", "references"])
@pytest.mark.parametrize("options", OPTIONS, ids=_name)
def test_options(options, references, search_inputs, agrees_with_naive):
    options = {"window": 3, "topk": 4, **options}
    for height, width in SIZES:
        if options["window"] > 9 and (height, width) != SIZES[0]:
            continue
        inputs, value = search_inputs(1, references, 6, height, width)
        agrees_with_naive(_search(options), inputs, "cpu")
        agrees_with_naive(_attention(options), [*inputs, value], "cpu")


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("channels", [16, 40, 96])
def test_whole_and_broken_vectors_of_channels(channels, metric, search_inputs, agrees_with_naive):
    inputs, value = search_inputs(2, 0, channels, 18, 35)
    options = {"window": 5, "topk": 5, "metric": metric}
    agrees_with_naive(_attention(options), [*inputs, value], "cpu", tolerance=1e-4)


@pytest.mark.parametrize("options", OPTIONS, ids=_name)
def test_exact_numbers_give_the_same_bits(options, search_inputs):
    """Ties included: small whole features and flows in eighths leave nothing to round."""
    options = {"window": 3, "topk": 4, **options}
    for references in (0, 2):
        (query, key, flow), _ = search_inputs(1, references, 6, 9, 18, exact=True)
        wanted = shifted_search(query, key, flow, backend="naive", **options)
        found = shifted_search(query, key, flow, backend="cpu", **options)
        assert torch.equal(wanted[0], found[0]) and torch.equal(wanted[1], found[1])


@pytest.mark.parametrize("reach", [0.0, 0.25, 30.0, 1e6, 1e30, float("nan"), float("inf")])
def test_flows_of_any_size(reach, search_inputs, agrees_with_naive):
    (query, key, flow), value = search_inputs(1, 0, 6, 7, 9)
    flow = torch.where(torch.rand(flow.shape) < 0.5, flow, flow.sign() * reach)
    options = {"window": 3, "topk": 4}
    wanted = shifted_search(query, key, flow, backend="naive", **options)
    found = shifted_search(query, key, flow, backend="cpu", **options)
    torch.testing.assert_close(wanted[0], found[0])
    torch.testing.assert_close(wanted[1], found[1])
    agrees_with_naive(_attention(options), [query, key, flow, value], "cpu")


@pytest.mark.parametrize("metric", ["dot", "l2"])
@pytest.mark.parametrize("stride", [1.0, 2.0, 3.0, 0.5])
def test_flows_just_below_zero(stride, metric, search_inputs):
    """Far from the left border such a position rounds up to the next pixel, near it does not."""
    (query, key, _), _ = search_inputs(1, 0, 16, 12, 40)
    options = {"window": 3, "topk": 9, "search_stride": stride, "metric": metric}
    for tiny in (-5e-7, -1e-6):
        flow = torch.full((1, 2, 12, 40), tiny)
        wanted = shifted_search(query, key, flow, backend="naive", **options)
        found = shifted_search(query, key, flow, backend="cpu", **options)
        torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found[1], wanted[1], rtol=0, atol=1e-5)


def test_zero_flow_gradients(search_inputs, agrees_with_naive):
    """Whole positions, where the bilinear weights have no single derivative: both take the same."""
    (query, key, flow), value = search_inputs(1, 0, 6, 7, 9)
    for options in ({}, {"patch": 3}, {"metric": "l2"}):
        options = {"window": 3, "topk": 4, **options}
        agrees_with_naive(_search(options), [query, key, flow * 0], "cpu")
        agrees_with_naive(_attention(options), [query, key, flow * 0, value], "cpu")


def test_strides_do_not_matter(search_inputs):
    (query, key, flow), value = search_inputs(2, 0, 32, 8, 10)
    wanted = shifted_attention(query, key, value, flow, window=3, topk=4, heads=2)
    wide = [torch.randn(2, 64, 16, 20) for _ in range(2)]
    for part, tensor in zip(wide, (query, key), strict=True):
        part[:, ::2, ::2, ::2] = tensor
    sliced = [part[:, ::2, ::2, ::2] for part in wide]
    moved = [tensor.transpose(2, 3).contiguous().transpose(2, 3) for tensor in (value, flow)]
    channels_last = [x.contiguous(memory_format=torch.channels_last) for x in (query, key, value)]
    expanded = flow[:1].expand(2, -1, -1, -1)
    for arguments in ((*sliced, *moved), (*channels_last, flow)):
        found = shifted_attention(*arguments, window=3, topk=4, heads=2)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    found = shifted_attention(query, key, value, expanded, window=3, topk=4, heads=2)
    torch.testing.assert_close(found[:1], wanted[:1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("channels", [6, 32])
def test_bfloat16_accumulates_in_float32(channels, search_inputs):
    (query, key, flow), value = search_inputs(1, 0, channels, 9, 20)
    half = [x.bfloat16() for x in (query, key, value)]
    options = {"window": 5, "topk": 4, "backend": "cpu"}
    scores, offsets = shifted_search(half[0], half[1], flow, **options)
    assert scores.dtype == torch.float32
    wanted = shifted_search(half[0].float(), half[1].float(), flow, **options)
    assert torch.equal(scores, wanted[0]) and torch.equal(offsets, wanted[1])
    leaves = [x.clone().requires_grad_() for x in half]
    out = shifted_attention(*leaves, flow, scale=0.2, **options)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    floats = [x.float().requires_grad_() for x in half]
    wanted = shifted_attention(*floats, flow, scale=0.2, **options)
    wanted.sum().backward()
    assert torch.equal(out, wanted.bfloat16())
    for leaf, full in zip(leaves, floats, strict=True):
        assert leaf.grad.dtype == torch.bfloat16
        torch.testing.assert_close(leaf.grad.float(), full.grad, rtol=0.01, atol=0.02)


GATHERS = [
    {},
    {"heads": 2},
    {"patch": 2},
    {"patch": 3, "dilation": 2, "heads": 3},
    {"query_stride": 2, "patch": 3},
    {"query_stride": 3},
    {"mode": "stack"},
    {"mode": "stack", "patch": 3, "heads": 2},
    {"mode": "stack", "query_stride": 2},
]


@pytest.mark.parametrize("references", [0, 1, 3])
@pytest.mark.parametrize("options", GATHERS, ids=_name)
def test_gather_and_scatter(options, references, agrees_with_naive):
    for height, width in SIZES:
        stride, heads = options.get("query_stride", 1), options.get("heads", 1)
        shape = (2, heads, (height - 1) // stride + 1, (width - 1) // stride + 1, 3)
        several = (references,) if references else ()
        value, x = torch.randn(2, *several, 6, height, width), torch.randn(2, 6, height, width)
        weights, offsets = torch.randn(shape), torch.randn(*shape, 2) * 5
        which = torch.randint(0, max(references, 1), (*shape, 1)).float()

        def places(offsets, which=which):
            return torch.cat((which, offsets), -1) if references else offsets

        def gathered(value, weights, offsets, backend):
            return gather(value, weights, places(offsets), backend=backend, **options)

        def scattered(x, weights, offsets, backend):
            places_ = places(offsets)
            count = references or None
            return scatter(x, weights, places_, references=count, backend=backend, **options)

        agrees_with_naive(gathered, [value, weights, offsets], "cpu")
        if "mode" not in options:
            agrees_with_naive(scattered, [x, weights, offsets], "cpu")


@pytest.mark.parametrize("backend", ["naive", "cpu"])
def test_references_that_are_not_there_are_the_nearest(backend):
    value, x = torch.randn(1, 2, 3, 4, 5), torch.randn(1, 3, 4, 5)
    weights, places = torch.randn(1, 1, 4, 5, 4), torch.randn(1, 1, 4, 5, 4, 2)

    def offsets(*which):
        return torch.cat((torch.tensor(which).expand(1, 1, 4, 5, 4)[..., None], places), -1)

    far, near = offsets(-3.0, 7.0, 0.9, 2.0), offsets(0.0, 1.0, 0.0, 1.0)
    both = [gather(value, weights, at, backend=backend) for at in (far, near)]
    torch.testing.assert_close(*both)
    both = [scatter(x, weights, at, references=2, backend=backend) for at in (far, near)]
    torch.testing.assert_close(*both)


def test_uninitialised_memory_is_never_read(poisoned_memory, search_inputs, agrees_with_naive):
    for options in ({}, {"heads": 2}, {"metric": "l2"}, {"patch": 3, "anchor": "query"}):
        options = {"window": 3, "topk": 4, **options}
        inputs, value = search_inputs(2, 2, 6, 7, 9)
        agrees_with_naive(_search(options), inputs, "cpu")
        agrees_with_naive(_attention(options), [*inputs, value], "cpu")


def test_the_number_of_threads_changes_nothing(search_inputs, outputs_and_gradients):
    inputs, value = search_inputs(1, 2, 16, 40, 33)
    operator = _attention({"window": 5, "topk": 6})
    results = []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            outputs, grads = outputs_and_gradients(
                lambda *leaves: operator(*leaves, backend="cpu"), [*inputs, value]
            )
            results.append([*outputs, *grads])
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_shape(data, search_inputs, agrees_with_naive):
    draw = data.draw
    heads = draw(st.integers(1, 3))
    options = {
        "heads": heads,
        "window": draw(st.sampled_from([1, 3, 5, 7])),
        "patch": draw(st.sampled_from([1, 1, 2, 3])),
        "dilation": draw(st.integers(1, 2)),
        "metric": draw(st.sampled_from(["dot", "l2"])),
        "query_stride": draw(st.integers(1, 3)),
        "search_stride": draw(st.sampled_from([0.5, 1.0, 1.0, 2.0])),
        "keep_in_image": draw(st.booleans()),
        "per_reference": draw(st.booleans()),
        "anchor": draw(st.sampled_from(["none", "query", "flow", "exclude_query"])),
    }
    references = draw(st.integers(0, 2))
    least = references if options["anchor"] == "flow" else 1
    options["topk"] = draw(st.integers(max(least, 1), max(least, options["window"] ** 2)))
    if options["window"] == 1:
        options["per_reference"] = True
        options["topk"] = 1
    torch.manual_seed(draw(st.integers(0, 1000)))
    size = [draw(st.integers(1, 2)), references, heads * draw(st.integers(1, 20))]
    # Reflection makes candidates that are equal but for rounding, and either may then come first:
    # on exact numbers there is no rounding, and the first in scan order wins everywhere.
    sides = draw(st.integers(1, 12)), draw(st.integers(1, 20))
    inputs, value = search_inputs(*size, *sides, exact=True)
    agrees_with_naive(_search(options), inputs, "cpu", tolerance=1e-4)
    agrees_with_naive(_attention(options), [*inputs, value], "cpu", tolerance=1e-4)
