"""What the shifted search is, tested on every back end that runs here, naive first."""

import pytest
import torch
import torch.nn.functional as F

from kernels import gather, scatter, shifted_attention, shifted_search
from kernels.shifted_search.forms import searched_frames

pytestmark = pytest.mark.parametrize("backend", ["naive", "cpu"])


def _bilinear_warp(image: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """A plain warp for flows that stay inside the image."""
    _, _, height, width = image.shape
    x = torch.arange(width) + flow[:, 0]
    y = torch.arange(height)[:, None] + flow[:, 1]
    grid = torch.stack((2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1), -1)
    return F.grid_sample(image, grid, mode="bilinear", align_corners=True)


def test_window_of_one_is_a_bilinear_warp(backend):
    height, width = 11, 14
    query, key, value = (torch.randn(2, 8, height, width) for _ in range(3))
    x, y = torch.rand(2, height, width) * (width - 1), torch.rand(2, height, width) * (height - 1)
    flow = torch.stack((x - torch.arange(width), y - torch.arange(height)[:, None]), 1)
    scores, offsets = shifted_search(query, key, flow, window=1, topk=1, backend=backend)
    warped = _bilinear_warp(key, flow)
    torch.testing.assert_close(scores[:, 0, ..., 0], (query * warped).sum(1), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(offsets[:, 0, :, :, 0].permute(0, 3, 1, 2), flow, atol=1e-5, rtol=0)
    moved = shifted_attention(query, key, value, flow, window=1, topk=1, backend=backend)
    torch.testing.assert_close(moved, _bilinear_warp(value, flow), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("metric", ["dot", "l2"])
def test_a_shifted_copy_is_found_exactly(backend, metric):
    key = F.normalize(torch.randn(1, 32, 20, 24), dim=1)
    query = torch.roll(key, (3, -2), (2, 3))  # query(y, x) = key(y - 3, x + 2)
    flow = torch.tensor([1.0, -1.0])[None, :, None, None].expand(1, 2, 20, 24)
    scores, offsets = shifted_search(
        query, key, flow, window=5, topk=1, metric=metric, backend=backend
    )
    inner = offsets[0, 0, 6:-6, 6:-6, 0]
    assert torch.equal(inner, torch.tensor([2.0, -3.0]).expand_as(inner))
    best = scores[0, 0, 6:-6, 6:-6, 0]
    assert best.sub(1.0 if metric == "dot" else 0.0).abs().max() < 1e-5


def test_centres_reflect_once_at_the_border(backend):
    image = torch.randn(1, 4, 5, 6)
    flow = torch.zeros(1, 2, 5, 6)
    flow[0, 0, :, 0], flow[0, 0, :, 5] = -1.0, 1.0  # x: -1 -> 1, 6 -> 4
    flow[0, 1, 0], flow[0, 1, 4] = -2.0, 1.5  # y: -2 -> 2, 5.5 -> 2.5
    _, offsets = shifted_search(image, image, flow, window=1, topk=1, backend=backend)
    assert (offsets[0, 0, :, 0, 0, 0] == 1).all() and (offsets[0, 0, :, 5, 0, 0] == -1).all()
    assert (offsets[0, 0, 0, :, 0, 1] == 2).all() and (offsets[0, 0, 4, :, 0, 1] == -1.5).all()


def test_the_offsets_gradient_is_the_flows_with_the_reflections_sign(backend):
    image = torch.randn(1, 4, 5, 6)
    flow = torch.zeros(1, 2, 5, 6)
    flow[0, 0, 0, 0] = -1.0  # reflected
    flow[0, 0, 0, 1] = 100.0  # reflected, then clamped
    flow.requires_grad_()
    _, offsets = shifted_search(image, image, flow, window=3, topk=2, backend=backend)
    offsets[..., 0].sum().backward()
    expected = torch.full((5, 6), 2.0)  # topk
    expected[0, 0], expected[0, 1] = -2.0, 0.0
    assert torch.equal(flow.grad[0, 0], expected)
    assert (flow.grad[0, 1] == 0).all()


def test_candidates_outside_score_worst(backend):
    image = torch.ones(1, 1, 4, 4)
    flow = torch.zeros(1, 2, 4, 4)
    for metric, worst in (("dot", -torch.inf), ("l2", torch.inf)):
        scores, offsets = shifted_search(
            image, image, flow, window=3, topk=9, metric=metric, backend=backend
        )
        assert torch.isinf(scores[0, 0, 0, 0]).sum() == 5  # of a corner's nine
        assert (scores[0, 0, 0, 0, 4:] == worst).all()
        assert torch.isfinite(scores[0, 0, 1, 1]).all()
        # The first outside candidate in scan order follows the four inside.
        assert offsets[0, 0, 0, 0, 4].tolist() == [-1.0, -1.0]


def test_of_ties_the_first_in_scan_order_wins(backend):
    image = torch.ones(1, 2, 6, 6)
    _, offsets = shifted_search(
        image, image, torch.zeros(1, 2, 6, 6), window=3, topk=3, backend=backend
    )
    assert offsets[0, 0, 2, 2].tolist() == [[-1, -1], [0, -1], [1, -1]]


def test_keep_in_image_moves_the_window(backend):
    image = torch.randn(1, 3, 6, 7)
    scores, offsets = shifted_search(
        image,
        image,
        torch.zeros(1, 2, 6, 7),
        window=5,
        topk=25,
        keep_in_image=True,
        backend=backend,
    )
    assert torch.isfinite(scores).all()
    corner = offsets[0, 0, 0, 0]
    assert corner.min() == 0 and corner.max() == 4
    assert offsets[0, 0, 5, 6].min() == -4 and offsets[0, 0, 5, 6].max() == 0


@pytest.mark.parametrize("stride", [1 / 3, 0.1, 0.3, 0.7])
@pytest.mark.parametrize("window", [3, 5])
def test_a_moved_window_keeps_its_centre(backend, window, stride):
    """Whatever a fractional stride is rounded to."""
    query, key = torch.randn(2, 1, 4, 7, 7)
    options = {"window": window, "topk": 1, "search_stride": stride, "keep_in_image": True}
    scores, offsets = shifted_search(
        query, key, torch.zeros(1, 2, 7, 7), anchor="flow", backend=backend, **options
    )
    assert (offsets == 0).all()
    torch.testing.assert_close(scores[0, 0, ..., 0], (query * key).sum(1)[0])


def test_anchors(backend):
    query, key = torch.randn(2, 1, 4, 6, 7)
    flow = torch.zeros(1, 2, 6, 7)
    search = {"window": 3, "topk": 9, "backend": backend}
    scores, offsets = shifted_search(query, key, flow, anchor="query", **search)
    torch.testing.assert_close(scores[0, 0, ..., 0], (query * key).sum(1)[0])
    assert (offsets[..., 0, :] == 0).all()
    assert (offsets[:, :, 1:-1, 1:-1, 1:] != 0).any(-1).all()  # the query stands there just once
    flow = flow + 0.5
    _, offsets = shifted_search(query, key, flow, anchor="flow", **search)
    assert (offsets[:, :, :-1, :-1, 0] == 0.5).all()
    scores, offsets = shifted_search(query, key, flow * 0, anchor="exclude_query", **search)
    inner = offsets[:, :, 1:-1, 1:-1, :8]
    assert (inner != 0).any(-1).all() and torch.isfinite(scores[:, :, 1:-1, 1:-1, :8]).all()
    assert torch.isinf(scores[:, :, 1:-1, 1:-1, 8]).all()


def test_integer_positions_round_the_flow(backend):
    query, key = torch.randn(2, 1, 4, 6, 7)
    query.requires_grad_()
    flow = (torch.rand(1, 2, 6, 7) * 4 - 2).requires_grad_()
    search = {"window": 3, "topk": 2, "backend": backend}
    scores, offsets = shifted_search(query, key, flow, positions="integer", **search)
    rounded = shifted_search(query, key, flow.detach().round(), **search)
    torch.testing.assert_close(scores, rounded[0])
    assert torch.equal(offsets.detach(), rounded[1])
    finite = torch.where(torch.isfinite(scores), scores, 0.0)
    (grad,) = torch.autograd.grad(finite.sum(), flow, allow_unused=True, retain_graph=True)
    assert grad is None or (grad == 0).all()


def test_several_references_compete(backend):
    key = torch.randn(1, 3, 8, 10, 12)
    query = key[:, 2]
    flow = torch.zeros(1, 3, 2, 10, 12)
    search = {"window": 3, "metric": "l2", "backend": backend}
    scores, offsets = shifted_search(query, key, flow, topk=4, **search)
    assert (offsets[..., 0, :] == torch.tensor([2.0, 0.0, 0.0])).all()
    assert (scores[..., 0] == 0).all()
    each, moved = shifted_search(query, key, flow, topk=2, per_reference=True, **search)
    assert each.shape == (1, 1, 10, 12, 3, 2) and moved.shape == (1, 1, 10, 12, 3, 2, 2)
    for r in range(3):
        pair = shifted_search(query, key[:, r], flow[:, r], topk=2, **search)
        assert torch.equal(each[..., r, :], pair[0]) and torch.equal(moved[..., r, :, :], pair[1])


def test_video_searches_the_frames_around(backend):
    video = torch.randn(1, 4, 6, 8, 9)
    flow = torch.zeros(1, 4, 3, 2, 8, 9)
    scores, offsets = shifted_search(
        video, video, flow, window=3, topk=3, metric="l2", temporal_radius=1, backend=backend
    )
    assert scores.shape == (1, 1, 4, 8, 9, 3) and offsets.shape == (1, 1, 4, 8, 9, 3, 3)
    assert (offsets[..., 0, :] == 0).all() and (scores[..., 0] == 0).all()
    steps = [sorted(offsets[0, 0, t, ..., 0].unique().tolist()) for t in range(4)]
    assert steps == [[0, 1, 2], [-1, 0, 1], [-1, 0, 1], [-2, -1, 0]]
    assert searched_frames(4, 1).tolist() == [[0, 1, 2], [1, 2, 0], [2, 3, 1], [3, 2, 1]]
    out = shifted_attention(
        video, video, video, flow, window=3, topk=3, temporal_radius=1, backend=backend
    )
    assert out.shape == video.shape


def test_attention_is_search_softmax_gather(backend, search_inputs):
    (query, key, flow), value = search_inputs(batch=2, channels=8)
    options = {"heads": 2, "backend": backend}
    scores, offsets = shifted_search(query, key, flow, window=5, topk=6, **options)
    weights = torch.softmax(0.3 * scores, -1)
    expected = gather(value, weights, offsets, **options)
    found = shifted_attention(query, key, value, flow, window=5, topk=6, scale=0.3, **options)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("patch", [1, 2, 3])
def test_scatter_is_the_transpose_of_gather(backend, patch):
    value, x = torch.randn(2, 1, 4, 7, 8)
    weights, offsets = torch.rand(1, 2, 7, 8, 3), torch.randn(1, 2, 7, 8, 3, 2) * 4
    options = {"heads": 2, "patch": patch, "backend": backend}
    ones = torch.ones_like(x)
    # gather divides by the overlap, which a gather of ones with weight 1 undoes.
    unit = torch.zeros_like(weights)
    unit[..., 0] = 1.0
    assert torch.allclose(gather(ones, unit, offsets, **options), ones, atol=1e-5)
    around = F.pad(ones[:, :1], [patch - 1 - patch // 2, patch // 2] * 2)
    overlap = F.conv2d(around, torch.ones(1, 1, patch, patch))
    one_way = (gather(value, weights, offsets, **options) * overlap * x).sum()
    other_way = (value * scatter(x, weights, offsets, **options)).sum()
    torch.testing.assert_close(one_way, other_way, rtol=1e-4, atol=1e-3)


def test_stacked_patches(backend):
    value = torch.randn(1, 3, 6, 7)
    offsets = torch.zeros(1, 1, 6, 7, 2, 2)
    offsets[..., 1, 0] = 1.0
    weights = torch.tensor([1.0, 2.0]).expand(1, 1, 6, 7, 2)
    out = gather(value, weights, offsets, patch=3, mode="stack", backend=backend)
    assert out.shape == (1, 2, 27, 6, 7)
    padded = F.pad(value, (1, 1, 1, 1), mode="reflect")
    unfolded = F.unfold(padded, 3).reshape(1, 27, 6, 7)
    torch.testing.assert_close(out[:, 0], unfolded)
    torch.testing.assert_close(out[:, 1, :, 1:-1, 1:-2], 2 * unfolded[:, :, 1:-1, 2:-1])
