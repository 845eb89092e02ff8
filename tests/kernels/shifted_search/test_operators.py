"""The operators as torch sees them: gradcheck, opcheck, compile, export, and refusals."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from kernels import gather, scatter, shifted_attention, shifted_search
from kernels.shifted_search.options import GatherOptions, SearchOptions


def _positions(height: int, width: int) -> torch.Tensor:
    """A flow in float64 whose positions and reflections keep clear of whole pixels."""
    fraction = torch.rand(1, 2, height, width, dtype=torch.float64) * 0.6 + 0.2
    return fraction + torch.randint(-4, 4, (1, 2, height, width))


@pytest.mark.parametrize(
    "options",
    [{}, {"metric": "l2", "patch": 2}, {"heads": 2, "search_stride": 0.5}, {"anchor": "query"}],
    ids=str,
)
def test_gradcheck_of_naive(options):
    height, width = 4, 5
    query, key, value = torch.randn(3, 1, 4, height, width, dtype=torch.float64)
    flow = _positions(height, width)
    if options.get("search_stride") == 0.5:
        flow = flow + 0.013
    leaves = [x.requires_grad_() for x in (query, key, value, flow)]

    def search(query, key, flow):
        scores, offsets = shifted_search(query, key, flow, window=3, topk=3, **options)
        return torch.where(torch.isfinite(scores), scores, 0.0), offsets

    def attention(*leaves):
        return shifted_attention(*leaves, window=3, topk=3, scale=0.3, **options)

    assert torch.autograd.gradcheck(search, (leaves[0], leaves[1], leaves[3]), fast_mode=True)
    assert torch.autograd.gradcheck(attention, leaves, fast_mode=True)


@pytest.mark.parametrize("options", [{}, {"patch": 2, "heads": 2}, {"mode": "stack"}], ids=str)
def test_gradcheck_of_naive_gather_and_scatter(options):
    value = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    weights = torch.randn(
        1, options.get("heads", 1), 4, 5, 2, dtype=torch.float64, requires_grad=True
    )
    offsets = torch.stack([_positions(4, 5)] * options.get("heads", 1), 1)[0]  # [heads, 2, 4, 5]
    offsets = offsets.unsqueeze(0) if offsets.dim() == 4 else offsets
    offsets = torch.stack((offsets, offsets + 1.1), -1).permute(0, 1, 3, 4, 5, 2)
    offsets = offsets.contiguous().requires_grad_()
    leaves = (value, weights, offsets)
    assert torch.autograd.gradcheck(lambda *x: gather(*x, **options), leaves, fast_mode=True)
    if "mode" not in options:
        assert torch.autograd.gradcheck(lambda *x: scatter(*x, **options), leaves, fast_mode=True)


def _core_inputs(references: int):
    query = torch.randn(1, 4, 5, 6, requires_grad=True)
    key, value = (torch.randn(1, references, 4, 5, 6, requires_grad=True) for _ in range(2))
    flow = torch.randn(1, references, 2, 5, 6, requires_grad=True)
    return query, key, value, flow


@pytest.mark.parametrize("references", [1, 2])
@pytest.mark.parametrize(
    "options", [SearchOptions(3, 2), SearchOptions(3, 2, patch=3, heads=2)], ids=str
)
def test_opcheck_search(references, options):
    query, key, value, flow = _core_inputs(references)
    settings = (*options.values(), "cpu")
    torch.library.opcheck(torch.ops.lgmc.shifted_search.default, (query, key, flow, *settings))
    arguments = (query, key, value, flow, 0.5, *settings)
    torch.library.opcheck(torch.ops.lgmc.shifted_attention.default, arguments)


@pytest.mark.parametrize("mode", ["sum", "stack"])
@pytest.mark.parametrize("references", [1, 2])
def test_opcheck_gather(references, mode):
    value = torch.randn(1, references, 4, 5, 6, requires_grad=True)
    weights = torch.randn(1, 2, 5, 6, 3, requires_grad=True)
    offsets = torch.randn(1, 2, 5, 6, 3, 2)
    if references > 1:
        which = torch.randint(0, references, (1, 2, 5, 6, 3, 1)).float()
        offsets = torch.cat((which, offsets), -1)
    offsets.requires_grad_()
    options = GatherOptions(2, 2, 1, 1, mode)
    arguments = (value, weights, offsets, *options.values(), "cpu")
    torch.library.opcheck(torch.ops.lgmc.gather.default, arguments)
    if mode == "sum":
        x = torch.randn(1, 4, 5, 6, requires_grad=True)
        arguments = (x, weights, offsets, 5, 6, references, *options.values(), "cpu")
        torch.library.opcheck(torch.ops.lgmc.scatter.default, arguments)


def _strides(operator, arguments) -> tuple[list, list]:
    """Strides of the results, of real tensors and of fakes."""
    real = [x.stride() for x in operator(*arguments)]
    with FakeTensorMode() as mode:
        fakes = [mode.from_tensor(x) if torch.is_tensor(x) else x for x in arguments]
        return real, [x.stride() for x in operator(*fakes)]


@pytest.mark.parametrize("options", [SearchOptions(3, 2), SearchOptions(3, 2, patch=3)], ids=str)
def test_gradients_are_contiguous_as_their_fakes_say(options):
    """Whatever the memory order of the inputs: compiled graphs rely on it."""
    image, key, value, grad = (
        torch.randn(2, 4, 5, 6).contiguous(memory_format=torch.channels_last) for _ in range(4)
    )
    key, value = key[:, None], value[:, None]
    flow = torch.randn(2, 1, 2, 6, 5).transpose(3, 4)
    weights = torch.rand(2, 1, 2, 5, 6).permute(0, 1, 3, 4, 2)
    offsets = torch.zeros(2, 1, 2, 2, 5, 6).permute(0, 1, 4, 5, 2, 3)
    places, settings = (weights, offsets), (*options.values(), "cpu")
    gathering = (*options.gathering().values(), "cpu")
    lgmc = torch.ops.lgmc
    for operator, arguments in (
        (lgmc.shifted_search_backward, (weights, image, key, *places, *settings)),
        (lgmc.shifted_attention_backward, (grad, image, key, value, flow, *places, 1.0, *settings)),
        (lgmc.gather_backward, (grad, value, *places, *gathering)),
        (lgmc.scatter_backward, (value, grad, *places, *gathering)),
    ):
        real, fake = _strides(operator, arguments)
        assert real == fake, operator
        assert all(x.is_contiguous() for x in operator(*arguments)), operator


def _step(query, key, value, flow):
    out = shifted_attention(query, key, value, flow, window=3, topk=2, heads=2)
    scores, offsets = shifted_search(query, key, flow, window=3, topk=2, keep_in_image=True)
    moved = gather(value, torch.softmax(scores, -1), offsets)
    return out + moved + scatter(value, scores, offsets)


def test_compiled_whole_with_the_same_gradients(outputs_and_gradients):
    tensors = [torch.randn(1, 4, 6, 7) for _ in range(3)] + [torch.randn(1, 2, 6, 7)]
    compiled = torch.compile(_step, fullgraph=True, backend="aot_eager")
    wanted = outputs_and_gradients(_step, tensors)
    found = outputs_and_gradients(compiled, tensors)
    for these, those in zip(wanted, found, strict=True):
        for want, got in zip(these, those, strict=True):
            torch.testing.assert_close(got, want)
    torch._dynamo.reset()


def test_exported_as_single_operators():
    class Step(torch.nn.Module):
        def forward(self, query, key, value, flow):
            return _step(query, key, value, flow)

    tensors = [torch.randn(1, 4, 6, 7) for _ in range(3)] + [torch.randn(1, 2, 6, 7)]
    program = torch.export.export(Step(), tuple(tensors))
    names = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    for name in ("shifted_search", "shifted_attention", "gather", "scatter"):
        assert names.count(f"lgmc.{name}.default") == 1, names
    torch.testing.assert_close(program.module()(*tensors), _step(*tensors))


Q, K, FLOW = torch.zeros(2, 6, 8, 10), torch.zeros(2, 6, 8, 10), torch.zeros(2, 2, 8, 10)


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ("query", {"query": Q[0]}),
        ("query", {"query": Q.int(), "key": K.int()}),
        ("query", {"query": Q[:0]}),
        ("query", {"query": None}),
        ("key", {"key": K[:, :4]}),
        ("key", {"key": K[..., :9]}),
        ("key", {"key": K[:1]}),
        ("key", {"key": K.double()}),
        ("key", {"key": K.to("meta")}),
        ("flow", {"flow": FLOW[:, :1]}),
        ("flow", {"flow": FLOW[..., :5]}),
        ("flow", {"flow": FLOW[:, None]}),
        ("flow", {"flow": FLOW.long()}),
        ("window", {"window": 4}),
        ("window", {"window": 0}),
        ("window", {"window": 3.0}),
        ("topk", {"topk": 10}),
        ("topk", {"topk": 0}),
        ("patch", {"patch": 0}),
        ("dilation", {"dilation": 0}),
        ("heads", {"heads": 4}),
        ("heads", {"heads": 0}),
        ("metric", {"metric": "cosine"}),
        ("query_stride", {"query_stride": 0}),
        ("search_stride", {"search_stride": 0.0}),
        ("search_stride", {"search_stride": 0.5, "positions": "integer"}),
        ("positions", {"positions": "nearest"}),
        ("anchor", {"anchor": "self"}),
        ("temporal_radius", {"temporal_radius": -1}),
        ("query", {"temporal_radius": 1}),
        ("backend", {"backend": "fast"}),
        ("backend", {"backend": "cpu", "query": Q.double(), "key": K.double()}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_search_refuses(named, changes):
    arguments = {"query": Q, "key": K, "flow": FLOW, "window": 3, "topk": 4, **changes}
    with pytest.raises(ValueError, match=rf"^{named}: was .*, must be "):
        shifted_search(**arguments)


def test_search_refuses_too_few_frames_and_slots():
    clip, flow = torch.zeros(1, 2, 4, 5, 5), torch.zeros(1, 2, 3, 2, 5, 5)
    with pytest.raises(ValueError, match="^temporal_radius: was 1"):
        shifted_search(clip, clip, flow, window=3, topk=1, temporal_radius=1)
    keys, flows = torch.zeros(2, 3, 6, 8, 10), torch.zeros(2, 3, 2, 8, 10)
    with pytest.raises(ValueError, match="^topk: was 2"):
        shifted_search(Q, keys, flows, window=3, topk=2, anchor="flow")
    with pytest.raises(ValueError, match="^topk: was 28"):
        shifted_search(Q, keys, flows, window=3, topk=28)
    with pytest.raises(ValueError, match="^topk: was 10"):
        shifted_search(Q, keys, flows, window=3, topk=10, per_reference=True)


@pytest.mark.parametrize("value", [K[:, :5], K[..., :9], K[:, None], K.double()])
def test_attention_refuses_values(value):
    with pytest.raises(ValueError, match="^(value|heads): was"):
        shifted_attention(Q, K, value, FLOW, window=3, topk=4, heads=2)


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ("heads", {"heads": 0}),
        ("heads", {"heads": "a"}),
        ("query_stride", {"query_stride": 0}),
        ("scale", {"scale": None}),
        ("scale", {"scale": float("nan")}),
        ("scale", {"scale": float("inf")}),
        ("scale", {"scale": True}),
    ],
)
def test_attention_refuses_options(named, changes):
    with pytest.raises(ValueError, match=rf"^{named}: was .*, must be [^\n]*$"):
        shifted_attention(Q, K, K, FLOW, window=3, topk=4, **changes)


WEIGHTS, OFFSETS = torch.zeros(2, 1, 8, 10, 3), torch.zeros(2, 1, 8, 10, 3, 2)


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ("value", {"value": K[0]}),
        ("weights", {"weights": WEIGHTS[..., :9, :]}),
        ("weights", {"weights": WEIGHTS[0]}),
        ("offsets", {"offsets": OFFSETS[..., :1]}),
        ("offsets", {"offsets": OFFSETS[..., :2, :]}),
        ("heads", {"heads": 4}),
        ("mode", {"mode": "mean"}),
        ("patch", {"patch": 0}),
    ],
)
def test_gather_refuses(named, changes):
    with pytest.raises(ValueError, match=rf"^{named}: was .*, must be "):
        gather(**{"value": K, "weights": WEIGHTS, "offsets": OFFSETS, **changes})


@pytest.mark.parametrize(
    ("named", "changes"),
    [
        ("x", {"x": K[0]}),
        ("size", {"size": (8, 9)}),
        ("size", {"size": 5}),
        ("size", {"size": (8, 10, 1)}),
        ("references", {"references": 0}),
        ("heads", {"heads": 0}),
    ],
)
def test_scatter_refuses(named, changes):
    with pytest.raises(ValueError, match=rf"^{named}: was .*, must be "):
        scatter(**{"x": K, "weights": WEIGHTS, "offsets": OFFSETS, **changes})
