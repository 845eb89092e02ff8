"""Global compensation: what the whole reference has to say, by linear cross-attention (LVC-LGMC).

G = softmax_channels(Q) (softmax_pixels(K)^T V): d summaries of the reference a head, mixed anew for
every pixel. A mean over pixels, so its size does not change with the picture's. Borders are
repeated and not filled with zeros: rim pixels that no other pixel is like would weigh more in a
small picture.
"""

import torch
from torch import Tensor, nn

from codec.layers import conv1, depthwise3, zero_start
from kernels import linear_attention


class GlobalAttention(nn.Module):
    """Attention and a small convolutional MLP, each on a skip; the identity before training.

    Args:
        channels: of the query, kept by the output; must divide by ``heads``.
        reference: channels of the reference feature.
        heads: of the attention.
    """

    def __init__(self, channels: int, reference: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = _projection(channels, channels)
        self.key = _projection(reference, channels)
        self.value = _projection(reference, channels)
        self.out = zero_start(conv1(channels, channels))
        self.mlp = nn.Sequential(
            conv1(channels, channels),
            nn.GELU(),
            depthwise3(channels),
            nn.GELU(),
            zero_start(conv1(channels, channels)),
        )

    def forward(self, x: Tensor, reference: Tensor) -> Tensor:
        """x [B, C, H, W] with what it asked of the unwarped reference [B, R, h, w]."""
        found = linear_attention(
            self.query(x), self.key(reference), self.value(reference), self.heads
        )
        x = x + self.out(found)
        return x + self.mlp(x)

    def maps(self, reference: Tensor) -> Tensor:
        """Where each summary looks: weights [B, C, h, w] that sum to 1 over the pixels."""
        key = self.key(reference).float()
        return torch.softmax(key.flatten(2), -1).view_as(key)


def _projection(channels: int, out: int) -> nn.Sequential:
    return nn.Sequential(conv1(channels, out), depthwise3(out))
