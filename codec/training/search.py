"""The encoder's search for motion, on training clips: what is coded in place of the net's estimate.

Between the clip's own frames, not from the decoded ones: so all pairs of a batch are searched at
once, before any is coded. A search is a long row of small steps; on a GPU they wait for each other.
"""

import math

import torch
from torch import Tensor

from codec.inter import GivenMotion, InterCodec
from codec.motion_refine import refined
from codec.training.rows import Rows


@torch.no_grad()
def searched_motion(
    inter: InterCodec, clip: Tensor, share: float, rows: Rows | None = None
) -> list[GivenMotion]:
    """For each frame of a clip but the first the motion that was found, and for which samples.

    Args:
        inter: a codec with ``motion.refine``.
        clip: [B, T, 3, H, W] in [0, 1].
        share: of the whole batch's pairs, T - 1 a sample, which are drawn on the device and so that
            the step can be captured as a CUDA graph.
        rows: that the clips are of a batch; None: all of it.
    """
    samples, frames, _, height, width = clip.shape
    rows = rows or Rows.all(samples)
    top = inter.flow.top
    pairs = rows.whole * (frames - 1)
    which = torch.rand(pairs, device=clip.device).argsort()[: math.ceil(share * pairs)]
    shape = len(which), 1, 1, 1
    draws = [torch.rand(shape, device=clip.device) for _ in inter.refine.stiffness[1:]]
    if not rows.is_all:
        pairs = samples * (frames - 1)
        which = which - rows.first * (frames - 1)
        mine = (which >= 0) & (which < pairs)
        which, draws = which[mine], [draw[mine] for draw in draws]
    current, reference = (part.flatten(0, 1)[which] for part in (clip[:, 1:], clip[:, :-1]))
    nothing = current.new_zeros(len(which), 2, height // top, width // top)
    found = nothing
    if len(which):
        with torch.autocast(clip.device.type, enabled=False):
            found, *others = refined(current, reference, nothing, top, inter.refine)
        for number, (flow, draw) in enumerate(zip(others, draws, strict=True), 2):
            found = torch.where(draw < 1 / number, flow, found)  # each of them as often
    flows = clip.new_zeros(pairs, *nothing.shape[1:]).index_copy(0, which, found)
    taken = torch.zeros(pairs, dtype=torch.bool, device=clip.device)
    taken = taken.index_fill(0, which, True)
    flows = flows.unflatten(0, (samples, frames - 1)).unbind(1)
    taken = taken.unflatten(0, (samples, frames - 1)).unbind(1)
    return [GivenMotion(*each) for each in zip(flows, taken, strict=True)]
