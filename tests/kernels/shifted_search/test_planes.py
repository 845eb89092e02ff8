"""The search on the CPU that takes neighbouring queries together: cpu_planes.py.

Against naive, and against the search that takes each query by itself, with which it shares results:
offsets to the bit, scores but for the order of a sum.
"""

import pytest
import torch

from kernels import shifted_search
from kernels.jit import LANES
from kernels.shifted_search import cpu
from kernels.vector_planes import ROWS

SIZES = [(1, 1), (ROWS, LANES), (2 * ROWS + 1, LANES + 1), (5, 3 * LANES - 1), (3, 2)]


@pytest.fixture
def taken(monkeypatch):
    """The compiled kernels that have run since the list was cleared."""
    kernels, run = [], cpu.run

    def noting(kernel, *arguments, **settings):
        kernels.append(kernel)
        run(kernel, *arguments, **settings)

    monkeypatch.setattr(cpu, "run", noting)
    return kernels


@pytest.fixture
def together(monkeypatch):
    """Queries are taken together, whatever the flow."""
    monkeypatch.setattr(cpu, "_MOST_GROUPS", float("inf"))


@pytest.fixture
def both_ways(monkeypatch, taken):
    """search(query, key, flow, **options) -> results of queries together, of each by itself.

    They are of all candidates, sorted by offset: sums of another order may exchange two scores.
    """

    def search(query, key, flow, **options):
        found = []
        for most, kernel in ((float("inf"), cpu.search_planes), (0, cpu.search_rows)):
            monkeypatch.setattr(cpu, "_MOST_GROUPS", most)
            taken.clear()
            scores, offsets = shifted_search(
                query, key, flow, topk=options["window"] ** 2, backend="cpu", **options
            )
            assert kernel in taken
            order = torch.argsort(1000.0 * offsets[..., 1] + offsets[..., 0], dim=-1)
            places = order[..., None].expand(offsets.shape)
            found.append((scores.gather(-1, order), offsets.gather(-2, places)))
        return found

    return search


def _flow(kind: str, height: int, width: int) -> torch.Tensor:
    """[1, 2, H, W]: the same everywhere, changing slowly, or without any order."""
    down, across = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    if kind == "constant":
        return torch.tensor([1.25, -0.5])[None, :, None, None].expand(1, 2, height, width)
    if kind == "slow":
        return torch.stack((0.21 * across - 0.3 * down, 0.17 * down + 0.1 * across))[None]
    return 30 * torch.randn(1, 2, height, width)


@pytest.mark.parametrize("kind", ["constant", "slow", "wild"])
@pytest.mark.parametrize(
    "options",
    [
        {"window": 3},
        {"window": 1},
        {"window": 9, "heads": 2},
        {"window": 13},
        {"window": 5, "positions": "integer"},
    ],
    ids=str,
)
def test_queries_together_find_what_each_finds(options, kind, both_ways):
    for height, width in SIZES:
        query, key = (torch.randn(1, 10, height, width) for _ in range(2))
        flow = _flow(kind, height, width)
        (scores, offsets), (expected, those) = both_ways(query, key, flow, **options)
        assert torch.equal(offsets, those)
        assert torch.equal(torch.isinf(scores), torch.isinf(expected))
        torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("topk", [1, 4, 9])
def test_ties_are_those_of_naive(topk, search_inputs, agrees_with_naive, together):
    def search(query, key, flow, backend):
        return shifted_search(query, key, flow, window=3, topk=topk, backend=backend)

    for height, width in SIZES:
        inputs, _ = search_inputs(2, 0, 6, height, width, exact=True)
        agrees_with_naive(search, inputs, "cpu", 1e-6)


def test_bfloat16(both_ways):
    query, key = (torch.randn(2, 8, 9, LANES + 3).bfloat16() for _ in range(2))
    flow = _flow("slow", 9, LANES + 3).expand(2, -1, -1, -1)
    (scores, offsets), (expected, those) = both_ways(query, key, flow, window=5)
    assert torch.equal(offsets, those)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def test_images_within_larger_ones(both_ways):
    query, key = (torch.randn(1, 8, 12, 2 * LANES)[..., 2:-1, 3:-2] for _ in range(2))
    flow = _flow("slow", *query.shape[-2:])
    (scores, offsets), (expected, those) = both_ways(query, key, flow, window=5)
    assert torch.equal(offsets, those)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def test_numbers_that_are_none(both_ways):
    """NaN and infinity in the flow, and candidates just beyond the last pixel by rounding."""
    width = LANES + 6
    flow = torch.zeros(1, 2, 6, width)
    flow[0, 0, 0, :6] = torch.tensor([float("nan"), float("inf"), -float("inf"), 1e30, -1e30, 3e-8])
    flow[0, 1, 2] = 3.0000002 - 2
    flow[0, 0, 3] = width - 3 - torch.arange(width) + 1e-6
    flow[0, 1, 4] = -1e-9
    query, key = (torch.randn(1, 4, 6, width) for _ in range(2))
    (scores, offsets), (expected, those) = both_ways(query, key, flow, window=5)
    assert torch.equal(offsets, those)
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=1e-5)


def test_a_nan_of_the_key_stays_where_it_is_seen(together):
    """Pixels that only a neighbour's window has, or that lie beyond the image, do no harm."""
    query, key = (torch.randn(1, 4, 8, 2 * LANES) for _ in range(2))
    flow = _flow("slow", 8, 2 * LANES)
    clean, _ = shifted_search(query, key, flow, window=3, topk=9, backend="cpu")
    key[..., 4, LANES] = float("nan")
    for backend in ("cpu", "naive"):
        scores, offsets = shifted_search(query, key, flow, window=3, topk=9, backend=backend)
        seen = torch.isnan(scores).any(-1)
        assert seen.any() and not seen.all()
        assert torch.isfinite(clean[~seen]).eq(torch.isfinite(scores[~seen])).all()


def test_flows_without_order_are_searched_query_by_query(taken):
    """Which way is taken follows from the flow alone."""
    query, key = (torch.randn(1, 4, 4 * ROWS, 2 * LANES) for _ in range(2))
    for kind, kernel in (("constant", cpu.search_planes), ("wild", cpu.search_rows)):
        taken.clear()
        flow = _flow(kind, 4 * ROWS, 2 * LANES)
        shifted_search(query, key, flow, window=3, topk=2, backend="cpu")
        assert kernel in taken


def test_the_number_of_threads_changes_nothing(together):
    query, key = (torch.randn(1, 6, 37, 2 * LANES + 5) for _ in range(2))
    flow = _flow("slow", 37, 2 * LANES + 5)
    before = torch.get_num_threads()
    found = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        try:
            found.append(shifted_search(query, key, flow, window=5, topk=6, backend="cpu"))
        finally:
            torch.set_num_threads(before)
    for scores, offsets in found[1:]:
        assert torch.equal(scores, found[0][0]) and torch.equal(offsets, found[0][1])
