"""The Triton back end of the search and the gather: the functions of ``core.Backend``.

Keys and values are brought to channels last (no copy where they are already, as in a channels_last
network); queries, outputs and their gradients are read and written as they lie. Extra memory beyond
that copy: float32 gradient buffers of key and value, and three numbers per key pixel for "l2".

Gradients of key, value and flow are atomic sums: their last bits change from run to run.
"""

import torch
import triton
from torch import Tensor

from kernels import checks
from kernels.launch import start
from kernels.shifted_search import core, naive
from kernels.shifted_search.options import GatherOptions, SearchOptions
from kernels.shifted_search.triton_gather import (
    gather_backward_kernel,
    gather_kernel,
    search_backward_kernel,
)
from kernels.shifted_search.triton_search import (
    attention_kernel,
    neighbour_kernel,
    search_kernel,
)
from kernels.shifted_search.triton_tiles import reorder_kernel

ANCHORS = {"none": 0, "query": 1, "flow": 2, "exclude_query": 3}  # as in triton_search


def channel_chunks(channels: int, itemsize: int) -> tuple[int, int]:
    """N, L: the ``channels`` of a head as N chunks of L, which neighbouring lanes load at once.

    64 bytes keep the gather efficient; 32 of bfloat16 do too and leave more lanes to queries, of
    which a wide head allows only few.
    """
    lanes = min(max(4, triton.next_power_of_2(channels)), 16)
    if itemsize == 2 and channels > 64:
        lanes = 32
    return triton.next_power_of_2(triton.cdiv(channels, lanes)), lanes


def query_tile(channels: int, heavy: bool = False) -> tuple[int, int]:
    """Rows and columns of a program's queries; fewer where a query takes many registers."""
    if channels > 128:
        return 2, 2
    return (2, 4) if heavy or channels > 64 else (2, 8)


def launch(kernel, tile: tuple[int, int], grid: tuple[int, int], images: int, *args, **constants):
    """Run a one-warp kernel over the tiles of a query grid and ``images``."""
    tiles = triton.cdiv(grid[0], tile[0]) * triton.cdiv(grid[1], tile[1])
    constants |= {"TILE_Y": tile[0], "TILE_X": tile[1], "num_warps": 1, "num_stages": 1}
    start(kernel, (tiles, images), *args, **constants)


def _reorder(source: Tensor, target: Tensor) -> Tensor:
    """Copy images ([B,] [R,] C, H, W) into ``target``, of another memory order or dtype."""
    planes = [x.stride(-2) == x.shape[-1] * x.stride(-1) for x in (source, target)]
    if not all(planes):
        return target.copy_(source)
    five = [x if x.dim() == 5 else x.unsqueeze(-4) for x in (source, target)]
    batch, references, channels, height, width = five[0].shape
    strides = [(*x.stride()[:3], x.stride(4)) for x in five]
    programs = (triton.cdiv(height * width, 64), triton.cdiv(channels, 64), batch * references)
    start(
        reorder_kernel, programs, *five, *strides[0], *strides[1], references, channels,
        height * width, P=64, C=64,
    )  # fmt: skip
    return target


def channels_last(images: Tensor, name: str) -> Tensor:
    """[..., C, H, W] -> [..., H, W, C] contiguous; no copy where it lies so already."""
    elements = images.shape[-3] * images.shape[-2] * images.shape[-1]
    if elements >= 2**31:
        checks.refuse(name, checks.shape(images), "less than 2**31 numbers per image")
    last = images.movedim(-3, -1)
    if last.is_contiguous():
        return last
    ordered = torch.empty(last.shape, dtype=last.dtype, device=last.device)
    _reorder(images, ordered.movedim(-1, -3))
    return ordered


def _readable(images: Tensor, often: bool) -> Tensor:
    """[B, C, H, W] with 32-bit strides; channels last where pixels are read more than once."""
    spans = sum((n - 1) * s for n, s in zip(images.shape[1:], images.stride()[1:], strict=True))
    if often or spans >= 2**31:
        return channels_last(images, "query").movedim(-1, -3)
    return images


