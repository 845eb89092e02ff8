"""Starting the P codec from the intra codec: a coder of prediction errors that knows pictures.

Both have the same transforms and hyperprior but for the P codec's contexts, whose layers begin at
zero. What they share by name and shape is copied; where the P codec's layer has more inputs, those
that the intra codec lacks begin at zero.
"""

import torch
from torch import Tensor

from codec.video_codec import VideoCodec

# (P codec's layer, where the intra codec's inputs begin among its own)
_WIDER = {
    "latent.parameter_net.0.weight": "end",  # temporal prior first, then the hyper decoder's output
    "latent.scale_path.hidden.weight": "start",  # then the previous frame's symbols
}


@torch.no_grad()
def inter_from_intra(codec: VideoCodec) -> list[str]:
    """Copy the intra codec's weights into the P codec's frame transforms; names copied."""
    source = codec.intra.state_dict()
    target = codec.inter.state_dict()
    copied = []
    for name, value in source.items():
        if not name.startswith(("encoder.", "decoder.", "latent.")) or name not in target:
            continue
        if not value.is_floating_point():
            continue
        own = target[name]
        if own.shape == value.shape:
            own.copy_(value)
        elif name in _WIDER and own.shape[0] == value.shape[0]:
            _copy_inputs(own, value, _WIDER[name])
        elif own.shape[:2] == value.shape[:2] and own.shape[-1] == 1 and value.shape[-1] == 3:
            own.copy_(value.sum((2, 3), keepdim=True))  # a 1x1 layer in the place of a 3x3 one
        else:
            continue
        copied.append(name)
    return copied


def _copy_inputs(own: Tensor, value: Tensor, place: str) -> None:
    own.zero_()
    count = value.shape[1]
    if place == "start":
        own[:, :count] = value
    else:
        own[:, -count:] = value
