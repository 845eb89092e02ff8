"""The CPU back end: torch tensors in, compiled code of the other cpu_*.py files, tensors out.

One image of the batch is worked on after another, its rows on torch.get_num_threads() threads.
Results do
not depend on the number of threads: whoever adds to an image owns the rows it adds to.
"""

import math
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from kernels import pages
from kernels.jit import LANES, address, padded, pieces, run
from kernels.packing import NO_PLANES, NOTHING, Planes, pack, room_for, rows_of
from kernels.shifted_search.core import components, offsets_to_centre, softmax_backward
from kernels.shifted_search.cpu_attention import (
    reflect_gradients,
    through_keys,
    through_values,
)
from kernels.shifted_search.cpu_bilinear import (
    Lists,
    Sums,
    collect_rows,
    measure_rows,
    reach_rows,
    spread_rows,
)
from kernels.shifted_search.cpu_planes import (
    KeyPlanes,
    groups_of_tiles,
    pack_planes,
    products_planes,
    search_planes,
)
from kernels.shifted_search.cpu_search import (
    Differences,
    Results,
    Search,
    differences_rows,
    products_rows,
    search_rows,
    softmax_rows,
)
from kernels.shifted_search.options import ANCHORS, GatherOptions, SearchOptions
from kernels.vector_planes import ROWS

_ANCHOR = {name: ANCHORS.index(name) for name in ANCHORS}
_NO_MAPS = Differences(0, 0, 0, 0, 0)
_SAMPLED = 8  # rows of tiles whose windows are looked at before a search
_MOST_GROUPS = 1.5  # for each tile, on the average: with more, single queries are quicker
_BAND = 16  # the fewest rows of an image that a thread adds to at a time


def search_forward(
    query: Tensor, key: Tensor, flow: Tensor, options: SearchOptions
) -> tuple[Tensor, Tensor]:
    """scores, offsets; see core.Backend."""
    return _search_images(query, key, flow, options, 0, 1.0)


