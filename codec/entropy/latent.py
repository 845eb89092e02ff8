"""Coding one latent with its hyperprior: used for the motion, the residual and the intra frame.

    y --(hyper encoder)--> z --code--> z_hat --(hyper decoder)--+--> means    (float)
                                        |     temporal prior ---+
                                        +--(scale path)------------> indices  (exact integers)
    symbols = code((y - mean) * gain);  y_hat = mean + symbols / gain

The decoder is the same function with y = None. A P frame's z may be expected from former
frames' (hyper_history.py). In two passes (second_pass.py) the first half's symbols move the means
and indices of the second half.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.entropy.coders import RateEstimate, RateModel, StreamDecoder, StreamEncoder
from codec.entropy.gains import make_gain
from codec.entropy.hyper_history import HyperHistory
from codec.entropy.priors import ConditionalPrior, FactorizedPrior, ShiftedPrior
from codec.entropy.scale_path import ExactScalePath, ScaleInputs
from codec.entropy.second_pass import SecondPass, first_places, packed, spread
from codec.layers import conv1, conv3, pad_to_multiple, transposed_conv3

Coder = RateModel | RateEstimate | StreamEncoder | StreamDecoder


class Past(NamedTuple):
    """What the last frame's latent leaves to the next one's.

    symbols: of its y, [B, M, h, w]. hypers: of its z and the one before, where z has a history
    (HyperHistory.joined). None: there is nothing, as after an I frame.
    """

    symbols: Tensor | None = None
    hypers: Tensor | None = None


NOTHING = Past()


class Given(NamedTuple):
    """What is known of y once z is coded.

    gain, means: ``symbols = round((y - means) * gain)``. index: of the density of each element in
    the prior's table. hypers: what z leaves, see Past.
    """

    gain: Tensor
    means: Tensor
    index: Tensor
    hypers: Tensor | None


class _AfterHyper(NamedTuple):
    """What z and the temporal prior say of y.

    features: the parameter net's input. inputs: of the exact scale path, which a second pass takes
    further; None where there is none.
    """

    given: Given
    features: Tensor
    inputs: ScaleInputs | None


class LatentCodec(nn.Module):
    """A mean-scale hyperprior without auto-regression (Minnen et al. 2018), as in DCVC-TCM.

    Args:
        part: the name that bits are counted under; z's are under ``<part>_hyper``.
        latent: channels M of y.
        hyper: channels N of z.
        hyper_widths: channels of the hyper decoder's two inner layers.
        temporal: channels of the temporal prior that joins the hyper decoder's output, 0 for none.
        parameter_widths: inner channels of the parameter net; None: the hyper decoder's output
            already is the parameters (only without a temporal prior).
        parameter_kernel: of the parameter net's last convolution.
        hyper_out: channels of the hyper decoder's output where a parameter net follows.
        exact: integer scale path, else scales come from the float parameter net.
        scale_width: hidden channels of the exact path.
        previous_symbols: whether the exact path sees the last frame's symbols.
        gains: learned gains over the quality index.
        log_span, gain: span and middle of the latent's gain (see QualityGain).
        filters: of the factorised prior.
        passes: 1, or 2 with the exact path.
        pass_width: hidden channels of a second pass.
        history: whether z is expected from the last two frames' z; history_width: hidden channels.
    """

    def __init__(
        self,
        part: str,
        latent: int,
        hyper: int,
        hyper_widths: tuple[int, int],
        *,
        temporal: int = 0,
        parameter_widths: tuple[int, ...] | None = None,
        parameter_kernel: int = 3,
        hyper_out: int = 0,
        exact: bool = True,
        scale_width: int = 48,
        previous_symbols: bool = False,
        gains: bool = True,
        log_span: float = 0.0,
        gain: float = 4.0,
        filters: tuple[int, ...] = (3, 3, 3),
        passes: int = 1,
        pass_width: int = 96,
        history: bool = False,
        history_width: int = 48,
    ):
        super().__init__()
        if passes == 2 and not exact:
            raise ValueError("a second pass needs the exact scale path")
        if temporal and parameter_widths is None:
            raise ValueError("a temporal prior needs a parameter net to join it")
        self.part = part
        self.latent = latent
        self.hyper_encoder = nn.Sequential(
            conv3(latent, hyper),
            nn.LeakyReLU(0.01),
            conv3(hyper, hyper, 2),
            nn.LeakyReLU(0.01),
            conv3(hyper, hyper, 2),
        )
        parameters = latent if exact else 2 * latent
        out = parameters if parameter_widths is None else hyper_out
        self.hyper_decoder = nn.Sequential(
            transposed_conv3(hyper, hyper_widths[0]),
            nn.LeakyReLU(0.01),
            transposed_conv3(hyper_widths[0], hyper_widths[1]),
            nn.LeakyReLU(0.01),
            transposed_conv3(hyper_widths[1], out, stride=1),
        )
        if parameter_widths is None:
            self.parameter_net = None
        else:
            layers: list[nn.Module] = []
            width = temporal + hyper_out
            for inner in parameter_widths:
                layers += [conv3(width, inner), nn.LeakyReLU(0.01)]
                width = inner
            last = conv3 if parameter_kernel == 3 else conv1
            self.parameter_net = nn.Sequential(*layers, last(width, parameters))
        self.history = HyperHistory(hyper, history_width) if history else None
        self.z_prior = ShiftedPrior() if history else FactorizedPrior(hyper, filters)
        self.gain = make_gain(gains, latent, log_span, gain)
        # What z says about the scaled latent is brought back to the unscaled one.
        self.hyper_gain = make_gain(gains, out, -log_span, 1 / gain)
        self.scale_path = (
            ExactScalePath(hyper, latent, scale_width, previous_symbols) if exact else None
        )

        self.second = None
        if passes == 2:
            features = out if parameter_widths is None else temporal + hyper_out
            joined = self.scale_path.joined
            self.second = SecondPass(latent, features, joined, pass_width, scale_width)

    def update(self) -> None:
        """Build the tables that the checkpoint keeps."""
        self.z_prior.update()
        if self.history is not None:
            self.history.update()
        if self.scale_path is not None:
            self.scale_path.update()

    def forward(
        self,
        y: Tensor | None,
        coder: Coder,
        prior: ConditionalPrior,
        quality: Tensor,
        size: tuple[int, int],
        temporal: Tensor | None = None,
        past: Past = NOTHING,
    ) -> tuple[Tensor, Past]:
        """Code y.

        Args:
            y: [B, M, h, w], None when decoding.
            coder: where symbols go or come from.
            prior: the table of densities for y.
            quality: [B] indices 0..63.
            size: (h, w).
            temporal: [B, T, h, w] float prior from the contexts.
            past: what the previous frame's latent left.

        Returns:
            y_hat [B, M, h, w] and what is left to the next frame: its symbols are integers as
            floats, straight-through in training.
        """
        # The entropy path is never in reduced precision, whatever the transforms run in.
        with torch.autocast(quality.device.type, enabled=False):
            return self._code(y, coder, prior, quality, size, temporal, past)

    def given(
        self,
        y: Tensor | None,
        coder: Coder,
        prior: ConditionalPrior,
        quality: Tensor,
        size: tuple[int, int],
        temporal: Tensor | None = None,
        past: Past = NOTHING,
    ) -> Given:
        """Code z alone and tell what follows for y. Arguments as of :meth:`forward`.

        In two passes the second one's elements depend on the first one's symbols: those of ``y``.
        """
        known = prior, quality, size, temporal, past
        after = self._after_hyper(y, coder, *known)
        if self.second is None:
            return after.given
        places = first_places(self.latent, *size, quality.device)
        first = RateEstimate().code(*self._elements(y, after.given, places), prior, self.part)
        return self._merged(after, spread(first, places), places, coder.differentiable)

    def _after_hyper(
        self,
        y: Tensor | None,
        coder: Coder,
        prior: ConditionalPrior,
        quality: Tensor,
        size: tuple[int, int],
        temporal: Tensor | None,
        past: Past,
    ) -> _AfterHyper:
        height, width = size
        gain = self.gain(quality)
        z = None
        if not coder.decoding:
            z = self.hyper_encoder(pad_to_multiple(y.float() * gain, 4))
        z = _canonical(self._coded_hyper(z, coder, quality, size, past))
        hypers = None if self.history is None else self.history.joined(z, past.hypers)

        features = self.hyper_decoder(z)[..., :height, :width] * self.hyper_gain(quality)
        out = features
        if self.parameter_net is not None:
            if temporal is not None:
                features = torch.cat((temporal.float(), features), 1)
            out = self.parameter_net(features)
        if self.scale_path is None:
            scales, means = out.chunk(2, 1)
            given = Given(gain, means, prior.index_of(scales), hypers)
            return _AfterHyper(given, features, None)
        path = self.scale_path
        take = path.inputs if coder.differentiable else path.exact_inputs
        inputs = take(z, past.symbols, quality).cut(height, width)
        index = inputs.index if coder.differentiable else path.rounded(inputs)
        return _AfterHyper(Given(gain, out, index, hypers), features, inputs)

    def _coded_hyper(
        self,
        z: Tensor | None,
        coder: Coder,
        quality: Tensor,
        size: tuple[int, int],
        past: Past,
    ) -> Tensor:
        """The symbols of z, [B, N, h, w], for a latent of ``size``."""
        part = f"{self.part}_hyper"
        size = tuple(-(-side // 4) for side in size)
        if self.history is None:
            index = self.z_prior.index(quality.shape[0], *size, quality.device)
            return coder.code(z, index, self.z_prior, part)
        known = past.hypers, quality, size
        if coder.differentiable:
            whole, sign, index = self.z_prior.about(*self.history(*known))
        else:
            whole, sign, index = self.z_prior.about_eighths(*self.history.exact(*known))
        rest = None if z is None else (z - whole) * sign
        return whole + sign * coder.code(rest, index, self.z_prior, part)

    def _code(
        self,
        y: Tensor | None,
        coder: Coder,
        prior: ConditionalPrior,
        quality: Tensor,
        size: tuple[int, int],
        *rest: Tensor | Past | None,
    ) -> tuple[Tensor, Past]:
        after = self._after_hyper(y, coder, prior, quality, size, *rest)
        gain, means, index, hypers = after.given
        if self.second is None:
            residual = None if coder.decoding else (y.float() - means) * gain
            symbols = _canonical(coder.code(residual, index, prior, self.part))
            return means + symbols / gain, Past(symbols, hypers)
        places = first_places(self.latent, *size, quality.device)
        first = spread(
            coder.code(*self._elements(y, after.given, places), prior, self.part), places
        )
        merged = self._merged(after, first, places, coder.differentiable)
        second = coder.code(*self._elements(y, merged, ~places), prior, self.part)
        symbols = _canonical(first + spread(second, ~places))
        return merged.means + symbols / gain, Past(symbols, hypers)

    def _elements(
        self, y: Tensor | None, given: Given, places: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """Residuals (None when decoding) and indices of one pass."""
        index = packed(given.index, places)
        if y is None:
            return None, index
        return packed((y.float() - given.means) * given.gain, places), index

    def _merged(
        self, after: _AfterHyper, first: Tensor, places: Tensor, differentiable: bool
    ) -> Given:
        """Of all elements, given the first pass's symbols at their places and zero elsewhere."""
        gain, means, index, hypers = after.given
        first = _canonical(first)
        moved = means + self.second.moved_means(first, after.features) / gain
        second = self.second.moved_index(first, after.inputs, exact=not differentiable)
        means, index = torch.where(places, means, moved), torch.where(places, index, second)
        return Given(gain, means, index, hypers)


def _canonical(symbols: Tensor) -> Tensor:
    """The same numbers in one memory layout, wherever they come from.

    A convolution may sum in another order for another layout, and an encoder's picture has to be
    its decoder's to the last bit on the same machine.
    """
    return symbols.clone(memory_format=torch.channels_last)
