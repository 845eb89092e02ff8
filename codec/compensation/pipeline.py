"""Motion compensation: the stages that a config lists, run at every scale.

reference frame, feature --extract--> references
references + decoded flow --stages--> contexts --fusion--> contexts of the frame codec
"""

from dataclasses import dataclass

from torch import Tensor, nn

from codec.compensation.extract import LiteExtractor, TcmExtractor
from codec.compensation.fusion import LiteFusion, TcmFusion
from codec.compensation.local import LocalStage
from codec.config import InterConfig
from codec.flow import flow_pyramid, to_full_size
from codec.layers import resize_flow, warp


@dataclass
class Contexts:
    """What both sides know of the frame before its residual is coded.

    Attributes:
        scales: fused contexts, fine to coarse.
        warped_frame: the reference frame warped by the decoded flow [B, 3, H, W].
    """

    scales: list[Tensor]
    warped_frame: Tensor


class Compensation(nn.Module):
    """Local compensation and fusion, in DCVC-TCM's or lite's geometry."""

    def __init__(self, config: InterConfig):
        super().__init__()
        self.full_size = config.family == "tcm"
        self.top = config.flow.top
        if self.full_size:
            self.extract: nn.Module = TcmExtractor(config.channels[0])
            self.fusion: nn.Module = TcmFusion(config.channels[0])
        else:
            self.extract = LiteExtractor(config.channels[0], config.contexts)
            self.fusion = LiteFusion(config.contexts)
        self.local = LocalStage()

    def forward(self, frame: Tensor, feature: Tensor | None, flow: Tensor) -> Contexts:
        """Contexts of the next frame.

        Args:
            frame: reference frame [B, 3, H, W].
            feature: propagated feature or None.
            flow: decoded flow at 1 / top of the frame.
        """
        full = to_full_size(flow, self.top)
        warped_frame = warp(frame, full)
        references = self.extract(frame, feature)
        if self.full_size:
            flows = flow_pyramid(full, 3)
        else:
            quarter = resize_flow(flow, self.top / 4)
            flows = [quarter, resize_flow(quarter, 0.5)]
        contexts = self.local(references, flows)
        return Contexts(self.fusion(contexts, warped_frame), warped_frame)
