"""The CPU back end: torch tensors in, compiled code of cpu_search.py and cpu_bilinear.py, tensors
out.

One image of the batch is worked on after another, its rows on torch.get_num_threads() threads.
Results do
not depend on the number of threads: whoever adds to an image owns the rows it adds to.
"""

import math

import numpy as np
import torch
from torch import Tensor

from kernels.jit import LANES, address, run
from kernels.packing import NO_PLANES, pack, rows_of
from kernels.shifted_search.core import components, offsets_to_centre, softmax_backward
from kernels.shifted_search.cpu_bilinear import (
    Lists,
    Sums,
    collect_rows,
    measure_rows,
    reach_rows,
    spread_rows,
)
from kernels.shifted_search.cpu_search import (
    Differences,
    Results,
    Search,
    differences_rows,
    search_rows,
    softmax_rows,
)
from kernels.shifted_search.options import ANCHORS, GatherOptions, SearchOptions

_ANCHOR = {name: ANCHORS.index(name) for name in ANCHORS}
_ROWS = 8  # of queries a thread takes at a time: neighbours share most of their keys
_BAND = 16  # rows of an image that a thread adds to at a time


def search_forward(
    query: Tensor, key: Tensor, flow: Tensor, options: SearchOptions
) -> tuple[Tensor, Tensor]:
    """scores, offsets; see core.Backend."""
    batch, references = key.shape[:2]
    grid = options.grid(*query.shape[-2:])
    shape = (batch, options.heads, *grid, options.chosen(references))
    scores = torch.empty(shape)
    offsets = torch.empty(*shape, components(references))
    search = _search(query, key, options)
    stride = np.float32(options.search_stride)
    flow = flow.detach().float().contiguous()
    for item in range(batch):
        keys, packed_keys = pack(key[item].detach(), options.heads)
        own, planes, packed_query = _queries(query[item].detach(), options)
        maps, packed_maps = _differences(keys, search)
        results = Results(
            address(flow[item]),
            address(scores[item]),
            address(offsets[item]),
            *grid,
            *offsets.shape[-2:],
        )
        work = (own, planes, keys, results, maps, stride, search)
        run(search_rows, grid[0], *work, chunk=_ROWS)
        del packed_keys, packed_query, packed_maps
    return scores, offsets


def _search(query: Tensor, key: Tensor, options: SearchOptions) -> Search:
    height, width = query.shape[-2:]
    return Search(
        height=height,
        width=width,
        references=key.shape[1],
        heads=options.heads,
        depth=query.shape[1] // options.heads,
        window=options.window,
        topk=options.topk,
        patch=options.patch,
        dilation=options.dilation,
        query_stride=options.query_stride,
        l2=int(options.metric == "l2"),
        integer=int(options.positions == "integer"),
        keep_in_image=int(options.keep_in_image),
        per_reference=int(options.per_reference),
        anchor=_ANCHOR[options.anchor],
        span=math.ceil(options.search_stride * (options.window - 1)) + 2,
    )


def _queries(query: Tensor, options: SearchOptions):
    """How the kernels read a query image [C, H, W]; patches need all of it packed."""
    if options.patch == 1:
        return rows_of(query, options.heads)
    layout, packed = pack(query[None], options.heads)
    return layout, NO_PLANES, packed


def _differences(keys, search: Search):
    """The maps of neighbours' differences that l2 needs, and the tensor to keep."""
    if not search.l2:
        return Differences(0, 0, 0, 0, 0), None
    shape = (search.heads, 3, search.references, search.height, search.width)
    size = math.prod(shape)
    # Vector loads of windows that stick out of the image reach beyond the maps, into zeros.
    front = search.window + LANES
    room = torch.zeros(front + size + search.width + search.span + 3 * LANES)
    values = room[front : front + size].view(shape)
    rows = search.heads * search.references * search.height
    run(differences_rows, rows, keys, values.numpy(), search, chunk=8)
    head, step, reference, row, _ = (4 * s for s in values.stride())
    return Differences(address(values), head, step, reference, row), room


def _sums(
    image: Tensor,
    weights: Tensor,
    offsets: Tensor,
    options: SearchOptions | GatherOptions,
    **changes,
) -> Sums:
    """The sizes of bilinear sums over an image [R, C, H, W] with the lists of one query image."""
    references, channels, height, width = image.shape
    settings = dict(
        height=height,
        width=width,
        own_height=height,
        own_width=width,
        references=references,
        heads=options.heads,
        depth=channels // options.heads,
        rows=weights.shape[1],
        columns=weights.shape[2],
        kept=weights.shape[3],
        components=offsets.shape[-1],
        query_stride=options.query_stride,
        dilation=options.dilation,
        middle=options.patch // 2,
        first_row=0,
        last_row=options.patch,
        first_column=0,
        last_column=options.patch,
        fold=1,
        drop=1,
        clamp=0,
        difference=0,
    )
    return Sums(**{**settings, **changes})


