"""The operators ``shifted_search``, ``gather``, ``scatter`` and ``shifted_attention``.

This file checks the arguments, brings them to the core's form (forms.py) and picks the back end.
The naive one is plain torch and differentiated by autograd; the others stand behind the custom
operators of custom.py, so that autograd, torch.compile and torch.export each see one operator.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kernels import checks
from kernels.dispatch import choose
from kernels.shifted_search import custom as custom  # registers the operators
from kernels.shifted_search import naive
from kernels.shifted_search.core import components
from kernels.shifted_search.forms import results_from_core, to_core
from kernels.shifted_search.options import GatherOptions, SearchOptions

BACKENDS = ("naive", "cpu", "triton")


def shifted_search(
    query: Tensor,
    key: Tensor,
    flow: Tensor,
    *,
    window: int,
    topk: int,
    patch: int = 1,
    dilation: int = 1,
    heads: int = 1,
    metric: str = "dot",
    query_stride: int = 1,
    search_stride: float = 1.0,
    positions: str = "bilinear",
    keep_in_image: bool = False,
    per_reference: bool = False,
    anchor: str = "none",
    temporal_radius: int | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor]:
    """Search a small grid round the place the flow points to (arXiv 2309.16849, section 3).

    | form | query | key | flow | scores [B, heads, .., topk] | offsets |
    |---|---|---|---|---|---|
    | pair | [B, C, H, W] | like query | [B, 2, H, W] | nH, nW | dx, dy |
    | references | [B, C, H, W] | [B, R, C, H, W] | [B, R, 2, H, W] | nH, nW | r, dx, dy |
    | video | [B, T, C, H, W] | like query | [B, T, W_t, 2, H, W] | T, nH, nW | dt, dx, dy |

    Offsets have the shape of the scores and one more axis, of 2 or 3.
    Queries sit at the pixels (h * query_stride, w * query_stride). A window's centre is the query
    plus its flow, reflected once at the border (-1 -> 1) and, should it still be outside, clamped;
    NaN counts as 0. Candidates are centre + search_stride * (i - (window - 1) / 2) in both axes.
    Where a feature is NaN scores are too, in no order, and a candidate may be listed twice.

    Args:
        query, key: float32 or bfloat16 (products are summed in float32), any strides; float64 runs
            in the naive back end.
        flow: in pixels, channel 0 = x, 1 = y, the same for all heads (a heads axis is not
            supported). Given at every pixel, or at the queries only, [..., 2, nH, nW].
        window: odd; candidates per axis.
        topk: results per query and head, best first. Of equal scores the first in scan order
            (reference, row, column) wins. At most the number of candidates.
        patch, dilation: patch x patch pixels are compared, offset by dilation * (j - patch // 2),
            reflected at the border likewise.
        heads: groups of channels that are searched apart; divides C.
        metric: "dot", sum q k, larger is better; "l2", sum (q - k)^2, smaller is better.
        search_stride: > 0; steps of the window, 2 or .5 say. Whole ones are faster.
        positions: "bilinear" keeps the flow's fraction; "integer" rounds the flow.
        keep_in_image: move the window, by whole steps, so that it lies inside the image. Otherwise
            candidates outside score -inf (dot) or +inf (l2).
        per_reference: topk for each reference: scores [..., R, topk], offsets [..., R, topk, 2]
            ([..., W_t, topk, 3] in the video form).
        anchor: "query" puts the query itself (zero offset, first reference) into slot 0; "flow" the
            window's centre of each reference first (slot 0 per reference, else slots 0 .. R - 1);
            "exclude_query" bars the query itself from the candidates.
        temporal_radius: chooses the video form: W_t = 2 * temporal_radius + 1 frames t, t+1 ..
            t_max, t-1 .. are searched; the range shifts at the clip's ends. T must be at least W_t.
        backend: "naive", "cpu", "triton", or None for the one that suits the tensors. Every option
            runs in every back end.

    Returns:
        scores, float32, and offsets, float32, relative to the query: the corrected total flow.
        Gradients: scores to query, key and the flow (derivative of the bilinear weights), through
        the chosen candidates only; offsets to the flow, identity, sign changed where the centre was
        reflected, 0 where clamped.

    Raises:
        ValueError: naming the argument, what it was and what it must be.
    """
    options = SearchOptions(
        window,
        topk,
        patch,
        dilation,
        heads,
        metric,
        query_stride,
        search_stride,
        positions,
        keep_in_image,
        per_reference,
        anchor,
    )
    query, key, flow, _, form = to_core(query, key, flow, options, temporal_radius)
    name = choose(backend, query, BACKENDS)
    if name == "naive":
        scores, offsets = naive.search(query, key, flow, options)
        if key.shape[1] == 1:
            offsets = offsets[..., 1:]
    else:
        scores, offsets = torch.ops.lgmc.shifted_search(query, key, flow, *options.values(), name)
    return results_from_core(scores, offsets, form, options, temporal_radius)


def shifted_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    flow: Tensor,
    *,
    window: int,
    topk: int,
    scale: float = 1.0,
    patch: int = 1,
    dilation: int = 1,
    heads: int = 1,
    metric: str = "dot",
    query_stride: int = 1,
    search_stride: float = 1.0,
    positions: str = "bilinear",
    keep_in_image: bool = False,
    per_reference: bool = False,
    anchor: str = "none",
    temporal_radius: int | None = None,
    backend: str | None = None,
) -> Tensor:
    """Search, softmax over the topk, and aggregate: ``gather(value, softmax(scale * score),
    offsets)``.

    The window's scores are never stored, forward or backward: what the backward needs beyond the
    inputs is the topk weights and offsets. With metric="l2" the weights are softmax(-scale *
    score). With per_reference one softmax runs over the topk of all references.

    Args:
        value: like key, but for its channels Cv, which heads must divide.
        scale: of the scores within the softmax.
        The others as in ``shifted_search``, its three forms included.

    Returns:
        [B, Cv, H, W] ([B, T, Cv, H, W] in the video form) in value's dtype. With query_stride > 1
        or patch > 1 patches are summed in place and divided by their overlap; pixels that none
        covers are 0. Gradients to query, key, value and flow.

    Raises:
        ValueError: naming the argument, what it was and what it must be.
    """
    options = SearchOptions(
        window,
        topk,
        patch,
        dilation,
        heads,
        metric,
        query_stride,
        search_stride,
        positions,
        keep_in_image,
        per_reference,
        anchor,
    )
    checks.finite("scale", scale)
    query, key, flow, value, form = to_core(query, key, flow, options, temporal_radius, value)
    name = choose(backend, query, BACKENDS)
    if name == "naive":
        out = naive.attention(query, key, value, flow, scale, options)
    else:
        out = torch.ops.lgmc.shifted_attention(
            query, key, value, flow, float(scale), *options.values(), name
        )[0]
    return out.unflatten(0, (-1, form.frames)) if form.kind == "video" else out


def gather(
    value: Tensor,
    weights: Tensor,
    offsets: Tensor,
    *,
    heads: int = 1,
    patch: int = 1,
    dilation: int = 1,
    query_stride: int = 1,
    mode: str = "sum",
    backend: str | None = None,
) -> Tensor:
    """Weighted bilinear patches at query + offset.

    Args:
        value: [B, C, H, W] with offsets of 2 components, or [B, R, C, H, W] with 3.
        weights: [B, heads, nH, nW, K].
        offsets: [B, heads, nH, nW, K, 2 or 3], (dx, dy) or (r, dx, dy) in pixels; r is cut to a
            whole number and clamped to 0..R - 1. The pixels of a patch, at dilation * (j - patch //
            2), are reflected once at the border, then clamped.
        mode: "sum" adds each query's patches at the query's place and divides by the patches'
            overlap; "stack" keeps the K samples apart.

    Returns:
        "sum": [B, C, H, W], 0 where no patch lies; "stack": [B, K, C * patch * patch, nH, nW], the
        patch's pixels of a channel beside each other. In value's dtype. Gradients to value, weights
        and offsets (derivative of the bilinear weights).

    Raises:
        ValueError: naming the argument, what it was and what it must be.
    """
    options = GatherOptions(heads, patch, dilation, query_stride, mode)
    checks.features("value", value, (4, 5), "[B, C, H, W] or [B, R, C, H, W]")
    options.check(value.shape[-3])
    references = None if value.dim() == 4 else value.shape[1]
    grid = options.grid(*value.shape[-2:])
    weights, offsets = _places(weights, offsets, "value", value, grid, heads, references)
    if value.dim() == 4:
        value = value[:, None]
    name = choose(backend, value, BACKENDS)
    if name == "naive":
        return naive.gather(value, weights, _three(offsets), options)
    return torch.ops.lgmc.gather(value, weights, offsets, *options.values(), name)


def scatter(
    x: Tensor,
    weights: Tensor,
    offsets: Tensor,
    *,
    size: tuple[int, int] | None = None,
    references: int | None = None,
    heads: int = 1,
    patch: int = 1,
    dilation: int = 1,
    query_stride: int = 1,
    backend: str | None = None,
) -> Tensor:
    """The transpose of ``gather`` (mode "sum", before the division by the overlap) w.r.t. value.

    Args:
        x: [B, C, H, W], what gather's result would be.
        weights, offsets: as in ``gather``; 3 components where ``references`` is given.
        size: (H, W) of the result, x's own, which is the default.
        references: R of the result, or None for none.

    Returns:
        [B, C, H, W], or [B, R, C, H, W]: weighted x added at the bilinear positions, in x's dtype.
        Gradients to x, weights and offsets.

    Raises:
        ValueError: naming the argument, what it was and what it must be.
    """
    options = GatherOptions(heads, patch, dilation, query_stride, "sum")
    checks.features("x", x, (4,), "[B, C, H, W]")
    options.check(x.shape[1])
    own = height, width = tuple(x.shape[-2:])
    if size is not None:
        fits = isinstance(size, Sequence) and tuple(size) == own
        checks.require(fits, "size", size, f"{own}, the size of x")
    if references is not None:
        checks.whole("references", references)
    grid = options.grid(height, width)
    weights, offsets = _places(weights, offsets, "x", x, grid, heads, references)
    count = 1 if references is None else references
    name = choose(backend, x, BACKENDS)
    if name == "naive":
        out = naive.scatter(x, weights, _three(offsets), (height, width), count, options)
    else:
        out = torch.ops.lgmc.scatter(
            x, weights, offsets, height, width, count, *options.values(), name
        )
    return out[:, 0] if references is None else out


def _places(
    weights: Tensor,
    offsets: Tensor,
    name: str,
    tensor: Tensor,
    grid: tuple[int, int],
    heads: int,
    references: int | None,
) -> tuple[Tensor, Tensor]:
    """Weights and offsets, checked, in float32 (or float64), with the core's components."""
    parts = 2 if references is None else 3
    checks.features("weights", weights, (5,), "[B, heads, nH, nW, K]")
    checks.alike("weights", weights, name, tensor, dtype=False)
    expected = [tensor.shape[0], heads, *grid, weights.shape[-1]]
    checks.sized("weights", weights, expected, "[B, heads, nH, nW, K]")
    checks.features("offsets", offsets, (6,), f"[B, heads, nH, nW, K, {parts}]")
    checks.alike("offsets", offsets, name, tensor, dtype=False)
    checks.sized("offsets", offsets, [*expected, parts], f"[B, heads, nH, nW, K, {parts}]")
    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    weights, offsets = weights.to(dtype), offsets.to(dtype)
    if references is not None and components(references) == 2:
        offsets = offsets[..., 1:]
    return weights, offsets


def _three(offsets: Tensor) -> Tensor:
    """Offsets with a reference in front, 0 where there was none."""
    if offsets.shape[-1] == 3:
        return offsets
    return torch.cat((torch.zeros_like(offsets[..., :1]), offsets), dim=-1)
