"""Coding the motion: flow -> latent -> decoded flow."""

import torch
import torch.nn.functional as F
from compressai.layers import GDN
from torch import Tensor, nn

from codec.config import InterConfig, ModelConfig
from codec.entropy.gains import half_log_range
from codec.entropy.latent import NOTHING, Coder, LatentCodec, Past
from codec.entropy.priors import ConditionalPrior
from codec.layers import (
    ResBlock,
    ResidualStack,
    conv3,
    linear_trunk,
    subpixel_conv1,
    transposed_conv3,
)


class TcmMotionEncoder(nn.Sequential):
    """2 -> channels at 1/16: DCVC-TCM's motion encoder."""

    def __init__(self, channels: int):
        layers: list[nn.Module] = []
        width = 2
        for _ in range(3):
            layers += [
                conv3(width, channels, 2),
                GDN(channels),
                ResBlock(channels, first_activation=False),
                nn.LeakyReLU(0.1),
            ]
            width = channels
        super().__init__(*layers, conv3(channels, channels, 2))


class TcmMotionDecoder(nn.Sequential):
    """channels at 1/16 -> 2: DCVC-TCM's motion decoder."""

    def __init__(self, channels: int):
        super().__init__(
            transposed_conv3(channels, channels),
            nn.LeakyReLU(0.1),
            ResBlock(channels, first_activation=False),
            GDN(channels, inverse=True),
            transposed_conv3(channels, channels),
            GDN(channels, inverse=True),
            transposed_conv3(channels, channels),
            GDN(channels, inverse=True),
            transposed_conv3(channels, 2),
        )


class LiteMotionEncoder(nn.Module):
    """Flow at 1/2 -> latent at 1/16: everything happens at 1/8 and below."""

    def __init__(self, channels: int, latent: int):
        super().__init__()
        self.enter = conv3(2 * 16, channels)
        self.body = ResidualStack(channels, 1)
        self.down = conv3(channels, latent, 2)
        linear_trunk(self.enter, self.down)

    def forward(self, flow: Tensor) -> Tensor:
        return self.down(self.body(self.enter(F.pixel_unshuffle(flow, 4))))


class LiteMotionDecoder(nn.Module):
    """Latent at 1/16 -> flow at 1/2."""

    def __init__(self, channels: int, latent: int):
        super().__init__()
        self.up = subpixel_conv1(latent, channels)
        self.body = ResidualStack(channels, 1)
        self.leave = conv3(channels, 2 * 16)
        linear_trunk(self.up, self.leave)

    def forward(self, y: Tensor) -> Tensor:
        return F.pixel_shuffle(self.leave(self.body(self.up(y))), 4)


class MotionCodec(nn.Module):
    """Codes a flow field; ``forward`` is encoder, decoder, estimate and training alike."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        config: InterConfig = model.inter
        motion = config.motion
        self.scale = config.flow.top
        span = half_log_range(model.lambda_min, model.lambda_max)
        if config.family == "tcm":
            self.encoder: nn.Module = TcmMotionEncoder(motion.latent)
            self.decoder: nn.Module = TcmMotionDecoder(motion.latent)
        else:
            self.encoder = LiteMotionEncoder(motion.channels, motion.latent)
            self.decoder = LiteMotionDecoder(motion.channels, motion.latent)
        self.latent = LatentCodec(
            "motion",
            motion.latent,
            motion.hyper,
            motion.hyper_widths,
            exact=config.entropy.scale_path == "exact",
            scale_width=motion.scale_width,
            previous_symbols=config.previous_symbols,
            gains=config.gains,
            log_span=0.5 * span,  # motion gets coarser more slowly than the residual
            filters=config.entropy.factorized_filters,
            history=config.entropy.hyper_history,
            history_width=config.entropy.history_width,
        )

    def forward(
        self,
        flow: Tensor | None,
        coder: Coder,
        prior: ConditionalPrior,
        quality: Tensor,
        size: tuple[int, int],
        past: Past = NOTHING,
    ) -> tuple[Tensor, Past]:
        """Code the flow.

        Args:
            flow: [B, 2, H / scale, W / scale] in pixels of its grid, None when decoding.
            size: the latent's (h, w), at 1/16 of the frame.
            past: what the previous frame's motion left.

        Returns:
            The decoded flow, like ``flow``, and what its motion leaves to the next frame's.
        """
        y = None if coder.decoding else self.encoder(flow)
        return self.code(y, coder, prior, quality, size, past)

    def code(
        self,
        y: Tensor | None,
        coder: Coder,
        prior: ConditionalPrior,
        quality: Tensor,
        size: tuple[int, int],
        past: Past = NOTHING,
    ) -> tuple[Tensor, Past]:
        """Code a flow's latent, ``encoder(flow)``; the rest as :meth:`forward`."""
        y_hat, left = self.latent(y, coder, prior, quality, size, past=past)
        return self.flow_of(y_hat), left

    def flow_of(self, y_hat: Tensor) -> Tensor:
        """The flow that a decoded latent stands for."""
        # Half precision would round a motion of 10 pixels to a sixteenth of a pixel.
        with torch.autocast(y_hat.device.type, enabled=False):
            return self.decoder(y_hat)
