"""Local compensation: every reference feature warped by the decoded flow (DCVC-TCM)."""

from torch import Tensor, nn

from codec.layers import warp


class LocalStage(nn.Module):
    """Gives each scale its first context. It has no parameters."""

    def forward(self, references: list[Tensor], flows: list[Tensor]) -> list[Tensor]:
        """Warp.

        Args:
            references: features [B, C_s, H_s, W_s], fine to coarse.
            flows: [B, 2, H_s, W_s], each in pixels of its grid.
        """
        return [warp(x, flow) for x, flow in zip(references, flows, strict=True)]
