"""The custom operators lgmc::shifted_search, shifted_attention, gather and scatter.

Each takes the core's tensors, the options' fields and the back end's name; has a fake
implementation (shapes for torch.compile and torch.export) and a backward that is a custom operator
itself. The back end is loaded when an operator first runs, never at import.
"""

import torch
from torch import Tensor

from kernels.shifted_search import core, naive
from kernels.shifted_search.options import GatherOptions, SearchOptions

_SEARCH = SearchOptions.SCHEMA + ", str backend"
_GATHER = GatherOptions.SCHEMA + ", str backend"


def _operator(name: str, tensors: str, settings: str, results: int):
    """A decorator: register the function as lgmc::NAME(tensors, settings) -> results tensors."""
    returns = "Tensor" if results == 1 else f"({', '.join(['Tensor'] * results)})"
    schema = f"({tensors}, {settings}) -> {returns}"
    return torch.library.custom_op(f"lgmc::{name}", mutates_args=(), schema=schema)


def _parse(settings: tuple, options: type) -> tuple:
    """The options and the back end's name, from the arguments that follow the tensors."""
    return options(*settings[:-1]), settings[-1]


def _result_shape(query: Tensor, key: Tensor, options: SearchOptions) -> list[int]:
    grid = options.grid(*query.shape[-2:])
    return [query.shape[0], options.heads, *grid, options.chosen(key.shape[1])]


def _float(like: Tensor, *shape: int) -> Tensor:
    return like.new_empty(shape, dtype=torch.float32)


