"""The densities that a conditional prior picks a scale of: CompressAI's Gaussian and two more."""

import math

import torch
from compressai.entropy_models import GaussianConditional
from torch import Tensor, nn


class Laplace(GaussianConditional):
    """CompressAI's conditional model with the Laplace density of DCVC-TCM.

    ``scale`` is the Laplace diversity b: density exp(-|x| / b) / 2b.
    """

    def _standardized_cumulative(self, inputs: Tensor) -> Tensor:
        # Only ever asked for inputs of either sign near zero; expm1 keeps the small tails.
        tail = 0.5 * torch.exp(-torch.abs(inputs))
        return torch.where(inputs < 0, tail, 1.0 - tail)

    @staticmethod
    def _standardized_quantile(quantile: float) -> float:
        return math.log(2.0 * quantile)


class Mixture(GaussianConditional):
    """CompressAI's conditional model with two Gaussians about zero, a narrow and a wide one.

        density(x | s) = (1 - w) N(x; 0, a s) + w N(x; 0, b s)

    What a network takes for a scale is one for many elements, of which some are quieter and some
    louder than it says (docs/decisions.md). logit w, log a and log b are learned: parabolas over
    log s, which runs from -1 to 1 over the table. The table that a model stores decides what a
    stream means, not these.

    Args:
        offsets: where the density's middle may lie; with more than one the table has a row for each
            of them at each scale, those of a scale one after the other.

    Attributes:
        shape: their coefficients [3, 3]: a row each, from the constant on.
    """

    def __init__(
        self, scale_table: list[float], offsets: tuple[float, ...] = (0.0,), **options: float
    ):
        super().__init__(scale_table, **options)
        self._offsets = offsets
        low, high = math.log(scale_table[0]), math.log(scale_table[-1])
        self._middle, self._reach = (low + high) / 2, (high - low) / 2
        shape = torch.zeros(3, 3)
        shape[:, 0] = torch.tensor([-1.1, math.log(0.8), math.log(1.4)])  # near a Gaussian
        self.shape = nn.Parameter(shape)

    def components(self, scales: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Weight w of the wide Gaussian, and both deviations a s and b s."""
        place = ((torch.log(scales) - self._middle) / self._reach).clamp(-1, 1)
        logit, narrow, wide = (row[0] + place * (row[1] + place * row[2]) for row in self.shape)
        return torch.sigmoid(logit), scales * torch.exp(narrow), scales * torch.exp(wide)

    def update(self) -> None:
        """Build the tables: rows end where what is beyond them weighs ``tail_mass`` or less."""
        scales = self.scale_table.repeat_interleave(len(self._offsets))
        middle = scales.new_tensor(self._offsets).repeat(len(self.scale_table))[:, None]
        weight, narrow, wide = (part[:, None] for part in self.components(scales))
        reach = -self._standardized_quantile(self.tail_mass / 2)
        longest = math.ceil(float(torch.maximum(narrow, wide).max()) * reach)

        def beyond(ends: Tensor) -> Tensor:  # on one side
            cumulative = self._standardized_cumulative
            inner, outer = cumulative(-ends / narrow), cumulative(-ends / wide)
            return inner + weight * (outer - inner)

        def tails(ends: Tensor) -> Tensor:
            return beyond(ends - middle) + beyond(ends + middle)

        ends = torch.arange(longest + 1, device=weight.device) + 0.5
        center = (tails(ends[None]) > self.tail_mass).sum(1)
        length = 2 * center + 1
        most = int(length.max())
        symbols = torch.arange(most, device=weight.device) - center[:, None]
        away = torch.abs(symbols - middle)
        inside = beyond(away - 0.5) - beyond(away + 0.5)
        tail = tails((center + 0.5)[:, None])
        self._quantized_cdf = self._pmf_to_cdf(inside, tail, length.int(), most)
        self._offset = -center.int()
        self._cdf_length = length.int() + 2

    def _likelihood(self, inputs: Tensor, scales: Tensor, means: Tensor | None = None) -> Tensor:
        weight, narrow, wide = self.components(self.lower_bound_scale(scales))
        values = inputs if means is None else inputs - means
        inner = super()._likelihood(values, narrow)
        return inner + weight * (super()._likelihood(values, wide) - inner)
