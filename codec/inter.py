"""The P-frame codec, the skeleton of DCVC-TCM.

    frame, reference --flow net--> flow --motion codec--> decoded flow
    reference, decoded flow --compensation--> contexts
    frame, contexts --contextual encoder--> y --latent codec (temporal prior)--> y_hat
    y_hat, contexts --contextual decoder--> frame, feature for the next frame

One forward serves training, estimation, encoding and decoding: what differs is the coder.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec import lite, tcm
from codec.coding_descent import descended_by_coding, weighted_error
from codec.compensation.pipeline import Compensation, Contexts, Older
from codec.config import FlowConfig, ModelConfig
from codec.effort import FrameEffort
from codec.entropy.coders import RateEstimate
from codec.entropy.gains import half_log_range, lambda_of
from codec.entropy.latent import NOTHING, Coder, LatentCodec, Past
from codec.entropy.priors import ConditionalPrior, make_prior
from codec.flow import SpyNet, to_full_size
from codec.flow_correlation import CorrelationFlow
from codec.graphed import Graphed
from codec.layers import warp
from codec.motion import MotionCodec
from codec.motion_descent import descended_motion
from codec.motion_refine import left_over, refined


@dataclass(frozen=True)
class ReferenceState:
    """What a decoder remembers from one frame to the next.

    Attributes:
        frame: the decoded frame [B, 3, H, W], clamped to [0, 1].
        feature: the propagated feature, None after an I frame.
        motion_symbols, symbols: of the last P frame, None after an I frame.
        motion_hypers, hypers: of the last two, where the model looks at them (HyperHistory).
        older: the reference before this one, where the model looks at two; None after an I frame.
        begins: in training, which samples [B] of a batch come from an I frame while others go on:
            the feature says nothing of them. None: all alike.
    """

    frame: Tensor
    feature: Tensor | None = None
    motion_symbols: Tensor | None = None
    symbols: Tensor | None = None
    motion_hypers: Tensor | None = None
    hypers: Tensor | None = None
    older: Older | None = None
    begins: Tensor | None = None

    @property
    def motion_past(self) -> Past:
        return Past(self.motion_symbols, self.motion_hypers)

    @property
    def past(self) -> Past:
        """Of the residual."""
        return Past(self.symbols, self.hypers)

    def tensors(self) -> list[tuple[str, Tensor]]:
        """What there is of it by name, but for ``older`` and ``begins``."""
        values = vars(self).items()
        return [(k, v) for k, v in values if isinstance(v, Tensor) and k != "begins"]

    def take(self, samples: slice) -> "ReferenceState":
        """These samples alone, of a state without ``older`` and ``begins``."""
        return ReferenceState(**{name: value[samples] for name, value in self.tensors()})

    def detach(self) -> "ReferenceState":
        values = {name: value.detach() for name, value in self.tensors()}
        older = self.older and self.older.detach()
        return replace(self, **values, older=older)

    def or_begin(self, begins: Tensor, first: "ReferenceState") -> "ReferenceState":
        """This state, but for the samples ``begins`` [B] that of their I frames ``first``."""
        chosen = begins.view(-1, 1, 1, 1)
        # No symbols count as zeros.
        others = ("motion_symbols", "symbols", "motion_hypers", "hypers")
        left = {k: torch.where(chosen, 0, v) for k, v in self.tensors() if k in others}
        frame = torch.where(chosen, first.frame, self.frame)
        return ReferenceState(frame, self.feature, **left, begins=begins)


@dataclass
class InterOutput:
    """A coded P frame.

    Attributes:
        frame: decoded, not clamped [B, 3, H, W].
        warped_frame: the reference warped by the decoded flow.
        estimated_flow: the encoder's flow before coding, None when decoding.
        flow: the decoded flow.
        contexts: fine to coarse.
        state: for the next frame.
    """

    frame: Tensor
    warped_frame: Tensor
    estimated_flow: Tensor | None
    flow: Tensor
    contexts: list[Tensor]
    state: ReferenceState


class GivenMotion(NamedTuple):
    """Motion from elsewhere for some samples: ``flow`` [B, 2, h, w] where ``taken`` [B] is true."""

    flow: Tensor
    taken: Tensor


def make_flow_net(config: FlowConfig) -> nn.Module:
    """The flow net that the configuration names; both have ``forward`` and ``pyramid``."""
    net = SpyNet if config.net == "spynet" else CorrelationFlow
    return net(config.levels, config.widths, config.kernel, config.top)


class InterCodec(nn.Module):
    """Codes a frame given the state that the last one left."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        config = model.inter
        self.full_size = config.family == "tcm"
        self.looks_at_two = "shifted" in config.compensation and config.shifted.references == 2
        self.prior = make_prior(config.entropy)
        self.flow = make_flow_net(config.flow)
        self.motion = MotionCodec(model)
        self.refine = config.motion.refine
        self.search = Graphed(partial(refined, top=self.flow.top, config=config.motion.refine))
        self.lambdas = model.lambda_min, model.lambda_max
        self.compensation = Compensation(config)
        attention = config.global_attention
        asks = "global" in config.compensation and attention.query == "coder"
        heads = attention.heads if asks else 0
        if self.full_size:
            width = config.channels[0]
            self.encoder: nn.Module = tcm.ContextualEncoder(width, config.latent, heads)
            self.decoder: nn.Module = tcm.ContextualDecoder(width, config.latent, heads)
            self.temporal_prior: nn.Module = tcm.TemporalPrior(width, config.latent)
            temporal = 2 * config.latent
        else:
            self.encoder = lite.PatchEncoder(
                config.channels, config.latent, config.depth, config.gains, config.contexts, heads
            )
            depths = config.decoder_depth or (config.depth, config.depth)
            self.decoder = lite.PatchDecoder(
                config.channels, config.latent, depths, config.gains, config.contexts, heads
            )
            self.temporal_prior = lite.TemporalPrior(config.contexts, config.temporal)
            temporal = config.temporal
        self.latent = LatentCodec(
            "residual",
            config.latent,
            config.hyper,
            config.hyper_widths,
            temporal=temporal,
            parameter_widths=config.parameter_widths,
            parameter_kernel=3 if self.full_size else config.parameter_kernel,
            hyper_out=config.hyper_out,
            exact=config.entropy.scale_path == "exact",
            scale_width=config.scale_width,
            previous_symbols=config.previous_symbols,
            gains=config.gains,
            log_span=half_log_range(model.lambda_min, model.lambda_max),
            filters=config.entropy.factorized_filters,
            passes=config.entropy.passes,
            pass_width=config.entropy.pass_width,
            history=config.entropy.hyper_history,
            history_width=config.entropy.history_width,
        )

    def code_motion(
        self,
        frame: Tensor | None,
        state: ReferenceState,
        coder: Coder,
        quality: Tensor,
        size: tuple[int, int],
        given: GivenMotion | None = None,
        effort: FrameEffort | None = None,
    ) -> tuple[Tensor | None, Tensor, Past]:
        """Estimate and code the motion: (estimated flow, decoded flow, what it leaves).

        Args:
            given: what is coded instead of the flow net's estimate, in training.
            effort: what an encoder tries to make the motion cheaper; None: nothing.
        """
        known = self.prior, quality, size
        if coder.decoding:
            return None, *self.motion(None, coder, *known, state.motion_past)
        estimated = self.flow(frame, state.frame)
        if given is not None:
            estimated = torch.where(given.taken.view(-1, 1, 1, 1), given.flow, estimated)
        if given is not None or coder.differentiable:
            return estimated, *self.motion(estimated, coder, *known, state.motion_past)
        if self.refine is not None:
            estimated = self._cheapest(frame, state, quality, size, estimated)
        if effort is None or not effort.steps:
            return estimated, *self.motion(estimated, coder, *known, state.motion_past)
        y = self.motion.encoder(estimated)
        if effort.steps.motion:
            left = partial(self._left_over, frame, state.frame, lambda_of(quality, *self.lambdas))
            within = *known, state.motion_past
            y = descended_motion(self.motion, y, left, *within, effort.steps.motion)
        if effort.steps.ahead:
            y = self._motion_by_coding(y, frame, state, quality, size, effort)
        return estimated, *self.motion.code(y, coder, *known, state.motion_past)

    def _motion_by_coding(
        self,
        y: Tensor,
        frame: Tensor,
        state: ReferenceState,
        quality: Tensor,
        size: tuple[int, int],
        effort: FrameEffort,
    ) -> Tensor:
        """A latent of the motion by which the frame costs less."""
        rate_lambda = lambda_of(quality, *self.lambdas)

        def errors(y_hat: Tensor, _: Past, coder: Coder) -> Tensor:
            motion = None, self.motion.flow_of(y_hat), NOTHING
            coded = self._code_residual(frame, state, motion, coder, quality, size)
            return weighted_error(coded.frame, frame, rate_lambda, effort.shown)

        known = quality, size, None, state.motion_past
        steps = effort.steps.ahead
        return descended_by_coding(self.motion.latent, y, self.prior, known, errors, steps)

    def _cheapest(
        self,
        frame: Tensor,
        state: ReferenceState,
        quality: Tensor,
        size: tuple[int, int],
        estimated: Tensor,
    ) -> Tensor:
        """The estimated flow or one that a search found: whichever is cheapest when coded."""
        flows = [estimated, *self.search(frame, state.frame, estimated)]
        rate_lambda = lambda_of(quality, *self.lambdas)

        def price_of(flow: Tensor) -> float:
            trial = RateEstimate()
            decoded, _ = self.motion(flow, trial, self.prior, quality, size, state.motion_past)
            left = self._left_over(frame, state.frame, rate_lambda, decoded)
            return sum(trial.bits.values()) + float(left)

        return min(flows, key=price_of)

    def _left_over(
        self, frame: Tensor, reference: Tensor, rate_lambda: Tensor, flow: Tensor
    ) -> Tensor:
        """Bits that a decoded flow leaves to the residual, about: see ``left_over``."""
        return left_over(warp(reference, to_full_size(flow, self.flow.top)), frame, rate_lambda)

    def forward(
        self,
        frame: Tensor | None,
        state: ReferenceState,
        coder: Coder,
        quality: Tensor,
        size: tuple[int, int],
        given: GivenMotion | None = None,
        effort: FrameEffort | None = None,
    ) -> InterOutput:
        """Code a frame.

        Args:
            frame: [B, 3, H, W] in [0, 1], padded to the codec's multiple; None when decoding.
            state: of the last frame, at the padded size.
            quality: [B] indices 0..63.
            size: the latents' (H / 16, W / 16).
            given: see :meth:`code_motion`.
            effort: what an encoder tries; None: nothing.
        """
        motion = self.code_motion(frame, state, coder, quality, size, given, effort)
        return self._code_residual(frame, state, motion, coder, quality, size, effort)

    def _ahead(
        self, state: ReferenceState, size: tuple[int, int], effort: FrameEffort
    ) -> Callable[[ReferenceState, Coder], Tensor]:
        """The following frame, to be coded again and again from what this one may turn out to be.

        Args:
            state: that this frame would leave; from there the motion is taken, once and for all.
            effort: with a following frame.

        Returns:
            (state, coder) -> what the following frame's error is worth in bits, a scalar; the
            symbols of its residual go to the coder.
        """
        frame, quality = effort.following, effort.following_quality
        motion = self.code_motion(frame, state, RateEstimate(), quality, size)
        rate_lambda = lambda_of(quality, *self.lambdas)

        def error(state: ReferenceState, coder: Coder) -> Tensor:
            coded = self._code_residual(frame, state, motion, coder, quality, size)
            return weighted_error(coded.frame, frame, rate_lambda, effort.shown)

        return error

    def _code_residual(
        self,
        frame: Tensor | None,
        state: ReferenceState,
        motion: tuple[Tensor | None, Tensor, Past],
        coder: Coder,
        quality: Tensor,
        size: tuple[int, int],
        effort: FrameEffort | None = None,
    ) -> InterOutput:
        """All that comes after the motion, which is what :meth:`code_motion` returned."""
        estimated, flow, motion_left = motion
        contexts = self.compensation(state.frame, state.feature, flow, state.older, state.begins)
        y = None if coder.decoding else self._analyse(frame, contexts, quality)
        temporal = self.temporal_prior(contexts.scales)
        known = quality, size, temporal, state.past
        older = Older(contexts.references, flow) if self.looks_at_two else None

        def outcome(y_hat: Tensor, left: Past) -> tuple[Tensor, ReferenceState]:
            decoded, feature = self._synthesise(y_hat, contexts, quality)
            return decoded, ReferenceState(
                decoded.clamp(0, 1),
                feature,
                motion_left.symbols,
                left.symbols,
                motion_left.hypers,
                left.hypers,
                older,
            )

        if effort is not None and effort.steps.ahead:
            steps = effort.steps.ahead
            y = self.descended(self.latent, y, self.prior, known, outcome, frame, effort, steps)
        decoded, after = outcome(*self.latent(y, coder, self.prior, *known))
        return InterOutput(decoded, contexts.warped_frame, estimated, flow, contexts.scales, after)

    def descended(
        self,
        latent: LatentCodec,
        y: Tensor,
        prior: ConditionalPrior,
        known: tuple,
        outcome: Callable[[Tensor, Past], tuple[Tensor, ReferenceState]],
        frame: Tensor,
        effort: FrameEffort,
        steps: int,
    ) -> Tensor:
        """A cheaper latent of a frame that this codec's frames refer to: see coding_descent.

        Args:
            latent, y, prior, known: of this codec's frames or of I frames.
            outcome: (y_hat, what it leaves) -> the decoded frame and the state that it leaves.
            frame: the true one, padded.
        """
        quality, size = known[:2]
        rate_lambda = lambda_of(quality, *self.lambdas)
        ahead = None
        if effort.following is not None:
            _, after = outcome(*latent(y, RateEstimate(), prior, *known))
            ahead = self._ahead(after, size, effort)

        def errors(y_hat: Tensor, left: Past, coder: Coder) -> Tensor:
            decoded, state = outcome(y_hat, left)
            error = weighted_error(decoded, frame, rate_lambda, effort.shown)
            return error if ahead is None else error + ahead(state, coder)

        return descended_by_coding(latent, y, prior, known, errors, steps)

    def _analyse(self, frame: Tensor, contexts: Contexts, quality: Tensor) -> Tensor:
        """y of the frame (DCVC-TCM) or of what motion compensation left of it (lite)."""
        if self.full_size:
            return self.encoder(frame, contexts.scales, contexts.references)
        return self.encoder(
            frame - contexts.warped_frame, quality, contexts.scales, contexts.references
        )

    def _synthesise(
        self, y_hat: Tensor, contexts: Contexts, quality: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The decoded frame and the propagated feature."""
        if self.full_size:
            return self.decoder(y_hat, contexts.scales, contexts.references)
        added, feature = self.decoder(y_hat, quality, contexts.scales, contexts.references)
        return contexts.warped_frame + added, feature