def _gradients(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Like the tensors, but contiguous, as the gradients of all back ends are."""
    return tuple(x.new_empty(x.shape) for x in tensors)


# -- search ----------------------------------------------------------------------------------------


@_operator("shifted_search", "Tensor query, Tensor key, Tensor flow", _SEARCH, 2)
def _search(query, key, flow, *settings):
    options, backend = _parse(settings, SearchOptions)
    return core.load(backend).search_forward(query, key, flow, options)


@_search.register_fake
def _(query, key, flow, *settings):
    options, _ = _parse(settings, SearchOptions)
    shape = _result_shape(query, key, options)
    return _float(query, *shape), _float(query, *shape, core.components(key.shape[1]))


@_operator(
    "shifted_search_backward",
    "Tensor grad_scores, Tensor query, Tensor key, Tensor scores, Tensor offsets",
    _SEARCH,
    3,
)
def _search_backward(grad_scores, query, key, scores, offsets, *settings):
    options, backend = _parse(settings, SearchOptions)
    return core.load(backend).search_backward(grad_scores, query, key, scores, offsets, options)


@_search_backward.register_fake
def _(grad_scores, query, key, scores, offsets, *settings):
    centre = _float(query, *key.shape[:2], 2, *scores.shape[2:4])
    return *_gradients(query, key), centre


def _search_setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*inputs[:3], *output)
    ctx.settings = inputs[3:]


def _search_gradient(ctx, grad_scores, grad_offsets):
    query, key, flow, scores, offsets = ctx.saved_tensors
    options, _ = _parse(ctx.settings, SearchOptions)
    grad_query = grad_key = grad_centre = None
    if grad_scores is not None:
        grad_query, grad_key, grad_centre = _search_backward(
            grad_scores, query, key, scores, offsets, *ctx.settings
        )
    if grad_offsets is not None:
        moved = core.offsets_to_centre(grad_offsets, offsets, key.shape[1], options.anchor)
        grad_centre = moved if grad_centre is None else grad_centre + moved
    grad_flow = _through_reflection(grad_centre, flow, options, query)
    return grad_query, grad_key, grad_flow, *[None] * len(ctx.settings)


def _through_reflection(grad_centre, flow, options, query):
    if grad_centre is None:
        return None
    return grad_centre * core.reflection_sign(flow, options, *query.shape[-2:])


_search.register_autograd(_search_gradient, setup_context=_search_setup)

# -- attention -------------------------------------------------------------------------------------

_ATTENTION = "float scale, " + _SEARCH


@_operator(
    "shifted_attention", "Tensor query, Tensor key, Tensor value, Tensor flow", _ATTENTION, 3
)
def _attention(query, key, value, flow, scale, *settings):
    options, backend = _parse(settings, SearchOptions)
    module = core.load(backend)
    if module.fuses(options):
        return module.attention_forward(query, key, value, flow, scale, options)
    scores, offsets = module.search_forward(query, key, flow, options)
    weights = naive.softmax(scores, scale, options.metric)
    out = _gather(value, weights, offsets, *options.gathering().values(), backend)
    return out, weights, offsets


@_attention.register_fake
def _(query, key, value, flow, scale, *settings):
    options, _ = _parse(settings, SearchOptions)
    shape = _result_shape(query, key, options)
    out = value.new_empty(value.shape[0], *value.shape[2:])
    return out, _float(query, *shape), _float(query, *shape, core.components(key.shape[1]))


@_operator(
    "shifted_attention_backward",
    "Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor flow, Tensor weights, "
    "Tensor offsets",
    _ATTENTION,
    4,
)
def _attention_backward(grad_out, query, key, value, flow, weights, offsets, scale, *settings):
    options, backend = _parse(settings, SearchOptions)
    module = core.load(backend)
    saved = (query, key, value, weights, offsets)
    if module.fuses(options):
        *gradients, centre = module.attention_backward(grad_out, *saved, scale, options)
    else:
        *gradients, centre = _composed_backward(module, grad_out, *saved, scale, options)
    # A back end may have its own way through the reflection.
    through = getattr(module, "through_reflection", _through_reflection)
    return *gradients, through(centre, flow, options, query).contiguous()


def _composed_backward(module, grad_out, query, key, value, weights, offsets, scale, options):
    """The attention's gradients from those of the search and the gather."""
    gathering = options.gathering()
    grad_out = _divided(grad_out, gathering)
    grad_value, grad_weights, grad_offsets = module.gather_backward(
        grad_out, value, weights, offsets, gathering
    )
    grad_scores = core.softmax_backward(grad_weights, weights, scale, options.metric)
    # Outside the image the weight is 0, and so is the gradient: any finite score will do.
    grad_query, grad_key, grad_centre = module.search_backward(
        grad_scores, query, key, weights, offsets, options
    )
    moved = core.offsets_to_centre(grad_offsets, offsets, key.shape[1], options.anchor)
    return grad_query, grad_key, grad_value, grad_centre + moved


@_attention_backward.register_fake
def _(grad_out, query, key, value, flow, weights, offsets, scale, *settings):
    grad_flow = _float(query, *key.shape[:2], 2, *weights.shape[2:4])
    return *_gradients(query, key, value), grad_flow


def _attention_setup(ctx, inputs, output):
    ctx.set_materialize_grads(False)
    query, key, value, flow = inputs[:4]
    _, weights, offsets = output
    ctx.mark_non_differentiable(weights, offsets)
    ctx.save_for_backward(query, key, value, flow, weights, offsets)
    ctx.settings = inputs[4:]


def _attention_gradient(ctx, grad_out, _weights, _offsets):
    nothing = [None] * (4 + len(ctx.settings))
    if grad_out is None:
        return tuple(nothing)
    query, key, value, flow, weights, offsets = ctx.saved_tensors
    gradients = _attention_backward(
        grad_out, query, key, value, flow, weights, offsets, *ctx.settings
    )
    return *gradients, *nothing[4:]


_attention.register_autograd(_attention_gradient, setup_context=_attention_setup)

# -- gather and scatter ----------------------------------------------------------------------------


def _divided(x: Tensor, options: GatherOptions) -> Tensor:
    """x divided by the patches' overlap; where every pixel has just one patch, x itself."""
    if options.mode == "stack" or options.patch == 1:
        return x
    overlap = naive.coverage(x.new_zeros((), dtype=torch.float32), x.shape[-2:], options)
    return (x / overlap.clamp(min=1)).to(x.dtype)


@_operator("gather", "Tensor value, Tensor weights, Tensor offsets", _GATHER, 1)
def _gather(value, weights, offsets, *settings):
    options, backend = _parse(settings, GatherOptions)
    out = core.load(backend).gather_forward(value, weights, offsets, options)
    return _divided(out, options)


@_gather.register_fake
def _(value, weights, offsets, *settings):
    options, _ = _parse(settings, GatherOptions)
    batch, _, channels, height, width = value.shape
    if options.mode == "sum":
        return value.new_empty(batch, channels, height, width)
    count, grid = weights.shape[-1], weights.shape[2:4]
    return value.new_empty(batch, count, channels * options.patch**2, *grid)


@_operator(
    "gather_backward",
    "Tensor grad_out, Tensor value, Tensor weights, Tensor offsets",
    _GATHER,
    3,
)
def _gather_backward(grad_out, value, weights, offsets, *settings):
    options, backend = _parse(settings, GatherOptions)
    grad_out = _divided(grad_out, options)
    return core.load(backend).gather_backward(grad_out, value, weights, offsets, options)


@_gather_backward.register_fake
def _(grad_out, value, weights, offsets, *settings):
    return _gradients(value, weights, offsets)


def _gather_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def _gather_gradient(ctx, grad_out):
    gradients = _gather_backward(grad_out, *ctx.saved_tensors, *ctx.settings)
    return *gradients, *[None] * len(ctx.settings)


_gather.register_autograd(_gather_gradient, setup_context=_gather_setup)

_SCATTER = "int height, int width, int references, " + _GATHER


@_operator("scatter", "Tensor x, Tensor weights, Tensor offsets", _SCATTER, 1)
def _scatter(x, weights, offsets, height, width, references, *settings):
    options, backend = _parse(settings, GatherOptions)
    size = (height, width)
    return core.load(backend).scatter_forward(x, weights, offsets, size, references, options)


@_scatter.register_fake
def _(x, weights, offsets, height, width, references, *settings):
    return x.new_empty(x.shape[0], references, x.shape[1], height, width)


@_operator(
    "scatter_backward", "Tensor grad_out, Tensor x, Tensor weights, Tensor offsets", _GATHER, 3
)
def _scatter_backward(grad_out, x, weights, offsets, *settings):
    # <g, scatter(x)> = <x, gather(g)>: the same sum, so the same gradients with the parts
    # exchanged.
    options, backend = _parse(settings, GatherOptions)
    module = core.load(backend)
    grad_x = module.gather_forward(grad_out, weights, offsets, options)
    _, grad_weights, grad_offsets = module.gather_backward(x, grad_out, weights, offsets, options)
    return grad_x.to(x.dtype), grad_weights, grad_offsets


@_scatter_backward.register_fake
def _(grad_out, x, weights, offsets, *settings):
    return _gradients(x, weights, offsets)


def _scatter_setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])
    ctx.settings = inputs[3:]


def _scatter_gradient(ctx, grad_out):
    gradients = _scatter_backward(grad_out, *ctx.saved_tensors, *ctx.settings[3:])
    return *gradients, *[None] * len(ctx.settings)


_scatter.register_autograd(_scatter_gradient, setup_context=_scatter_setup)