class _Bilinear:
    """The sums of cpu_bilinear.py for one image of the batch.

    Args:
        image: V, [R, C, H, W]; coefficients [heads, nH, nW, K], offsets [heads, nH, nW, K, D].
        own: U, [C, *, *], where the sums need it.
        changes: fields of Sums other than those of a gather.
    """

    def __init__(self, image, coefficients, offsets, options, own=None, **changes):
        self.image, self.own, self.heads = image.detach(), own, options.heads
        self.sums = _sums(image, coefficients, offsets, options, **changes)
        self.coefficients = coefficients.detach().float().contiguous()
        self.offsets = offsets.detach().float().contiguous()
        self.lists = Lists(address(self.offsets), address(self.coefficients))

    def _packed(self, which: str):
        tensor = self.image if which == "image" else self.own.detach()[None]
        return pack(tensor, self.heads)

    def measure(self) -> tuple[Tensor, Tensor]:
        """(<u, V(p_k)> [heads, nH, nW, K], its derivative by p_k [heads, nH, nW, K, 2])."""
        values = torch.empty(self.coefficients.shape)
        slopes = torch.empty(*values.shape, 2)
        image, keep = self._packed("image")
        own, keep_own = self._packed("own")
        work = (own, image, self.lists, address(values), address(slopes), self.sums)
        run(measure_rows, self.sums.rows, *work, chunk=4)
        del keep, keep_own
        return values, slopes

    def collect(self, out: Tensor) -> None:
        """Write sum_k c_k V(p_k) to out [C, *, *], float32, rows of whole planes."""
        image, keep = self._packed("image")
        own, keep_own = self._packed("own") if self.sums.difference else (image, None)
        work = (own, image, self.lists, address(out), 4 * out.stride(0), self.sums)
        run(collect_rows, self.sums.own_height, *work, chunk=8)
        del keep, keep_own

    def spread(self, out: Tensor) -> None:
        """Write sum_k c_k w_corner u to out [R, C, H, W], float32, contiguous."""
        own, keep_own = self._packed("own")
        image, keep = self._packed("image") if self.sums.difference else (own, None)
        reaches = np.empty((self.sums.rows, 2), np.int64)
        run(reach_rows, self.sums.rows, self.lists, reaches, self.sums, chunk=8)
        bands = -(-self.sums.height // _BAND) * self.sums.references
        step = (4 * out.stride(0), 4 * out.stride(1))
        work = (own, image, self.lists, reaches, address(out), *step, _BAND, self.sums)
        run(spread_rows, bands, *work)
        del keep, keep_own


def search_backward(
    grad_scores: Tensor,
    query: Tensor,
    key: Tensor,
    scores: Tensor,
    offsets: Tensor,
    options: SearchOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key, centre; see core.Backend."""
    coefficients = torch.where(torch.isinf(scores), 0.0, grad_scores.float())
    grad_query = torch.empty(query.shape)
    grad_key = torch.empty(key.shape)
    slopes = [
        _search_item(
            coefficients[i], query[i], key[i], offsets[i], options, grad_query[i], grad_key[i]
        )
        for i in range(query.shape[0])
    ]
    grad_centre = _to_centre(torch.stack(slopes), offsets, key.shape[1], options)
    if options.positions == "integer":
        grad_centre.zero_()
    return grad_query.to(query.dtype), grad_key.to(key.dtype), grad_centre


def _search_item(coefficients, query, key, offsets, options, grad_query, grad_key) -> Tensor:
    """Write one image's gradients of query and key; the gradient of its positions."""
    difference = int(options.metric == "l2")
    if difference:
        coefficients = 2 * coefficients  # the sums are of half the squared distance
    changes = dict(drop=0, clamp=1, difference=difference)
    sums = _Bilinear(key, coefficients, offsets, options, query, **changes)
    sums.collect(grad_query) if not difference else _collect_l2(sums, grad_query)
    sums.spread(grad_key)
    if options.positions == "integer":
        return torch.zeros(*coefficients.shape, 2)
    return sums.measure()[1] * coefficients[..., None]


def _collect_l2(sums: _Bilinear, grad_query: Tensor) -> None:
    """d/dq of half the squared distance is q - k(p): the sum of k(p) - q, its sign changed."""
    sums.collect(grad_query)
    grad_query.neg_()


def _to_centre(slopes: Tensor, offsets: Tensor, references: int, options: SearchOptions) -> Tensor:
    """Gradients of positions [B, heads, nH, nW, K, 2] as those of the windows' centres."""
    if offsets.shape[-1] == 3:
        slopes = torch.cat((torch.zeros_like(slopes[..., :1]), slopes), dim=-1)
    return offsets_to_centre(slopes, offsets, references, options.anchor).contiguous()


def fuses(options: SearchOptions) -> bool:
    """The CPU has its own attention wherever one pixel is compared with one."""
    return options.patch == 1


def attention_forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    flow: Tensor,
    scale: float,
    options: SearchOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """out, weights, offsets; see core.Backend."""
    scores, offsets = search_forward(query, key, flow, options)
    weights = torch.empty_like(scores)
    count = scores.numel() // scores.shape[-1]
    signed = np.float32(scale if options.metric == "dot" else -scale)
    softmax = (address(scores), address(weights), scores.shape[-1], signed)
    run(softmax_rows, count, *softmax, chunk=4096)
    return gather_forward(value, weights, offsets, options.gathering()), weights, offsets


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
    """Gradients of query, key, value, centre; see core.Backend."""
    grad_query, grad_key = torch.empty(query.shape), torch.empty(key.shape)
    grad_value = torch.empty(value.shape)
    slopes = []
    for i in range(query.shape[0]):
        gathering = (weights[i], offsets[i], options.gathering(), grad_out[i])
        values = _Bilinear(value[i], *gathering)
        grad_weights, slope = values.measure()
        values.spread(grad_value[i])
        coefficients = softmax_backward(grad_weights, weights[i], scale, options.metric)
        search = (query[i], key[i], offsets[i], options, grad_query[i], grad_key[i])
        slopes.append(slope * weights[i, ..., None] + _search_item(coefficients, *search))
    grad_centre = _to_centre(torch.stack(slopes), offsets, key.shape[1], options)
    gradients = (grad_query.to(query.dtype), grad_key.to(key.dtype), grad_value.to(value.dtype))
    return *gradients, grad_centre


def gather_forward(
    value: Tensor, weights: Tensor, offsets: Tensor, options: GatherOptions
) -> Tensor:
    """Patches summed in place, undivided, or stacked; see core.Backend."""
    batch, _, channels, height, width = value.shape
    if options.mode == "sum":
        out = torch.empty(batch, channels, height, width)
        for i in range(batch):
            _Bilinear(value[i], weights[i], offsets[i], options).collect(out[i])
        return out.to(value.dtype)
    grid, area = weights.shape[2:4], options.patch**2
    out = torch.empty(batch, weights.shape[-1], channels, area, *grid)
    for sums, i, k, pixel in _slices(value, weights, offsets, options):
        sums.collect(out[i, k, :, pixel])
    return out.flatten(2, 3).to(value.dtype)


def _slices(value, weights, offsets, options, grad_out=None):
    """The sums of a stacked gather: for each image, sample and pixel of the patch by itself."""
    grid, area = weights.shape[2:4], options.patch**2
    for i in range(value.shape[0]):
        for k in range(weights.shape[-1]):
            lists = (weights[i, ..., k, None], offsets[i, ..., k, None, :])
            for pixel in range(area):
                row, column = divmod(pixel, options.patch)
                changes = dict(
                    own_height=grid[0],
                    own_width=grid[1],
                    fold=0,
                    first_row=row,
                    last_row=row + 1,
                    first_column=column,
                    last_column=column + 1,
                )
                own = None
                if grad_out is not None:
                    own = grad_out[i, k].unflatten(0, (-1, area))[:, pixel]
                yield _Bilinear(value[i], *lists, options, own, **changes), i, k, pixel


def gather_backward(
    grad_out: Tensor,
    value: Tensor,
    weights: Tensor,
    offsets: Tensor,
    options: GatherOptions,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of value, weights, offsets; see core.Backend."""
    grad_value = torch.zeros(value.shape)
    grad_weights = torch.zeros(weights.shape)
    grad_offsets = torch.zeros(offsets.shape)
    if options.mode == "sum":
        for i in range(value.shape[0]):
            sums = _Bilinear(value[i], weights[i], offsets[i], options, grad_out[i])
            grad_weights[i], slopes = sums.measure()
            grad_offsets[i, ..., -2:] = slopes * weights[i, ..., None]
            sums.spread(grad_value[i])
        return grad_value.to(value.dtype), grad_weights, grad_offsets
    part = torch.empty(value.shape[1:])
    for sums, i, k, _ in _slices(value, weights, offsets, options, grad_out):
        numbers, slopes = sums.measure()
        grad_weights[i, ..., k] += numbers[..., 0]
        grad_offsets[i, ..., k, -2:] += slopes[..., 0, :] * weights[i, ..., k, None]
        sums.spread(part)
        grad_value[i] += part
    return grad_value.to(value.dtype), grad_weights, grad_offsets


def scatter_forward(
    x: Tensor,
    weights: Tensor,
    offsets: Tensor,
    size: tuple[int, int],
    references: int,
    options: GatherOptions,
) -> Tensor:
    """x spread over [B, R, C, H, W]; see core.Backend."""
    out = torch.empty(x.shape[0], references, x.shape[1], *size)
    for i in range(x.shape[0]):
        _Bilinear(out[i], weights[i], offsets[i], options, x[i]).spread(out[i])
    return out.to(x.dtype)
