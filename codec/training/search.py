"""The encoder's search for motion, on training clips: what is coded in place of the net's estimate.

Between the clip's own frames, not from the decoded ones: so all pairs of a batch are searched at
once, before any is coded. A search is a long row of small steps; on a GPU they wait for each other.
"""

import math

import torch
from torch import Tensor

from codec.inter import GivenMotion, InterCodec
from codec.motion_refine import refined


@torch.no_grad()
def searched_motion(inter: InterCodec, clip: Tensor, share: float) -> list[GivenMotion]:
    """For each frame of a clip but the first the motion that was found, and for which samples.

    Args:
        inter: a codec with ``motion.refine``.
        clip: [B, T, 3, H, W] in [0, 1].
        share: of the B * (T - 1) pairs, which are drawn on the device and so that the step can be
            captured as a CUDA graph.
    """
    samples, frames, _, height, width = clip.shape
    top = inter.flow.top
    pairs = samples * (frames - 1)
    which = torch.rand(pairs, device=clip.device).argsort()[: math.ceil(share * pairs)]
    current, reference = (part.flatten(0, 1)[which] for part in (clip[:, 1:], clip[:, :-1]))
    nothing = current.new_zeros(len(which), 2, height // top, width // top)
    with torch.autocast(clip.device.type, enabled=False):
        choices = refined(current, reference, nothing, top, inter.refine)
    found = choices[0]
    for number, flow in enumerate(choices[1:], 2):  # each of them as often
        draws = torch.rand(len(which), 1, 1, 1, device=clip.device)
        found = torch.where(draws < 1 / number, flow, found)
    flows = clip.new_zeros(pairs, *nothing.shape[1:]).index_copy(0, which, found)
    taken = torch.zeros(pairs, dtype=torch.bool, device=clip.device)
    taken = taken.index_fill(0, which, True)
    flows = flows.unflatten(0, (samples, frames - 1)).unbind(1)
    taken = taken.unflatten(0, (samples, frames - 1)).unbind(1)
    return [GivenMotion(*each) for each in zip(flows, taken, strict=True)]
