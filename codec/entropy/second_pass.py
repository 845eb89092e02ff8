"""Coding a latent in two passes: the first half helps to predict the second.

    pass 1   half of the channels at the places of one colour of a checkerboard,
             the other half at those of the other colour
    pass 2   the rest; means and indices moved by what the first pass's symbols say

The split is DCVC-DC's dual spatial prior (Li et al., CVPR 2023), its checkerboard that of He et al.
(CVPR 2021): every element of the second pass has neighbours of the first all around it, in its own
channel, and beside it those of the other half. A pass is dense, [B, C / 2, h, w].

What moves an index is integer arithmetic on integers, as in the exact scale path, so that both
sides of a stream agree; what moves a mean is float. Both begin as zero: an untrained second pass
codes what one pass would, element for element.
"""

import torch
from torch import Tensor, nn

from codec.entropy.scale_path import ScaleInputs, SecondScalePath
from codec.layers import conv1, conv3


class SecondPass(nn.Module):
    """What the first pass's symbols say of the second's elements.

    Args:
        latent: channels C of the latent, even.
        features: channels of the parameter net's input, or of the means where there is none.
        joined: channels of the scale path's joined activations.
        width: hidden channels for the means; scale_width: for the indices.
    """

    def __init__(self, latent: int, features: int, joined: int, width: int, scale_width: int):
        super().__init__()
        if latent % 2:
            raise ValueError(f"two passes need an even number of channels, not {latent}")
        last = conv1(width, latent)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        self.means = nn.Sequential(conv3(latent + features, width), nn.LeakyReLU(0.01), last)
        self.scales = SecondScalePath(latent, joined, scale_width)

    def moved_means(self, symbols: Tensor, features: Tensor) -> Tensor:
        """Symbols by which means move [B, C, h, w], given those of pass 1, zero elsewhere."""
        return self.means(torch.cat((symbols, features.float()), 1))

    def moved_index(self, symbols: Tensor, inputs: ScaleInputs, exact: bool) -> Tensor:
        """Indices of all elements [B, C, h, w]; with ``exact`` integers."""
        path = self.scales.exact if exact else self.scales
        return path(symbols, inputs)


def first_places(channels: int, height: int, width: int, device: torch.device) -> Tensor:
    """Which elements [1, C, h, w] the first pass codes."""
    rows = torch.arange(height, device=device)[:, None]
    even = (rows + torch.arange(width, device=device)) % 2 == 0
    half = channels // 2
    return torch.cat((even.expand(half, -1, -1), ~even.expand(half, -1, -1)))[None]


def packed(values: Tensor, places: Tensor) -> Tensor:
    """The elements of one pass, [B, C, h, w] -> [B, C / 2, h, w]; ``places`` from first_places."""
    (low, high), (here, _) = values.chunk(2, 1), places.chunk(2, 1)
    return torch.where(here, low, high)


def spread(values: Tensor, places: Tensor) -> Tensor:
    """Inverts :func:`packed`; zero where the pass has no elements."""
    here, there = places.chunk(2, 1)
    return torch.cat((values * here, values * there), 1)
