"""Fitting the shape of a codec's densities to the symbols that it codes, all else as it is."""

import torch
from torch import Tensor

from codec.config import ModelConfig
from codec.entropy.coders import Prior, RateEstimate, table_index
from codec.entropy.priors import ConditionalPrior
from codec.video_codec import VideoCodec

_LARGEST = 255


class Counted(RateEstimate):
    """A rate estimate that counts what a stream would code, by part and table index.

    Attributes:
        counts: by part [levels, 256], of magnitudes; larger ones count as the largest.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: dict[str, Tensor] = {}

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        symbols = super().code(residual, index, prior, part)
        if isinstance(prior, ConditionalPrior):
            rows, coded = table_index(index, prior)
            columns = symbols.abs().clamp(max=_LARGEST)
            cells = (rows.long() * (_LARGEST + 1) + columns.long())[coded]
            length = prior.levels * (_LARGEST + 1)
            here = torch.bincount(cells, minlength=length).double()
            before = self.counts.get(part, torch.zeros(length, dtype=torch.float64))
            self.counts[part] = before + here
        return symbols


def bits(prior: ConditionalPrior, counts: Tensor) -> Tensor:
    """Of counted symbols, by the density as it stands."""
    cells = counts.nonzero().squeeze(1)
    magnitude = (cells % (_LARGEST + 1)).float()
    likelihood = prior.likelihood(magnitude, cells // (_LARGEST + 1)).clamp(min=2.0**-17)
    return -(torch.log2(likelihood) * counts[cells]).sum()


def fit(prior: ConditionalPrior, counts: list[Tensor], steps: int = 400) -> None:
    """Let the prior's shape learn from counts, each of which weighs what it takes less than now."""
    shape = prior.model.shape
    weighted = sum(each / float(bits(prior, each).detach()) for each in counts)
    shape.requires_grad_(True)
    optimizer = torch.optim.Adam([shape], 0.02)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(steps):
        optimizer.zero_grad()
        bits(prior, weighted).backward()
        optimizer.step()
        schedule.step()
    shape.requires_grad_(False)


def with_mixtures(codec: VideoCodec) -> VideoCodec:
    """The same codec with densities that have a shape."""
    values = codec.config.model_dump()
    for part in ("intra", "inter"):
        values[part]["entropy"]["distribution"] = "mixture"
    mixed = VideoCodec(ModelConfig.model_validate(values))
    own = mixed.state_dict()
    shapes = {name: own[name] for name in own if name.endswith("prior.model.shape")}
    mixed.load_state_dict({**shapes, **codec.state_dict()})
    return mixed.eval().requires_grad_(False)
