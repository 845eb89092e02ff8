"""Shifted refinement (Shifted-NLS): a small search round the decoded flow in unwarped references.

Queries are the context that both sides know, keys and values the references themselves; the best
matches are weighed, gathered and joined with the context.
"""

import torch
from torch import Tensor, nn

from codec.config import ShiftedConfig
from codec.layers import conv1, conv3, zero_start
from kernels import shifted_attention


class ShiftedRefinement(nn.Module):
    """The identity before training.

    Args:
        channels: of the context and of the references at this scale.
        config: window, candidates, heads.
    """

    def __init__(self, channels: int, config: ShiftedConfig):
        super().__init__()
        self.config = config
        self.query = conv1(channels, config.width)
        self.key = conv1(channels, config.width)
        self.value = conv1(channels, config.width)
        self.sharpness = nn.Parameter(torch.zeros(1))
        self.fuse = zero_start(conv3(channels + config.width, channels))

    def forward(self, context: Tensor, references: Tensor, flows: Tensor) -> Tensor:
        """Refine a context.

        Args:
            context: [B, C, H, W].
            references: [B, R, C, H, W], the last frame's first.
            flows: [B, R, 2, H, W] from the current frame to each, in pixels of this scale.
        """
        frames = references.shape[1]
        flat = references.flatten(0, 1)
        key = self.key(flat).unflatten(0, (-1, frames))
        value = self.value(flat).unflatten(0, (-1, frames))
        # Vectors of length sqrt(width / heads) score about +-1 after this; the net learns how
        # sharply the best one wins.
        weight = torch.exp(self.sharpness) * (self.config.heads / self.config.width) ** 0.5
        query = self.query(context) * weight.to(context.dtype)
        found = shifted_attention(
            query,
            key,
            value,
            flows.float(),
            window=self.config.window,
            topk=self.config.topk,
            heads=self.config.heads,
            search_stride=self.config.stride,
        )
        return context + self.fuse(torch.cat((context, found.to(context.dtype)), 1))
