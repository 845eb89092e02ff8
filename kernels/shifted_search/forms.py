"""From the forms a caller may use (pair, several references, video) to the core's form and back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from kernels import checks
from kernels.shifted_search.options import SearchOptions

PAIR = "[B, C, H, W]"
REFERENCES = "[B, R, C, H, W]"
VIDEO = "[B, T, C, H, W]"


@dataclass(frozen=True)
class Form:
    """How the results of the core go back to the caller's form.

    kind: "pair", "references" or "video"; frames: T of the video form.
    """

    kind: str
    references: int
    frames: int = 1


def searched_frames(frames: int, radius: int, device: torch.device | None = None) -> Tensor:
    """[T, W_t]: the frames each frame is searched in, t, t+1 .. t_max, t-1 .. t_min.

    W_t = 2 * radius + 1; at the ends of the clip the range shifts so that there are always so many.
    """
    rows = []
    for t in range(frames):
        first = min(max(t - radius, 0), frames - 2 * radius - 1)
        last = first + 2 * radius
        rows.append([*range(t, last + 1), *range(t - 1, first - 1, -1)])
    return torch.tensor(rows, device=device)


def to_core(
    query: Tensor,
    key: Tensor,
    flow: Tensor,
    options: SearchOptions,
    temporal_radius: int | None,
    value: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Form]:
    """query [B, C, H, W], key [B, R, C, H, W], flow [B, R, 2, nH, nW], value like key, the form.

    Raises:
        ValueError: naming the argument, what it was and what it must be.
    """
    if temporal_radius is not None:
        checks.whole("temporal_radius", temporal_radius, 0)
        checks.features("query", query, (5,), VIDEO)
        checks.sized("key", key, query.shape, f"like query, {VIDEO}")
    else:
        checks.features("query", query, (4,), PAIR)
        checks.features("key", key, (4, 5), f"{PAIR} or {REFERENCES}")
        expected = [*key.shape[: key.dim() - 3], *query.shape[1:]]
        expected[0] = query.shape[0]
        checks.sized("key", key, expected, "the batch, channels and size of query")
    checks.alike("key", key, "query", query)
    leading = list(key.shape[:-3])
    if temporal_radius is not None:
        window = 2 * temporal_radius + 1
        if query.shape[1] < window:
            checks.refuse(
                "temporal_radius", temporal_radius, f"<= {(query.shape[1] - 1) // 2} for T frames"
            )
        leading.append(window)
        options.check(query.shape[2], window)
    else:
        options.check(query.shape[1], 1 if key.dim() == 4 else key.shape[1])
    flow = _flow(flow, query, leading, options)
    if value is not None:
        checks.features("value", value, (key.dim(),), "of as many axes as key")
        checks.alike("value", value, "query", query)
        expected = [*key.shape[:-3], value.shape[-3], *key.shape[-2:]]
        checks.sized("value", value, expected, "key's, but for the channels")
        checks.divides("heads", options.heads, "channels of value", value.shape[-3])
    if temporal_radius is None:
        if key.dim() == 4:
            value = None if value is None else value[:, None]
            return query, key[:, None], flow[:, None], value, Form("pair", 1)
        return query, key, flow, value, Form("references", key.shape[1])
    frames = query.shape[1]
    searched = searched_frames(frames, temporal_radius, query.device)
    key = key[:, searched].flatten(0, 1)  # [B * T, W_t, C, H, W]
    if value is not None:
        value = value[:, searched].flatten(0, 1)
    form = Form("video", window, frames)
    return query.flatten(0, 1), key, flow.flatten(0, 1), value, form


def _flow(flow: Tensor, query: Tensor, leading: list[int], options: SearchOptions) -> Tensor:
    """The flow at the queries, [..., 2, nH, nW], in float32 (float64 where the features are)."""
    size, stride = list(query.shape[-2:]), options.query_stride
    checks.features("flow", flow, (len(leading) + 3,), "[B, (R or T, W_t,) 2, H, W]")
    checks.alike("flow", flow, "query", query, dtype=False)
    grid = list(options.grid(*size))
    if list(flow.shape) != [*leading, 2, *grid]:
        checks.sized("flow", flow, [*leading, 2, *size], "one vector (x, y) per pixel")
        flow = flow[..., ::stride, ::stride]
    return flow.to(torch.float64 if query.dtype == torch.float64 else torch.float32)


def results_from_core(
    scores: Tensor, offsets: Tensor, form: Form, options: SearchOptions, radius: int | None
) -> tuple[Tensor, Tensor]:
    """Scores and offsets in the caller's form; ``op.shifted_search`` lists the shapes.

    Args:
        scores: [N, heads, nH, nW, K]; offsets: [N, heads, nH, nW, K, 2 or 3].
    """
    if form.kind == "pair":
        if options.per_reference:
            scores, offsets = scores.unsqueeze(-2), offsets.unsqueeze(-3)
        return scores, offsets
    if offsets.shape[-1] == 2:
        offsets = torch.cat((torch.zeros_like(offsets[..., :1]), offsets), dim=-1)
    if form.kind == "video":
        scores, offsets = (
            x.unflatten(0, (-1, form.frames)).transpose(1, 2) for x in (scores, offsets)
        )
        searched = searched_frames(form.frames, radius, scores.device)  # [T, W_t]
        steps = searched - torch.arange(form.frames, device=scores.device)[:, None]
        at = torch.arange(form.frames, device=scores.device)[:, None, None, None]
        dt = steps[at, offsets[..., 0].long()].to(offsets.dtype)
        offsets = torch.cat((dt[..., None], offsets[..., 1:]), dim=-1)
    elif options.per_reference:
        offsets = offsets[..., 1:]
    if options.per_reference:
        shape = (form.references, options.topk)
        scores, offsets = scores.unflatten(-1, shape), offsets.unflatten(-2, shape)
    return scores, offsets
