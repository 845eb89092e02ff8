"""Shifted refinement (Shifted-NLS): a small search round the decoded flow in unwarped references.

Queries are the context that both sides know, keys and values the references themselves; the
nearest matches are weighed by softmax(-distance), gathered and joined with the context.
"""

from typing import Any

import torch
from torch import Tensor, nn

from codec.config import ShiftedConfig
from codec.layers import conv1, zero_start
from kernels import shifted_attention, shifted_search


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
        # Both look at the same features to begin with: what is alike is near from the first step.
        self.key.load_state_dict(self.query.state_dict())
        self.value = conv1(channels, config.width)
        self.sharpness = nn.Parameter(torch.zeros(1))
        self.fuse = zero_start(conv1(channels + config.width, channels))

    def forward(self, context: Tensor, references: Tensor, flows: Tensor) -> Tensor:
        """Refine a context.

        Args:
            context: [B, C, H, W].
            references: [B, R, C, H, W], the last frame's first.
            flows: [B, R, 2, H, W] from the current frame to each, in pixels of this scale.
        """
        query, key, value = self._projected(context, references)
        found = shifted_attention(query, key, value, flows.float(), **self._search())
        return context + self.fuse(torch.cat((context, found.to(context.dtype)), 1))

    def matches(self, context: Tensor, references: Tensor, flows: Tensor) -> tuple[Tensor, Tensor]:
        """What the search found: weights [B, heads, H, W, topk] and offsets [..., topk, 2 | 3].

        Offsets are (x, y), with two references (reference, x, y), from each pixel.
        """
        query, key, _ = self._projected(context, references)
        distances, offsets = shifted_search(query, key, flows.float(), **self._search())
        return torch.softmax(-distances, -1), offsets

    def _search(self) -> dict[str, Any]:
        config = self.config
        return {
            "metric": "l2",
            "window": config.window,
            "topk": config.topk,
            "heads": config.heads,
            "search_stride": config.stride,
        }

    def _projected(self, context: Tensor, references: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        frames = references.shape[1]
        flat = references.flatten(0, 1)
        # The net learns how sharply the best match wins.
        sharpness = torch.exp(self.sharpness).to(context.dtype)
        key = (self.key(flat) * sharpness).unflatten(0, (-1, frames))
        value = self.value(flat).unflatten(0, (-1, frames))
        return self.query(context) * sharpness, key, value