def _search_images(
    query: Tensor, key: Tensor, flow: Tensor, options: SearchOptions, softmax: int, scale: float
) -> tuple[Tensor, Tensor]:
    """(scores, or with ``softmax`` weights by softmax(scale * rank); offsets)."""
    batch, references = key.shape[:2]
    grid = options.grid(*query.shape[-2:])
    shape = (batch, options.heads, *grid, options.chosen(references))
    scores = pages.empty(*shape)
    offsets = pages.empty(*shape, components(references))
    search = _search(query, key, options, softmax)
    numbers = np.float32(options.search_stride), np.float32(scale)
    flow = flow.detach().float().contiguous()
    for item in range(batch):
        results = Results(
            address(flow[item]),
            address(scores[item]),
            address(offsets[item]),
            *grid,
            *offsets.shape[-2:],
        )
        image, images = query[item].detach(), key[item].detach()
        planes = _smooth_planes(image, images, flow[item], options, search)
        if planes is not None:
            keys, packed_keys = _key_planes(planes[1], search)
            work = (planes[0], keys, results, np.float32(scale), search)
            count = -(-search.height // ROWS)
            run(search_planes, count, *work, chunk=pieces(count))
            del packed_keys
            continue
        keys, packed_keys = pack(images, options.heads)
        own, query_planes, packed_query = _queries(image, options)
        maps, packed_maps = _differences(keys, search)
        work = (own, query_planes, keys, results, maps, *numbers, search)
        run(search_rows, grid[0], *work, chunk=pieces(grid[0]))
        del packed_keys, packed_query, packed_maps
    return scores, offsets


def _smooth_planes(
    query: Tensor, key: Tensor, flow: Tensor, options: SearchOptions, search: Search
) -> tuple[Planes, Planes] | None:
    """How cpu_planes.py reads the images, or None where cpu_search.py is better at it.

    Args:
        query: [C, H, W]. key: [R, C, H, W]. flow: [R, 2, H, W].
    """
    plain = SearchOptions(
        options.window, options.topk, heads=options.heads, positions=options.positions
    )
    if key.shape[0] > 1 or replace(options, per_reference=False) != plain:
        return None
    (_, query_planes, _), (_, key_planes, _) = (
        rows_of(x, options.heads) if x.stride(2) == 1 else (None, NO_PLANES, None)
        for x in (query, key[0])
    )
    if not (query_planes.address and key_planes.address):
        return None
    count = -(-search.height // ROWS)
    plane = 4 * search.height * search.width
    sampled = (address(flow), plane, -(-count // _SAMPLED), search)
    groups, tiles = groups_of_tiles(0, count, *sampled)
    return (query_planes, key_planes) if groups < _MOST_GROUPS * tiles else None


def _key_planes(planes: Planes, search: Search) -> tuple[KeyPlanes, Tensor]:
    """A key copied to how cpu_planes.py reads it, and what must be kept as long as it is used."""
    channels = search.heads * search.depth
    # Rows of an odd number of vectors, so that the planes' do not compete for the same places in
    # the cache; and room for lanes that read beyond what they need.
    wide = padded(search.width + 1) | LANES
    slack = padded(search.span) + 2 * LANES
    room = pages.empty(channels * search.height * wide + 2 * slack)
    keys = KeyPlanes(address(room) + 4 * slack, 4 * channels * wide, 4 * wide)
    work = (planes, search.width, channels, keys)
    run(pack_planes, search.height, *work, chunk=pieces(search.height))
    return keys, room


def products_seconds(query: Tensor, key: Tensor, flow: Tensor, window: int, repeats: int) -> float:
    """Median seconds that the dot products of a search take, and nothing else of it but, where
    queries are taken tile by tile, what places the windows and copies the tiles.

    Args:
        query, key: [1, C, H, W]. flow: [1, 2, H, W]. window: of the search.
        repeats: how often it is measured.
    """
    options = SearchOptions(window, 1)
    search = _search(query, key[:, None], options, 0)
    flow = flow.detach().float().contiguous()
    planes = _smooth_planes(query[0].detach(), key.detach(), flow, options, search)
    if planes is not None:
        keys, packed_key = _key_planes(planes[1], search)
        count = -(-search.height // ROWS)
        kernel, work = products_planes, (planes[0], keys, address(flow), search)
    else:
        count, span = search.height, search.span
        own, packed_query = pack(query.detach(), 1)
        keys, packed_key = pack(key.detach(), 1)
        places = torch.meshgrid(
            torch.arange(search.height), torch.arange(search.width), indexing="ij"
        )
        first = torch.floor(flow[0] + torch.stack(places[::-1]) - window // 2).long()
        left, top = first[0].clamp(0, search.width - span), first[1].clamp(0, search.height - span)
        kernel = products_rows
        work = (own, keys, (top * keys.row + left * keys.pixel).numpy(), span)
    seconds = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run(kernel, count, *work, chunk=pieces(count))
        seconds.append(time.perf_counter() - started)
    del packed_key
    return statistics.median(seconds[1:])  # the first may have compiled


def _search(query: Tensor, key: Tensor, options: SearchOptions, softmax: int) -> Search:
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
        softmax=softmax,
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
        return _NO_MAPS, None
    # Rows of an odd number of vectors: maps that lie whole pages apart would compete for the same
    # places in the cache.
    wide = padded(search.width) | LANES
    shape = (search.heads, 3, search.references, search.height, wide)
    size = math.prod(shape)
    # Vector loads of windows that stick out of the image reach beyond the maps, into zeros.
    front = search.window + LANES
    room = torch.empty(front + size + wide + search.span + 3 * LANES)
    room[:front] = room[front + size :] = 0.0
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
        run(measure_rows, self.sums.rows, *work, chunk=pieces(self.sums.rows))
        del keep, keep_own
        return values, slopes

    def collect(self, out: Tensor) -> None:
        """Write sum_k c_k V(p_k) to out [C, *, *], float32, rows of whole planes."""
        image, keep = self._packed("image")
        own, keep_own = self._packed("own") if self.sums.difference else (image, None)
        work = (own, image, self.lists, address(out), 4 * out.stride(0), self.sums)
        run(collect_rows, self.sums.own_height, *work, chunk=pieces(self.sums.own_height))
        del keep, keep_own

    def spread(self, out: Tensor) -> None:
        """Write sum_k c_k w_corner u to out [R, C, H, W], float32, contiguous."""
        image, keep = self._packed("image") if self.sums.difference else (NOTHING, None)
        reaches = np.empty((self.sums.rows, 2), np.int64)
        run(reach_rows, self.sums.rows, self.lists, reaches, self.sums, chunk=8)
        if self.sums.last_row - self.sums.first_row == 1 and self.sums.fold:
            own, planes, keep_own = rows_of(self.own.detach(), self.heads)
        else:
            (own, keep_own), planes = self._packed("own"), NO_PLANES
        _spread(own, planes, image, self.lists, reaches, out, self.sums)
        del keep, keep_own


def _spread(own, planes, image, lists, reaches, out: Tensor, sums: Sums) -> None:
    """Run spread_rows into out [R, C, H, W], float32, contiguous."""
    packed, room = room_for(*out.shape, sums.heads)
    rows = max(_BAND, -(-sums.height // (2 * torch.get_num_threads())))
    target = (address(out), 4 * out.stride(0), 4 * out.stride(1))
    work = (own, planes, image, lists, reaches, packed, target, rows, sums)
    run(spread_rows, -(-sums.height // rows) * sums.references, *work)
    del room


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
    grad_query, grad_key = pages.empty(*query.shape), pages.empty(*key.shape)
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
    # What anchors put first, and lists by reference, are put together after the search.
    apart = options.anchor in ("query", "flow") or (options.per_reference and key.shape[1] > 1)
    weights, offsets = _search_images(query, key, flow, options, int(not apart), scale)
    if apart:
        signed = np.float32(scale if options.metric == "dot" else -scale)
        kept = weights.shape[-1]
        work = (address(weights), address(weights), kept, signed)
        run(softmax_rows, weights.numel() // kept, *work, chunk=4096)
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
    gradients = [pages.empty(*x.shape) for x in (query, key, value)]
    batch, references = key.shape[:2]
    centre = pages.empty(batch, references, 2, *weights.shape[2:4])
    for i in range(batch):
        tensors = [x[i].detach() for x in (grad_out, query, key, value, weights, offsets)]
        outputs = [x[i] for x in (*gradients, centre)]
        if options.metric == "dot":
            _attention_item(*tensors, scale, options, *outputs)
        else:
            _attention_item_l2(*tensors, scale, options, *outputs)
    pairs = zip(gradients, (query, key, value), strict=True)
    return *(grad.to(x.dtype) for grad, x in pairs), centre


def _attention_item(
    grad_out,
    query,
    key,
    value,
    weights,
    offsets,
    scale,
    options,
    grad_query,
    grad_key,
    grad_value,
    centre,
) -> None:
    """Write one image's gradients. The values' packed copy is gone when that of the keys comes, and
    each sum is made where a packed image was."""
    heads, rows = options.heads, weights.shape[1]
    weights, offsets = weights.contiguous(), offsets.contiguous()
    coefficients = pages.empty(*weights.shape)
    reaches = np.empty((rows, 2), np.int64)
    anchored = int(options.anchor == "query")

    own, planes, keep_own = rows_of(grad_out, heads)
    sums = _sums(value, weights, offsets, options.gathering())
    lists = Lists(address(offsets), address(weights))
    image, keep = pack(value, heads)
    results = (address(coefficients), address(centre), reaches, np.float32(scale), anchored)
    run(through_values, rows, own, planes, image, lists, *results, sums, chunk=pieces(rows))
    del keep
    _spread(own, planes, NOTHING, lists, reaches, grad_value, sums)

    own, planes, keep_own = rows_of(query, heads)
    sums = _sums(key, weights, offsets, options, drop=0, clamp=1)
    lists = Lists(address(offsets), address(coefficients))
    image, keep = pack(key, heads)
    moves = int(options.positions != "integer")
    out = (address(centre), address(grad_query), 4 * grad_query.stride(0), moves, anchored)
    height = sums.own_height
    run(through_keys, height, own, planes, image, lists, *out, sums, chunk=pieces(height))
    del keep
    _spread(own, planes, NOTHING, lists, reaches, grad_key, sums)
    del keep_own


def _attention_item_l2(
    grad_out,
    query,
    key,
    value,
    weights,
    offsets,
    scale,
    options,
    grad_query,
    grad_key,
    grad_value,
    centre,
) -> None:
    """The same for squared distances, from the single sums."""
    values = _Bilinear(value, weights, offsets, options.gathering(), grad_out)
    grad_weights, slopes = values.measure()
    values.spread(grad_value)
    coefficients = softmax_backward(grad_weights, weights, scale, options.metric)
    slopes *= weights[..., None]
    slopes += _search_item(coefficients, query, key, offsets, options, grad_query, grad_key)
    centre[:] = _to_centre(slopes[None], offsets[None], key.shape[0], options)[0]


def through_reflection(
    centre: Tensor, flow: Tensor, options: SearchOptions, query: Tensor
) -> Tensor:
    """The gradient of the flow from that of the centres [B, R, 2, nH, nW], which it overwrites.

    torch's own operators would leave its threads spinning beside those of the next kernel.
    """
    centre, flow = centre.contiguous(), flow.detach().float().contiguous()
    rows, columns = centre.shape[-2:]
    settings = (options.query_stride, int(options.positions == "integer"))
    work = (address(centre), address(flow), rows, columns, *query.shape[-2:], *settings)
    count = centre.numel() // columns
    run(reflect_gradients, count, *work, chunk=pieces(count))
    return centre


def gather_forward(
    value: Tensor, weights: Tensor, offsets: Tensor, options: GatherOptions
) -> Tensor:
    """Patches summed in place, undivided, or stacked; see core.Backend."""
    batch, _, channels, height, width = value.shape
    if options.mode == "sum":
        out = pages.empty(batch, channels, height, width)
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
    out = pages.empty(x.shape[0], references, x.shape[1], *size)
    for i in range(x.shape[0]):
        _Bilinear(out[i], weights[i], offsets[i], options, x[i]).spread(out[i])
    return out.to(x.dtype)
