"""Where a step stands in the schedule: its stage, learning rate and trained parts."""

import math
from dataclasses import dataclass

from torch import nn

from codec.config import Stage
from codec.video_codec import VideoCodec


@dataclass(frozen=True)
class Position:
    """A step inside its stage. ``number`` is the stage's row, ``done`` the steps done in it."""

    number: int
    stage: Stage
    done: int

    @property
    def lr(self) -> float:
        """Cosine from ``lr`` to ``lr_end``, with 100 steps of warm-up at the start of a stage."""
        stage = self.stage
        end = stage.lr if stage.lr_end is None else stage.lr_end
        share = self.done / stage.steps
        rate = end + 0.5 * (stage.lr - end) * (1 + math.cos(math.pi * share))
        warm_up = min(100, stage.steps)
        return rate * min(1.0, (self.done + 1) / warm_up)


def total_steps(stages: tuple[Stage, ...]) -> int:
    return sum(stage.steps for stage in stages)


def position(stages: tuple[Stage, ...], step: int) -> Position:
    """Of a step 0 .. total_steps - 1."""
    for number, stage in enumerate(stages):
        if step < stage.steps:
            return Position(number, stage, step)
        step -= stage.steps
    raise ValueError("the step lies beyond the schedule")


def set_trained_parts(codec: VideoCodec, stage: Stage) -> list[nn.Parameter]:
    """Let only the stage's parts learn; returns their parameters."""
    inter = codec.inter
    latents = codec.intra.latent, inter.latent, inter.motion.latent
    recon = [m for name, m in inter.named_children() if name not in ("flow", "motion")]
    groups = {
        "intra": [codec.intra],
        "flow": [inter.flow],
        "motion": [inter.motion],
        "recon": recon,
        "inter": [inter],
        "entropy": [codec.intra.prior, inter.prior, *latents],
        "second_pass": [latent.second for latent in latents if latent.second is not None],
        "all": [codec],
    }
    codec.requires_grad_(False)
    for part in stage.train:
        for module in groups[part]:
            module.requires_grad_(True)
    for name, parameter in codec.named_parameters():
        if name.endswith("quantiles"):  # found by bisection, not learned
            parameter.requires_grad_(False)
    return [p for p in codec.parameters() if p.requires_grad]
