"""Motion compensation: the stages that a config lists, run at every scale.

reference frame, feature --extract--> references
references + decoded flow --stages--> contexts --fusion--> contexts of the frame codec

``local`` comes first: it makes the contexts. ``shifted`` then refines them round the same flow and
``global`` adds what the rest of the reference says; each is the identity before training.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from codec.compensation.extract import LiteExtractor, TcmExtractor
from codec.compensation.fusion import LiteFusion, TcmFusion
from codec.compensation.global_attention import GlobalAttention
from codec.compensation.local import LocalStage
from codec.compensation.shifted_refine import ShiftedRefinement
from codec.config import InterConfig
from codec.flow import flow_pyramid, to_full_size
from codec.layers import resize_flow, warp


@dataclass
class Contexts:
    """What both sides know of the frame before its residual is coded.

    Attributes:
        scales: fused contexts, fine to coarse.
        warped_frame: the reference frame warped by the decoded flow [B, 3, H, W].
        references: unwarped features of the reference, fine to coarse.
    """

    scales: list[Tensor]
    warped_frame: Tensor
    references: list[Tensor]


@dataclass
class Older:
    """The reference before the last one: its features, and the last frame's decoded flow to it."""

    references: list[Tensor]
    flow: Tensor

    def detach(self) -> "Older":
        return Older([x.detach() for x in self.references], self.flow.detach())


class Compensation(nn.Module):
    """The stages of a config, in DCVC-TCM's or lite's geometry."""

    def __init__(self, config: InterConfig):
        super().__init__()
        self.full_size = config.family == "tcm"
        self.top = config.flow.top
        if self.full_size:
            self.extract: nn.Module = TcmExtractor(config.channels[0])
            self.fusion: nn.Module = TcmFusion(config.channels[0])
            widths = (config.channels[0],) * 3
        else:
            self.extract = LiteExtractor(config.channels[0], config.contexts)
            self.fusion = LiteFusion(config.contexts)
            widths = config.contexts
        self.local = LocalStage()
        shifted, attention = config.shifted, config.global_attention
        self.shifted = nn.ModuleDict()
        if "shifted" in config.compensation:
            for scale in shifted.scales:
                self.shifted[str(scale)] = ShiftedRefinement(widths[scale], shifted)
        self.attention = nn.ModuleDict()
        if "global" in config.compensation and attention.query == "context":
            for scale in attention.scales:
                width = widths[scale]
                self.attention[str(scale)] = GlobalAttention(width, width, attention.heads)

    def forward(
        self,
        frame: Tensor,
        feature: Tensor | None,
        flow: Tensor,
        older: Older | None = None,
        begins: Tensor | None = None,
    ) -> Contexts:
        """Contexts of the next frame.

        Args:
            frame: reference frame [B, 3, H, W].
            feature: propagated feature or None.
            flow: decoded flow at 1 / top of the frame.
            older: the reference before that, where the search wants two.
            begins: samples [B] whose feature is not to be used, None for none.
        """
        warped_frame = warp(frame, to_full_size(flow, self.top))
        references = self.extract(frame, feature, begins)
        flows = self.flows(flow)
        contexts = self.local(references, flows)
        if self.shifted:
            contexts = self._refine(contexts, references, flows, flow, older)
        for scale, attention in self.attention.items():
            contexts[int(scale)] = attention(contexts[int(scale)], references[int(scale)])
        return Contexts(self.fusion(contexts, warped_frame), warped_frame, references)

    def flows(self, flow: Tensor) -> list[Tensor]:
        """The decoded flow at every scale, each in pixels of its grid."""
        if self.full_size:
            return flow_pyramid(to_full_size(flow, self.top), 3)
        quarter = resize_flow(flow, self.top / 4)
        return [quarter, resize_flow(quarter, 0.5)]

    def _refine(
        self,
        contexts: list[Tensor],
        references: list[Tensor],
        flows: list[Tensor],
        flow: Tensor,
        older: Older | None,
    ) -> list[Tensor]:
        frames, paths = [references], [flows]
        if older is not None:
            # Two steps back: to the last frame, and on from there by the flow that was coded then.
            frames.append(older.references)
            paths.append(self.flows(flow + warp(older.flow, flow)))
        refined = list(contexts)
        for name, stage in self.shifted.items():
            scale = int(name)
            keys = torch.stack([features[scale] for features in frames], 1)
            shifts = torch.stack([path[scale] for path in paths], 1)
            refined[scale] = stage(contexts[scale], keys, shifts)
        return refined
