"""The probability models: CompressAI's, with tables that live in the checkpoint.

A prior is asked for two things: likelihoods of (noisy or rounded) symbols, for training and for
estimates, and integer cumulative tables for rANS. Symbols are integers; means are subtracted before
a prior sees them, so every conditional prior is centred on zero.
"""

import math
from typing import NamedTuple

import torch
from compressai.entropy_models import EntropyBottleneck, GaussianConditional
from compressai.ops import LowerBound
from torch import Tensor, nn

from codec.config import EntropyConfig
from codec.entropy.densities import Laplace, Mixture

# Probability of a symbol beyond a row of the table, which is then escaped. CompressAI's 1e-9 makes
# rows half as long again, of entries below the 2^-16 that a count stands for; rANS searches them.
TAIL_MASS = 1e-5


class _CodingTables(nn.Module):
    """Shared by the priors: the rANS tables as buffers that load into any instance.

    CompressAI's buffers start with size 0 and refuse to load from a checkpoint outside its own
    CompressionModel; these are resized first.
    """

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        for name in ("_quantized_cdf", "_cdf_length", "_offset"):
            stored = state_dict.get(f"{prefix}model.{name}")
            if stored is not None:
                getattr(self.model, name).resize_(stored.shape)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def bounded_likelihood(self, symbols: Tensor, index: Tensor) -> Tensor:
        """:meth:`likelihood`, at least 1e-9; gradients that lead back above the bound pass."""
        return self.model.likelihood_lower_bound(self.likelihood(symbols, index))

    @property
    def has_tables(self) -> bool:
        return self.model._quantized_cdf.numel() > 0

    def tables(self) -> tuple[list[list[int]], list[int], list[int]]:
        """Rows of cumulative counts (16 bits), their lengths, the symbol each starts at."""
        if not self.has_tables:
            raise RuntimeError("the entropy tables are not built: call update() after training")
        lengths = self.model._cdf_length.tolist()
        rows = [
            row[:length]
            for row, length in zip(self.model._quantized_cdf.tolist(), lengths, strict=True)
        ]
        return rows, lengths, self.model._offset.tolist()


class FactorizedPrior(_CodingTables):
    """A learned density per channel, for the hyper latents z (Ballé et al. 2018).

    The table index of an element is its channel. Medians are held at zero, so that symbols are
    plain ``round(z)`` and the exact scale path sees nothing but integers.

    Args:
        channels: of z.
        filters: hidden widths; (1, 1, 1) is DCVC-TCM's bit estimator, term for term.
    """

    def __init__(self, channels: int, filters: tuple[int, ...] = (3, 3, 3)):
        super().__init__()
        self.model = EntropyBottleneck(channels, filters=filters)
        self.model.quantiles.requires_grad_(False)

    def likelihood(self, symbols: Tensor, index: Tensor | None = None) -> Tensor:
        """Probability of each (possibly noisy) symbol; ``symbols`` [B, C, H, W]."""
        by_channel = symbols.transpose(0, 1)  # [C, B, H, W]
        flat = by_channel.reshape(symbols.shape[1], 1, -1)
        probability, _, _ = self.model._likelihood(flat)
        return probability.reshape(by_channel.shape).transpose(0, 1)

    def index(self, batch: int, height: int, width: int, device: torch.device) -> Tensor:
        """The table index of every element of a z of this size: its channel, int32."""
        channels = torch.arange(self.model.channels, dtype=torch.int32, device=device)
        return channels[None, :, None, None].expand(batch, -1, height, width)

    @torch.no_grad()
    def update(self) -> None:
        """Build the rANS tables from the density as it stands."""
        self.model._update_quantiles()
        low = self.model.quantiles[:, :, 0].clamp(max=-1.0)
        high = self.model.quantiles[:, :, 2].clamp(min=1.0)
        self.model.quantiles[:, :, 0] = low
        self.model.quantiles[:, :, 1] = 0.0
        self.model.quantiles[:, :, 2] = high
        self.model.update(force=True)


class ScaleTable:
    """Scales in a geometric series: ``scale(i) = least * (most / least) ** (i / (levels - 1))``.

    Between entries (a real-valued index, in training) the same formula interpolates.

    Args:
        least, most: its ends.
        levels: its length.
    """

    def __init__(self, least: float, most: float, levels: int):
        self.levels = levels
        self._log_least = math.log(least)
        self._log_step = (math.log(most) - self._log_least) / (levels - 1)

    def entries(self) -> list[float]:
        return [math.exp(self._log_least + i * self._log_step) for i in range(self.levels)]

    def scale(self, index: Tensor) -> Tensor:
        """At a real or integer index, which may lie beyond the table."""
        return torch.exp(self._log_least + index.float() * self._log_step)

    def index_of(self, scale: Tensor) -> Tensor:
        """Inverts :meth:`scale`."""
        return (torch.log(scale) - self._log_least) / self._log_step


_EIGHTHS = 8
_SHIFTS = _EIGHTHS // 2 + 1  # 0..4 eighths; the mirrored ones are coded with the other sign