def gradient_of(images: Tensor, gradient: Tensor) -> Tensor:
    """A float32 gradient [..., H, W, C] in the dtype of images [..., C, H, W], contiguous."""
    gradient = gradient.movedim(-1, -3)
    result = images.new_empty(images.shape)
    if result.dtype == gradient.dtype and result.stride() == gradient.stride():
        return gradient
    return _reorder(gradient, result)


def neighbour_distances(key: Tensor, heads: int) -> Tensor:
    """Maps [B, R, heads, 3, H, W] that the squared distance's interpolation needs.

    Args:
        key: [B, R, H, W, C] contiguous.
    """
    batch, references, height, width, channels = key.shape
    maps = key.new_empty(batch, references, heads, 3, height, width, dtype=torch.float32)
    n, lanes = channel_chunks(channels // heads, key.element_size())
    tile = query_tile(channels // heads)
    launch(
        neighbour_kernel, (1, tile[0] * tile[1]), (1, height * width), batch * references * heads,
        key, maps, channels, heads, height, width,
        D=channels // heads, N=n, L=lanes,
    )  # fmt: skip
    return maps


def _prepared(query: Tensor, key: Tensor, flow: Tensor, options: SearchOptions):
    """What the forward kernels share: the tensors they search, constants, the tile of queries."""
    shared = options.patch == 1 and options.search_stride == 1
    key = channels_last(key, "key")
    query = _readable(query, often=not shared)
    flow = (torch.round(flow) if options.positions == "integer" else flow).contiguous()
    starts = _window_starts(flow, query, options) if options.keep_in_image else flow
    l2 = options.metric == "l2"
    neighbours = neighbour_distances(key, options.heads) if l2 and shared else flow
    depth = query.shape[1] // options.heads
    n, lanes = channel_chunks(depth, query.element_size())
    constants = {
        "D": depth,
        "N": n,
        "L": lanes,
        "L2": l2,
        "SHARED": shared,
        "ANCHOR": ANCHORS[options.anchor],
        "KEEP": options.keep_in_image,
        "WIDTH": max(8, triton.next_power_of_2(options.window)),
        "K": max(4, triton.next_power_of_2(options.topk)),
    }
    heavy = l2 or not shared or constants["K"] > 32 or constants["WIDTH"] > 32
    tile = query_tile(depth, heavy)
    if tile[0] * tile[1] == 16:
        # Enough for the search without spilling, and lets 12 programs share a Hopper core, not 8.
        constants["maxnreg"] = 160
    return (query, key, flow, starts, neighbours), constants, tile


def _window_starts(flow: Tensor, query: Tensor, options: SearchOptions) -> Tensor:
    """Of windows moved into the image: their first candidates, in strides from the centre."""
    height, width = query.shape[-2:]
    x, y = naive.centres(flow, options, height, width)
    starts = naive.first_step(x, width, options), naive.first_step(y, height, options)
    return torch.stack(starts, 2).contiguous()


def search_forward(
    query: Tensor, key: Tensor, flow: Tensor, options: SearchOptions
) -> tuple[Tensor, Tensor]:
    """scores, offsets; see ``core.Backend``."""
    batch, references, _, height, width = key.shape
    grid = options.grid(height, width)
    searched, constants, tile = _prepared(query, key, flow, options)
    query, key, flow, starts, neighbours = searched
    shape = (batch, options.heads, *grid, options.chosen(references))
    components = core.components(references)
    scores = query.new_empty(shape, dtype=torch.float32)
    offsets = query.new_empty(*shape, components, dtype=torch.float32)
    groups = references if options.per_reference else 1
    launch(
        search_kernel, tile, grid, batch * groups * options.heads,
        query, key, flow, starts, neighbours, scores, offsets, *query.stride(), key.shape[-1],
        options.heads, references, groups, height, width, *grid, options.query_stride,
        options.window, options.topk, float(options.search_stride), options.patch,
        options.dilation, components, **constants,
    )  # fmt: skip
    return scores, offsets


def search_backward(
    grad_scores: Tensor,
    query: Tensor,
    key: Tensor,
    scores: Tensor,
    offsets: Tensor,
    options: SearchOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key, centre; see ``core.Backend``. Not deterministic (atomic sums)."""
    batch, references, channels, height, width = key.shape
    grid = options.grid(height, width)
    keys = channels_last(key, "key")
    queries = _readable(query, often=options.patch > 1)
    if options.patch > 1:
        grad_query = torch.zeros(keys[:, 0].shape, dtype=torch.float32, device=query.device)
        grad_query = grad_query.movedim(-1, 1)
    else:
        make = query.new_empty if options.query_stride == 1 else query.new_zeros
        grad_query = make(query.shape)
    grad_key = torch.zeros(keys.shape, dtype=torch.float32, device=key.device)
    centre = grad_key.new_zeros(batch, references, 2, *grid)
    depth = channels // options.heads
    n, lanes = channel_chunks(depth, key.element_size())
    launch(
        search_backward_kernel, query_tile(depth, heavy=True), grid, batch * options.heads,
        grad_scores.contiguous(), queries, keys, scores.contiguous(), offsets.contiguous(),
        grad_query, grad_key, centre, *queries.stride(), *grad_query.stride(), channels,
        options.heads, references, height, width, *grid, options.query_stride,
        options.chosen(references), options.patch, options.dilation, core.components(references),
        int(options.anchor == "query"),
        D=depth, N=n, L=lanes, L2=options.metric == "l2", ADD=options.patch > 1,
        CENTRE=options.positions == "bilinear",
    )  # fmt: skip
    if options.patch > 1:
        grad_query = gradient_of(query, grad_query.movedim(1, -1))
    return grad_query, gradient_of(key, grad_key), centre


def fuses(options: SearchOptions) -> bool:
    """Whether one kernel searches and aggregates: patches of one pixel, one list for all images."""
    return options.patch == 1 and not options.per_reference


def attention_forward(
    query: Tensor, key: Tensor, value: Tensor, flow: Tensor, scale: float, options: SearchOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """out, weights, offsets; see ``core.Backend``."""
    batch, references, value_channels, height, width = value.shape
    grid = options.grid(height, width)
    same = value.data_ptr() == key.data_ptr() and value.stride() == key.stride()
    same = same and value.shape == key.shape
    searched, constants, tile = _prepared(query, key, flow, options)
    query, key, flow, starts, neighbours = searched
    values = key if same else channels_last(value, "value")
    make = torch.empty if options.query_stride == 1 else torch.zeros
    out = make(batch, value_channels, height, width, dtype=value.dtype, device=value.device)
    shape = (batch, options.heads, *grid, options.topk)
    components = core.components(references)
    weights = query.new_empty(shape, dtype=torch.float32)
    offsets = query.new_empty(*shape, components, dtype=torch.float32)
    depth = value_channels // options.heads
    n, lanes = channel_chunks(depth, value.element_size())
    launch(
        attention_kernel, tile, grid, batch * options.heads,
        query, key, values, flow, starts, neighbours, out, weights, offsets, *query.stride(),
        key.shape[-1], value_channels, options.heads, references, height, width, *grid,
        options.query_stride, options.window, options.topk, float(options.search_stride),
        components, float(scale), DV=depth, NV=n, LV=lanes, **constants,
    )  # fmt: skip
    return out, weights, offsets


def attention_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    weights: Tensor,
    offsets: Tensor,
    scale: float,
    options: SearchOptions,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of query, key, value, centre; see ``core.Backend``. Not deterministic.

    Two kernels with the gradients of the topk weights between them; products are taken again at the
    chosen places only.
    """
    gathering = GatherOptions(options.heads, query_stride=options.query_stride)
    grad_value, grad_weights, grad_offsets = gather_backward(
        grad_out, value, weights, offsets, gathering
    )
    grad_scores = core.softmax_backward(grad_weights, weights, scale, options.metric)
    # Finite weights in the place of scores: where the score was infinite the gradient is 0 already.
    grad_query, grad_key, centre = search_backward(
        grad_scores, query, key, weights, offsets, options
    )
    moved = core.offsets_to_centre(grad_offsets, offsets, key.shape[1], options.anchor)
    return grad_query, grad_key, grad_value, centre + moved


def gather_forward(
    value: Tensor, weights: Tensor, offsets: Tensor, options: GatherOptions
) -> Tensor:
    """Sums before the division by the overlap, or stacks; see ``core.Backend``."""
    batch, references, channels, height, width = value.shape
    grid = options.grid(height, width)
    chosen = weights.shape[-1]
    values = channels_last(value, "value")
    stack, add = options.mode == "stack", options.mode == "sum" and options.patch > 1
    if stack:
        out = values.new_empty(batch, chosen, channels * options.patch**2, *grid)
        strides = (0, 0, 0)
    elif add:
        out = values.new_zeros(batch, height, width, channels, dtype=torch.float32)
        strides = (out.stride(0), 1, channels)
    else:
        make = torch.empty if options.query_stride == 1 else torch.zeros
        out = make(batch, channels, height, width, dtype=value.dtype, device=value.device)
        strides = (out.stride(0), height * width, 1)
    depth = channels // options.heads
    n, lanes = channel_chunks(depth, value.element_size())
    launch(
        gather_kernel, query_tile(depth), grid, batch * options.heads,
        values, weights.contiguous(), offsets.contiguous(), out, *strides, channels,
        options.heads, references, height, width, *grid, options.query_stride, chosen,
        options.patch, options.dilation, offsets.shape[-1],
        D=depth, N=n, L=lanes, STACK=stack, ADD=add,
    )  # fmt: skip
    if not add:
        return out
    return _reorder(out.movedim(-1, 1), value.new_empty(batch, channels, height, width))


def gather_backward(
    grad_out: Tensor, value: Tensor, weights: Tensor, offsets: Tensor, options: GatherOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, weights, offsets; see ``core.Backend``. Value's is not deterministic."""
    values = channels_last(value, "value")
    grad_value = torch.zeros(values.shape, dtype=torch.float32, device=value.device)
    weights, offsets = weights.contiguous(), offsets.contiguous()
    grad_weights, grad_offsets = (x.new_empty(x.shape) for x in (weights, offsets))
    _gather_backward(
        grad_out, values, weights, offsets, grad_value, grad_weights, grad_offsets, options
    )
    return gradient_of(value, grad_value), grad_weights, grad_offsets


def scatter_forward(
    x: Tensor,
    weights: Tensor,
    offsets: Tensor,
    size: tuple[int, int],
    references: int,
    options: GatherOptions,
) -> Tensor:
    """[B, R, C, H, W] in x's dtype; see ``core.Backend``. Not deterministic (atomic sums)."""
    total = torch.zeros(
        x.shape[0], references, *size, x.shape[1], dtype=torch.float32, device=x.device
    )
    weights, offsets = weights.contiguous(), offsets.contiguous()
    _gather_backward(x, None, weights, offsets, total, None, None, options)
    result = x.new_empty(x.shape[0], references, x.shape[1], *size)
    return _reorder(total.movedim(-1, -3), result)


def _gather_backward(
    grad_out: Tensor,
    values: Tensor | None,
    weights: Tensor,
    offsets: Tensor,
    grad_value: Tensor,
    grad_weights: Tensor | None,
    grad_offsets: Tensor | None,
    options: GatherOptions,
) -> None:
    """Adds to grad_value [B, R, H, W, C] and, where there are values, writes the other two."""
    batch, references, height, width, channels = grad_value.shape
    grid = options.grid(height, width)
    stack = options.mode == "stack"
    if stack:
        grad_out = grad_out.contiguous()
        stride_b, stride_k = grad_out.stride()[:2]
        strides = (stride_b, options.patch**2 * grid[0] * grid[1], stride_k, 1)
    else:
        folds = grad_out.stride(2) == width * grad_out.stride(3)
        grad_out = _readable(grad_out, often=options.patch > 1 or not folds)
        stride_b, stride_c, _, stride_p = grad_out.stride()
        strides = (stride_b, stride_c, 0, stride_p)
    places = values is not None
    depth = channels // options.heads
    n, lanes = channel_chunks(depth, (values if places else grad_value).element_size())
    unused = weights
    launch(
        gather_backward_kernel, query_tile(depth, heavy=True), grid, batch * options.heads,
        grad_out, values if places else unused, weights, offsets, grad_value,
        grad_weights if places else unused, grad_offsets if places else unused, *strides,
        channels, options.heads, references, height, width, *grid, options.query_stride,
        weights.shape[-1], options.patch, options.dilation, offsets.shape[-1],
        D=depth, N=n, L=lanes, STACK=stack, SINGLE=not stack and options.patch == 1,
        PLACES=places,
    )  # fmt: skip
