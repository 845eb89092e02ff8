"""The truth of the shifted search: plain torch, any device, float64, differentiated by autograd.

Short and slow: it holds every candidate's score in memory. All other back ends are tested against
    it.
Source: arXiv 2309.16849, section 3 and the authors' public code.
"""

import torch
from torch import Tensor

from kernels.shifted_search.options import GatherOptions, SearchOptions


def reflect(position: Tensor, size: int) -> Tensor:
    """Positions reflected once at the border (-1 -> 1, size -> size - 2), then clamped into the
    image.

    Args:
        position: any shape, in pixels; NaN counts as 0. Differentiable: 1 inside, -1 reflected,
            0 where clamped.
    """
    last = size - 1
    position = torch.nan_to_num(position)
    beyond = torch.where(position > last, 2 * last - position, position)
    return torch.where(position < 0, -position, beyond).clamp(0, last)


def query_positions(grid: tuple[int, int], stride: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """x [nW] and y [nH, 1] of the queries, in pixels."""
    rows = torch.arange(grid[0], device=like.device, dtype=like.dtype) * stride
    columns = torch.arange(grid[1], device=like.device, dtype=like.dtype) * stride
    return columns, rows[:, None]


def centres(flow: Tensor, options: SearchOptions, height: int, width: int) -> tuple[Tensor, Tensor]:
    """x and y of every window's centre: the query plus its flow, reflected.

    Args:
        flow: [B, R, 2, nH, nW].

    Returns:
        Two tensors [B, R, nH, nW] in pixels, within the image. With integer positions the flow is
        rounded, its gradient passing as if it were not.
    """
    if options.positions == "integer":
        flow = flow + (torch.round(flow) - flow).detach()
    x, y = query_positions(flow.shape[-2:], options.query_stride, flow)
    return reflect(x + flow[:, :, 0], width), reflect(y + flow[:, :, 1], height)


def first_step(centre: Tensor, size: int, options: SearchOptions) -> Tensor:
    """The window's first candidate, in search strides from the centre, as whole floats.

    Without keep_in_image -half. With it the window moves by whole steps until it lies inside, so
    that the centre stays a candidate; a window that does not fit begins in the image.
    """
    stride, half = options.search_stride, options.half
    start = torch.full_like(centre, -half).detach()
    if not options.keep_in_image:
        return start
    centre = centre.detach()
    low, high = centre - stride * half, centre + stride * half
    down = torch.ceil((high - (size - 1)) / stride).clamp(min=0)
    down = torch.minimum(down, torch.floor(low / stride).clamp(min=0))
    up = torch.ceil(-low / stride).clamp(min=0)
    # Strides like 1/3 are rounded, and what is divided by them may be a step too many.
    return (start + up - down).clamp(1 - options.window, 0)


def sample(image: Tensor, x: Tensor, y: Tensor, reference: Tensor | None = None) -> Tensor:
    """Bilinear values at positions within the image.

    Args:
        image: [B, R, C, H, W].
        x, y: [B, *n] in pixels, 0 <= x <= W - 1, 0 <= y <= H - 1.
        reference: [B, *n] of whole numbers < R, or None for 0.

    Returns:
        [B, C, *n]. Where a position is whole, its derivative is towards larger x or y, at the last
        column or row 0.
    """
    batch, _, channels, height, width = image.shape
    pixels = image.transpose(1, 2).reshape(batch, channels, -1)  # [B, C, R * H * W]
    x0, y0 = torch.floor(x.detach()), torch.floor(y.detach())
    wx, wy = x - x0, y - y0
    left, top = x0.long(), y0.long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    base = 0 if reference is None else reference.long() * (height * width)

    def at(row: Tensor, column: Tensor) -> Tensor:
        index = (base + row * width + column).flatten(1)  # [B, n]
        values = pixels.gather(2, index[:, None].expand(-1, channels, -1))
        return values.unflatten(2, x.shape[1:])

    wx, wy = wx.unsqueeze(1).to(image.dtype), wy.unsqueeze(1).to(image.dtype)
    upper = at(top, left) * (1 - wx) + at(top, right) * wx
    lower = at(bottom, left) * (1 - wx) + at(bottom, right) * wx
    return upper * (1 - wy) + lower * wy


def patch_offsets(options: SearchOptions | GatherOptions) -> list[tuple[int, int]]:
    """(dx, dy) of a patch's pixels in scan order."""
    steps = [options.dilation * (i - options.patch // 2) for i in range(options.patch)]
    return [(dx, dy) for dy in steps for dx in steps]


def score_at(
    query: Tensor, key: Tensor, x: Tensor, y: Tensor, reference: int, options: SearchOptions
) -> Tensor:
    """Scores [B, heads, nH, nW] of one candidate per query, at x, y [B, nH, nW] in the image."""
    height, width = query.shape[-2:]
    column, row = query_positions(x.shape[-2:], options.query_stride, x)
    zero = torch.zeros_like(x)
    score = 0.0
    for dx, dy in patch_offsets(options):
        own = sample(
            query[:, None], reflect(zero + column + dx, width), reflect(zero + row + dy, height)
        )
        other = sample(key[:, reference, None], reflect(x + dx, width), reflect(y + dy, height))
        product = own * other if options.metric == "dot" else (own - other) ** 2
        score = score + product.unflatten(1, (options.heads, -1)).sum(2)
    return score


def search(
    query: Tensor, key: Tensor, flow: Tensor, options: SearchOptions
) -> tuple[Tensor, Tensor]:
    """The search in its core form; ``core.py`` has the contract.

    Args:
        query: [B, C, H, W]; key: [B, R, C, H, W]; flow: [B, R, 2, nH, nW].

    Returns:
        scores [B, heads, nH, nW, K], offsets [B, heads, nH, nW, K, 3] as (reference, dx, dy).
    """
    if query.dtype == torch.bfloat16:
        query, key = query.float(), key.float()
    flow = flow.to(query.dtype)
    per_reference = [
        _candidates(query, key, flow, reference, options) for reference in range(key.shape[1])
    ]
    if options.per_reference:
        best = [_best(*candidates, options) for candidates in per_reference]
    else:
        scores, ranks, offsets = zip(*per_reference, strict=True)
        best = [_best(torch.cat(scores, -1), torch.cat(ranks, -1), torch.cat(offsets, -2), options)]
    scores, offsets = zip(*best, strict=True)
    return torch.cat(scores, -1), torch.cat(offsets, -2)


def _candidates(
    query: Tensor, key: Tensor, flow: Tensor, reference: int, options: SearchOptions
) -> tuple[Tensor, Tensor, Tensor]:
    """All candidates of one reference in scan order: scores [B, heads, nH, nW, n], what they are
    ranked by (larger is better, likewise), offsets [B, nH, nW, n, 3]."""
    height, width = query.shape[-2:]
    centre_x, centre_y = (c[:, reference] for c in centres(flow, options, height, width))
    start_x = first_step(centre_x, width, options)
    start_y = first_step(centre_y, height, options)
    column, row = query_positions(flow.shape[-2:], options.query_stride, flow)
    own_frame = reference == 0
    fixed = options.positions == "integer"
    scores, ranks, offsets = [], [], []

    def add(x: Tensor, y: Tensor, forced: Tensor, removed: Tensor) -> None:
        inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1) & ~removed
        at_x, at_y = x.clamp(0, width - 1), y.clamp(0, height - 1)
        if fixed:
            at_x, at_y = at_x.detach(), at_y.detach()
        score = score_at(query, key, at_x, at_y, reference, options)
        score = torch.where(inside[:, None], score, options.worst)
        scores.append(score)
        rank = score.detach() if options.metric == "dot" else -score.detach()
        ranks.append(torch.where(forced[:, None], torch.inf, rank))
        offsets.append(torch.stack((torch.full_like(x, reference), x - column, y - row), -1))

    never = torch.zeros_like(centre_x, dtype=torch.bool)
    if options.anchor == "query" and own_frame:
        here = torch.zeros_like(centre_x).detach()
        add(here + column, here + row, ~never, never)
    for i in range(options.window):
        for j in range(options.window):
            x = centre_x + options.search_stride * (start_x + j)
            y = centre_y + options.search_stride * (start_y + i)
            forced = (start_x + j == 0) & (start_y + i == 0) if options.anchor == "flow" else never
            is_query = (x == column) & (y == row) & own_frame
            add(x, y, forced, is_query if "query" in options.anchor else never)
    return torch.stack(scores, -1), torch.stack(ranks, -1), torch.stack(offsets, -2)


def _best(
    scores: Tensor, ranks: Tensor, offsets: Tensor, options: SearchOptions
) -> tuple[Tensor, Tensor]:
    """The topk first by rank; of equals the first in scan order."""
    order = torch.sort(ranks, dim=-1, descending=True, stable=True).indices[..., : options.topk]
    offsets = offsets[:, None].expand(-1, scores.shape[1], -1, -1, -1, -1)
    index = order[..., None].expand(*order.shape, offsets.shape[-1])
    return scores.gather(-1, order), offsets.gather(-2, index)


def gather(value: Tensor, weights: Tensor, offsets: Tensor, options: GatherOptions) -> Tensor:
    """Weighted bilinear patches; ``op.gather`` has the definition.

    Args:
        value: [B, R, C, H, W]; weights: [B, heads, nH, nW, K]; offsets: [B, heads, nH, nW, K, 3].

    Returns:
        mode "sum": [B, C, H, W] divided by the overlap; "stack": [B, K, C * patch * patch, nH, nW].
    """
    dtype = value.dtype
    if dtype == torch.bfloat16:
        value = value.float()
    size = value.shape[-2:]
    patches = _patches(value, weights.to(value.dtype), offsets.to(value.dtype), options)
    if options.mode == "stack":
        return torch.stack(patches, 3).flatten(2, 3).to(dtype)
    patches = [patch.sum(1) for patch in patches]
    total, overlap = fold(patches, size, options), coverage(value, size, options)
    return (total / overlap.clamp(min=1)).to(dtype)


def _patches(
    value: Tensor, weights: Tensor, offsets: Tensor, options: GatherOptions
) -> list[Tensor]:
    """Per pixel of the patch [B, K, C, nH, nW]: the weighted values that belong there."""
    height, width = value.shape[-2:]
    patches = []
    for dx, dy in patch_offsets(options):
        heads = []
        for head, part in enumerate(value.chunk(options.heads, dim=2)):
            x, y = gather_positions(offsets[:, head], options)  # [B, nH, nW, K]
            at = reflect(x + dx, width), reflect(y + dy, height)
            sampled = sample(part, *at, _frame_of(offsets[:, head], value.shape[1]))
            heads.append(sampled * weights[:, head, None])
        patches.append(torch.cat(heads, 1).permute(0, 4, 1, 2, 3))
    return patches


def gather_positions(offsets: Tensor, options: GatherOptions) -> tuple[Tensor, Tensor]:
    """x and y [..., nH, nW, K] of the patches' centres in the image, from offsets [..., 3]."""
    column, row = query_positions(offsets.shape[-4:-2], options.query_stride, offsets)
    return column[:, None] + offsets[..., 1], row[..., None] + offsets[..., 2]


def _frame_of(offsets: Tensor, references: int) -> Tensor:
    """The references 0..R - 1 that offsets [..., 3] name, cut to whole numbers and clamped."""
    return offsets[..., 0].detach().long().clamp(0, references - 1)


def fold(patches: list[Tensor], size: tuple[int, int], options: GatherOptions) -> Tensor:
    """Add patches [B, C, nH, nW], one per pixel of the patch, at their queries' places: [B, C, H,
    W].

    Pixels of a patch outside the image are dropped.
    """
    height, width = size
    batch, channels, rows, columns = patches[0].shape
    total = patches[0].new_zeros(batch, channels, height * width)
    for patch, (dx, dy) in zip(patches, patch_offsets(options), strict=True):
        x, y = query_positions((rows, columns), options.query_stride, patch)
        x, y = (x + dx + 0 * y).long(), (y + dy + 0 * x).long()
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        total = total.index_add(2, (y * width + x)[inside], patch[:, :, inside])
    return total.unflatten(2, (height, width))


def unfold(image: Tensor, options: GatherOptions) -> list[Tensor]:
    """The transpose of ``fold``: per pixel of the patch [B, C, nH, nW], 0 outside the image."""
    height, width = image.shape[-2:]
    patches = []
    for dx, dy in patch_offsets(options):
        x, y = query_positions(options.grid(height, width), options.query_stride, image)
        x, y = (x + dx + 0 * y).long(), (y + dy + 0 * x).long()
        inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        patch = image[:, :, y.clamp(0, height - 1), x.clamp(0, width - 1)]
        patches.append(torch.where(inside, patch, 0.0))
    return patches


def coverage(like: Tensor, size: tuple[int, int], options: GatherOptions) -> Tensor:
    """How many patches cover each pixel: [1, 1, H, W]."""
    grid = options.grid(*size)
    ones = like.new_ones(1, 1, *grid)
    return fold([ones] * options.patch**2, size, options)


def scatter(
    x: Tensor,
    weights: Tensor,
    offsets: Tensor,
    size: tuple[int, int],
    references: int,
    options: GatherOptions,
) -> Tensor:
    """The transpose of ``gather`` (sum, undivided): [B, R, C, H, W] from x [B, C, H, W]."""
    dtype = x.dtype
    if dtype == torch.bfloat16:
        x = x.float()
    weights, offsets = weights.to(x.dtype), offsets.to(x.dtype)
    height, width = size
    batch, channels = x.shape[:2]
    total = x.new_zeros(batch, channels, references * height * width)
    for patch, (dx, dy) in zip(unfold(x, options), patch_offsets(options), strict=True):
        heads = []
        for head, part in enumerate(patch.chunk(options.heads, dim=1)):
            at_x, at_y = gather_positions(offsets[:, head], options)
            at_x, at_y = reflect(at_x + dx, width), reflect(at_y + dy, height)
            weighted = part[..., None] * weights[:, head, None]  # [B, C / heads, nH, nW, K]
            base = _frame_of(offsets[:, head], references) * (height * width)
            heads.append(_spread(weighted, at_x, at_y, base, size, references))
        total = total + torch.cat(heads, 1)
    return total.unflatten(2, (references, height, width)).transpose(1, 2).to(dtype)


def _spread(
    amount: Tensor, x: Tensor, y: Tensor, base: Tensor, size: tuple[int, int], references: int
) -> Tensor:
    """The transpose of ``sample``: amounts [B, c, *n] added at x, y [B, *n]: [B, c, R * H * W]."""
    height, width = size
    x0, y0 = torch.floor(x.detach()), torch.floor(y.detach())
    wx, wy = x - x0, y - y0
    left, top = x0.long(), y0.long()
    right, bottom = (left + 1).clamp(max=width - 1), (top + 1).clamp(max=height - 1)
    total = amount.new_zeros(*amount.shape[:2], references * height * width)
    corners = (
        (top, left, (1 - wx) * (1 - wy)),
        (top, right, wx * (1 - wy)),
        (bottom, left, (1 - wx) * wy),
        (bottom, right, wx * wy),
    )
    for row, column, weight in corners:
        index = (base + row * width + column).flatten(1)[:, None].expand(-1, amount.shape[1], -1)
        total = total.scatter_add(2, index, (amount * weight[:, None]).flatten(2))
    return total


def attention(
    query: Tensor, key: Tensor, value: Tensor, flow: Tensor, scale: float, options: SearchOptions
) -> Tensor:
    """Search, softmax over the chosen, gather: [B, Cv, H, W]. Arguments as in ``search``."""
    scores, offsets = search(query, key, flow, options)
    weights = softmax(scores, scale, options.metric)
    return gather(value, weights, offsets, options.gathering())


def softmax(scores: Tensor, scale: float, metric: str) -> Tensor:
    """softmax(scale * score), or of -score for l2; 0 for candidates outside the image, all of them
    if need be."""
    outside = torch.isinf(scores)
    signed = scores if metric == "dot" else -scores
    weights = torch.softmax(torch.where(outside, -1e30, scale * signed), dim=-1)
    return torch.where(outside, 0.0, weights)
