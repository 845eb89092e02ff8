"""Giving new latent channels something to say, where a codec is wider than the one it begins as.

A new latent that is trained by its rate from the start stays silent: as long as it is always
rounded to zero it is worth nothing, and the rate drives its scale to the table's least. So first it
is neither rounded nor priced, until it says what is left of the error. Then it is rounded and pays
``log2(1 + 12 r^2) / 2`` bits for a residual of r steps, as if its density always fitted, until it
says what is worth its bits. (Noise in the place of rounding silences it: what is new is nothing in
most places, and there noise is all it would bring.) Then the densities begin where the residuals
are (:func:`begin_densities`), and training goes on as always. Measured in docs/decisions.md.
"""

from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from codec.entropy.coders import Prior, RateModel
from codec.entropy.latent import LatentCodec
from codec.layers import round_straight_through
from codec.video_codec import VideoCodec

PARTS = {"intra": "intra.latent", "residual": "inter.latent", "motion": "inter.motion.latent"}
_LEAST_INDEX = 2.0
_LEAST_SIZE = 0.35  # at the best quality: narrower densities are not coded at all


class NewLatents(RateModel):
    """A RateModel to which channels beyond the first so many of a part are new.

    Args:
        rand_like: see RateModel.
        old: how many channels of each part are not new; parts that are not named have none.
        squares: the new channels' mean squared residuals are left here for each part, [B, C].
        priced: whether they are rounded and priced yet.
    """

    def __init__(
        self,
        rand_like: Callable[[Tensor], Tensor],
        old: Mapping[str, int],
        squares: dict[str, list[Tensor]],
        priced: bool,
    ) -> None:
        super().__init__(rand_like)
        self._old = old
        self._squares = squares
        self._priced = priced

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        first = self._old.get(part, residual.shape[1])
        known = super().code(residual[:, :first], index[:, :first], prior, part)
        new = residual[:, first:].float()
        if not new.shape[1]:
            return known
        self._squares.setdefault(part, []).append(new.detach().square().mean((2, 3)))
        if self._priced:
            bits = 0.5 * torch.log2(1 + 12 * new.square()).flatten(1).sum(1)
            self.bits[part] = self.bits[part] + bits
            new = round_straight_through(new)
        return torch.cat((known, new), 1)


def latent_channels(codec: VideoCodec) -> dict[str, int]:
    """Channels of the latent of each part."""
    return {part: codec.get_submodule(path).latent for part, path in PARTS.items()}


def only_new(
    codec: nn.Module, shapes: Mapping[str, Iterable[int]], free: str
) -> list[nn.Parameter]:
    """Let learn what is new alone: whole parameters, and the new parts of those the parent has.

    Args:
        shapes: of the parent's tensors by name.
        free: parameters whose name begins so learn wholly.
    """
    learning = []
    for name, parameter in codec.named_parameters():
        shape = tuple(shapes.get(name, ()))
        # What is of another form in the parent is not taken over at all.
        taken = len(shape) == parameter.dim() and all(map(int.__le__, shape, parameter.shape))
        whole = name.startswith(free) or not taken
        parameter.requires_grad_(
            (whole or shape != tuple(parameter.shape)) and not name.endswith("quantiles")
        )
        if not parameter.requires_grad:
            continue
        learning.append(parameter)
        if not whole:
            mask = torch.ones_like(parameter)
            mask[tuple(slice(0, side) for side in shape)] = 0
            parameter.register_hook(lambda gradient, mask=mask: gradient * mask)
    return learning


@torch.no_grad()
def begin_densities(
    codec: VideoCodec, old: Mapping[str, int], squares: Mapping[str, Tensor]
) -> None:
    """Begin the new channels' densities at their residuals' size.

    Args:
        squares: mean squared residual of the new channels at the best quality, [C] for each part.
    """
    for part, mean in squares.items():
        latent: LatentCodec = codec.get_submodule(PARTS[part])
        prior = codec.intra.prior if part == "intra" else codec.inter.prior
        first = old[part]
        path = latent.scale_path
        # A knot of a lower quality has residuals as much smaller as its gain is.
        gains = latent.gain.log_gain[:, first:]
        sizes = mean.sqrt().clamp(min=_LEAST_SIZE) * torch.exp(
            gains - gains[-1:]
        )  # [knots, new channels]
        path.offset[:, first:] = prior.index_of(sizes).clamp(min=_LEAST_INDEX)