class Shifted(NamedTuple):
    """How a symbol z with a middle of its own is coded: as ``(z - whole) * sign``, at ``index``."""

    whole: Tensor
    sign: Tensor
    index: Tensor


class ShiftedPrior(_CodingTables):
    """Mixtures of two Gaussians about middles that need not be whole: for z, given former z.

    An index in training is a pair of real numbers, [..., 2]: the scale's level, as in
    :class:`ConditionalPrior`, and the middle. Else it is the row of the table: a level, and a
    middle of 0..4 eighths.

    Args:
        scale_min, scale_max, levels: of the table of scales.
    """

    def __init__(self, scale_min: float = 0.11, scale_max: float = 64.0, levels: int = 32):
        super().__init__()
        self.levels = levels
        self._scales = ScaleTable(scale_min, scale_max, levels)
        offsets = tuple(shift / _EIGHTHS for shift in range(_SHIFTS))
        self.model = Mixture(self._scales.entries(), offsets, scale_bound=1e-5, tail_mass=TAIL_MASS)
        self.level_bound = LowerBound(0.0)

    def about(self, middle: Tensor, level: Tensor) -> Shifted:
        """For training, of real numbers: the whole number nearest to the middle, signs of 1."""
        whole = torch.round(middle.detach())
        return Shifted(whole, torch.ones_like(whole), torch.stack((level, middle - whole), -1))

    def about_eighths(self, eighths: Tensor, level: Tensor) -> Shifted:
        """Rows of the table, int32, of integer middles in eighths and levels, whatever they are."""
        whole = torch.floor((eighths + _EIGHTHS // 2) / _EIGHTHS)
        rest = eighths - _EIGHTHS * whole
        row = level.clamp(0, self.levels - 1) * _SHIFTS + rest.abs()
        return Shifted(whole.float(), torch.where(rest < 0, -1.0, 1.0), row.to(torch.int32))

    def likelihood(self, symbols: Tensor, index: Tensor) -> Tensor:
        """Probability of each (possibly noisy) symbol."""
        if index.is_floating_point():
            level, middle = index.unbind(-1)
        else:
            level, middle = index // _SHIFTS, (index % _SHIFTS) / _EIGHTHS
        level = self.level_bound(level.float()).clamp(max=self.levels - 1)
        return self.model._likelihood(symbols, self._scales.scale(level), middle)

    @torch.no_grad()
    def update(self) -> None:
        """Build the rANS tables."""
        self.model.update()


_KINDS = {"gaussian": GaussianConditional, "laplace": Laplace, "mixture": Mixture}


class ConditionalPrior(_CodingTables):
    """A zero-mean density whose scale is picked from a table by an integer index.

    One instance serves every latent of a codec.

    Args:
        distribution: ``gaussian``, ``laplace``, or ``mixture`` of two Gaussians, whose shape is
            learned (densities.py).
        scale_min, scale_max, levels: of the table of scales.
        skip_scale: symbols with a scale up to this are not coded but taken as zero; nor are those
            with the smallest scale of the table.
    """

    def __init__(
        self,
        distribution: str = "gaussian",
        scale_min: float = 0.11,
        scale_max: float = 64.0,
        levels: int = 64,
        skip_scale: float = 0.0,
    ):
        super().__init__()
        self.levels = levels
        self._scales = ScaleTable(scale_min, scale_max, levels)
        kind = _KINDS[distribution]
        table = self._scales.entries()
        self.first_coded = max(1, sum(scale <= skip_scale for scale in table))
        # The bound is what DCVC-TCM clamps to; a table index never reaches below scale_min.
        self.model = kind(table, scale_bound=1e-5, tail_mass=TAIL_MASS)
        self.index_bound = LowerBound(0.0)
        self.scale_bound = LowerBound(1e-5)

    def scale(self, index: Tensor) -> Tensor:
        """The scale at a (real or integer) table index; not clamped to the table."""
        return self._scales.scale(index)

    def index_of(self, scale: Tensor) -> Tensor:
        """The real-valued table index of a scale, taken as at least 1e-5: inverts :meth:`scale`."""
        return self._scales.index_of(self.scale_bound(scale.float()))

    def clamp(self, index: Tensor) -> Tensor:
        """Keep a real index on the table; below it, only gradients that lead back pass."""
        return self.index_bound(index).clamp(max=self.levels - 1)

    def likelihood(self, symbols: Tensor, index: Tensor) -> Tensor:
        """Probability of each (possibly noisy) zero-centred symbol at a real or integer index."""
        return self.model._likelihood(symbols, self.scale(index))

    @torch.no_grad()
    def update(self) -> None:
        """Build the rANS tables."""
        self.model.update()


def make_prior(config: EntropyConfig) -> ConditionalPrior:
    """The table of densities that a frame codec's latents share."""
    return ConditionalPrior(
        config.distribution, config.scale_min, config.scale_max, config.levels, config.skip_scale
    )
