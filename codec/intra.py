"""The I-frame codec: an image codec without auto-regression."""

import torch.nn.functional as F
from torch import Tensor, nn

from codec.config import ModelConfig
from codec.entropy.gains import half_log_range, make_gain
from codec.entropy.latent import Coder, LatentCodec
from codec.entropy.priors import make_prior
from codec.layers import ResidualStack, conv3, linear_trunk, subpixel_conv1


class _IntraEncoder(nn.Module):
    """4x4 patches -> 1/4 -> 1/8 -> y at 1/16: a linear trunk with residual blocks on it."""

    def __init__(self, channels: tuple[int, int], depth: int, latent: int, gains: bool):
        super().__init__()
        fine, coarse = channels
        self.enter = conv3(3 * 16, fine)
        self.gain = make_gain(gains, fine)
        self.fine_body = ResidualStack(fine, depth)
        self.down = conv3(fine, coarse, 2)
        self.coarse_body = ResidualStack(coarse, depth)
        self.leave = conv3(coarse, latent, 2)
        linear_trunk(self.enter, self.down, self.leave)

    def forward(self, frame: Tensor, quality: Tensor) -> Tensor:
        x = self.enter(F.pixel_unshuffle(frame - 0.5, 4))
        x = self.fine_body(x * self.gain(quality).to(x.dtype))
        return self.leave(self.coarse_body(self.down(x)))


class _IntraDecoder(nn.Module):
    """The encoder's mirror, with one residual block more at 1/8, where it is cheapest."""

    def __init__(self, channels: tuple[int, int], depth: int, latent: int, gains: bool):
        super().__init__()
        fine, coarse = channels
        self.up1 = subpixel_conv1(latent, coarse)
        self.coarse_body = ResidualStack(coarse, depth + 1)
        self.up2 = subpixel_conv1(coarse, fine)
        self.gain = make_gain(gains, fine)
        self.fine_body = ResidualStack(fine, depth)
        self.leave = conv3(fine, 3 * 16)
        linear_trunk(self.up1, self.up2, self.leave)

    def forward(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        x = self.up2(self.coarse_body(self.up1(y_hat)))
        x = self.fine_body(x * self.gain(quality).to(x.dtype))
        return F.pixel_shuffle(self.leave(x), 4).float() + 0.5


class IntraCodec(nn.Module):
    """Codes one frame by itself."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        config = model.intra
        self.prior = make_prior(config.entropy)
        self.encoder = _IntraEncoder(config.channels, config.depth, config.latent, config.gains)
        self.decoder = _IntraDecoder(config.channels, config.depth, config.latent, config.gains)
        self.latent = LatentCodec(
            "intra",
            config.latent,
            config.hyper,
            config.hyper_widths,
            parameter_widths=config.parameter_widths,
            hyper_out=config.hyper_out,
            exact=config.entropy.scale_path == "exact",
            scale_width=config.scale_width,
            gains=config.gains,
            log_span=half_log_range(model.lambda_min, model.lambda_max),
            filters=config.entropy.factorized_filters,
        )

    def forward(
        self,
        frame: Tensor | None,
        coder: Coder,
        quality: Tensor,
        size: tuple[int, int],
    ) -> Tensor:
        """Code a frame.

        Args:
            frame: [B, 3, H, W] in [0, 1], sides divisible by 16; None when decoding.
            size: the latent's (H / 16, W / 16).

        Returns:
            The decoded frame [B, 3, H, W], not clamped.
        """
        y = None if coder.decoding else self.encoder(frame, quality)
        y_hat, _ = self.latent(y, coder, self.prior, quality, size)
        return self.decoder(y_hat, quality)
