"""The core that every form of the search is brought to, and what a back end has to offer.

A back end is a module ``kernels/shifted_search/NAME.py`` with the functions of ``Backend``. Tensors
come as they are (any strides, float32 or bfloat16; flow, weights, offsets and scores float32);
``naive.py`` defines the values. Layouts:

    query    [B, C, H, W]
    key      [B, R, C, H, W]           R references
    value    [B, R, Cv, H, W]
    flow     [B, R, 2, nH, nW]         pixels, channel 0 = x, 1 = y, at the queries only; may be
                                       NaN or inf
    scores   [B, heads, nH, nW, K]     K = options.chosen(R); best first; per reference R blocks of
                                       topk
    offsets  [B, heads, nH, nW, K, D]  (dx, dy), D = 2, where R = 1, else (reference, dx, dy), D = 3
    weights  [B, heads, nH, nW, K]
    centre   [B, R, 2, nH, nW]         gradients w.r.t. the windows' centres *after* reflection:
                                       ``custom.py`` turns them into the flow's (sign of the
                                       reflection, offsets' identity)

Head h owns the channels h * C / heads to (h + 1) * C / heads. Slots that no candidate inside the
image could fill score -inf (dot) or +inf (l2), carry the offsets of the first outside candidates in
scan order, weigh 0 and pass no gradient. In slot 0 of anchor="query" stands the query itself: zero
offset, reference 0, no gradient to the centre. With integer positions scores pass none to the
centre either, values do.
"""

from importlib import import_module
from types import ModuleType
from typing import Protocol

import torch
from torch import Tensor

from kernels.shifted_search.options import GatherOptions, SearchOptions


class Backend(Protocol):
    """The functions of a back end's module.

    All results are contiguous; gradients come back in their tensors' dtypes.
    """

    def search_forward(
        self, query: Tensor, key: Tensor, flow: Tensor, options: SearchOptions
    ) -> tuple[Tensor, Tensor]:
        """scores, offsets."""

    def search_backward(
        self,
        grad_scores: Tensor,
        query: Tensor,
        key: Tensor,
        scores: Tensor,
        offsets: Tensor,
        options: SearchOptions,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of query, key, centre (through the scores only).

        A candidate stands at query + offset, clamped into the image (rounding may have moved it
        out). A slot with an infinite score passes nothing on, whatever its grad_scores is.
        """

    def fuses(self, options: SearchOptions) -> bool:
        """Whether the two attention functions take these options (patch = 1 at least, say); where
        not, ``op.py`` composes them of search and gather."""

    def attention_forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        flow: Tensor,
        scale: float,
        options: SearchOptions,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """out [B, Cv, H, W] in value's dtype (0 where no query stands), weights, offsets.

        weights = softmax over K of scale * score (-score for l2), 0 for infinite scores.
        """

    def attention_backward(
        self,
        grad_out: Tensor,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        weights: Tensor,
        offsets: Tensor,
        scale: float,
        options: SearchOptions,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Gradients of query, key, value, centre (through scores and values' positions)."""

    def gather_forward(
        self, value: Tensor, weights: Tensor, offsets: Tensor, options: GatherOptions
    ) -> Tensor:
        """mode "sum": [B, Cv, H, W] NOT yet divided by the overlap, in value's dtype; "stack":
        [B, K, Cv * patch * patch, nH, nW]."""

    def gather_backward(
        self,
        grad_out: Tensor,
        value: Tensor,
        weights: Tensor,
        offsets: Tensor,
        options: GatherOptions,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of value, weights, offsets (0 in the reference's component)."""

    def scatter_forward(
        self,
        x: Tensor,
        weights: Tensor,
        offsets: Tensor,
        size: tuple[int, int],
        references: int,
        options: GatherOptions,
    ) -> Tensor:
        """[B, R, C, H, W] in x's dtype: value's gradient of an undivided "sum" for grad_out = x."""


def load(name: str) -> ModuleType:
    """The module of the back end ``cpu`` or ``triton``."""
    return import_module(f"kernels.shifted_search.{name}")


def components(references: int) -> int:
    """D: the components of an offset inside the core."""
    return 2 if references == 1 else 3


def reflection_sign(flow: Tensor, options: SearchOptions, height: int, width: int) -> Tensor:
    """d centre / d flow, [B, R, 2, nH, nW]: 1, -1 where reflected, 0 where clamped after it."""
    if options.positions == "integer":
        flow = torch.round(flow)
    rows = torch.arange(flow.shape[-2], device=flow.device, dtype=flow.dtype)
    columns = torch.arange(flow.shape[-1], device=flow.device, dtype=flow.dtype)
    signs = []
    places = (columns * options.query_stride, (rows * options.query_stride)[:, None])
    for axis, (place, size) in enumerate(zip(places, (width, height), strict=True)):
        position, last = flow[:, :, axis] + place, size - 1
        reflected = (position < 0) | (position > last)
        inside = (position >= -last) & (position <= 2 * last)
        signs.append(torch.where(reflected, -1.0, 1.0) * inside)
    return torch.stack(signs, 2)


def offsets_to_centre(grad: Tensor, offsets: Tensor, references: int, anchor: str) -> Tensor:
    """The gradient of the offsets as one of the centres, [B, R, 2, nH, nW]: offsets move with them.

    Args:
        grad: [B, heads, nH, nW, K, D]; offsets: likewise.
    """
    if anchor == "query":  # slot 0 is the query's own place, whatever the flow says
        grad = torch.cat((torch.zeros_like(grad[..., :1, :]), grad[..., 1:, :]), dim=-2)
    if references == 1:
        return grad.sum((1, 4)).permute(0, 3, 1, 2).unsqueeze(1)
    index = offsets[..., :1].long().expand(*offsets.shape[:-1], 2)
    parts = [(grad[..., 1:] * (index == r)).sum((1, 4)) for r in range(references)]
    return torch.stack(parts, 1).permute(0, 1, 4, 2, 3)


def softmax_backward(grad_weights: Tensor, weights: Tensor, scale: float, metric: str) -> Tensor:
    """The gradient of the scores behind ``weights`` = softmax(scale * score or -score) over K."""
    signed = scale if metric == "dot" else -scale
    mean = (grad_weights * weights).sum(-1, keepdim=True)
    return signed * weights * (grad_weights - mean)
