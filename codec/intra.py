"""The I-frame codec: an image codec without auto-regression."""

from torch import Tensor, nn

from codec.config import ModelConfig
from codec.entropy.gains import half_log_range
from codec.entropy.latent import Coder, LatentCodec
from codec.entropy.priors import make_prior
from codec.lite import PatchDecoder, PatchEncoder


class IntraCodec(nn.Module):
    """Codes one frame by itself."""

    def __init__(self, model: ModelConfig):
        super().__init__()
        config = model.intra
        self.prior = make_prior(config.entropy)
        self.encoder = PatchEncoder(config.channels, config.latent, config.depth, config.gains)
        depths = config.decoder_depth or (config.depth + 1, config.depth)
        self.decoder = PatchDecoder(config.channels, config.latent, depths, config.gains)
        self.latent = LatentCodec(
            "intra",
            config.latent,
            config.hyper,
            config.hyper_widths,
            parameter_widths=config.parameter_widths,
            parameter_kernel=config.parameter_kernel,
            hyper_out=config.hyper_out,
            exact=config.entropy.scale_path == "exact",
            scale_width=config.scale_width,
            gains=config.gains,
            log_span=half_log_range(model.lambda_min, model.lambda_max),
            filters=config.entropy.factorized_filters,
            passes=config.entropy.passes,
            pass_width=config.entropy.pass_width,
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
        y = None if coder.decoding else self.analyse(frame, quality)
        return self.code(y, coder, quality, size)

    def code(
        self, y: Tensor | None, coder: Coder, quality: Tensor, size: tuple[int, int]
    ) -> Tensor:
        """Code a frame's latent, ``analyse(frame)``; the rest as :meth:`forward`."""
        y_hat, _ = self.latent(y, coder, self.prior, quality, size)
        return self.synthesise(y_hat, quality)

    def analyse(self, frame: Tensor, quality: Tensor) -> Tensor:
        return self.encoder(frame - 0.5, quality)

    def synthesise(self, y_hat: Tensor, quality: Tensor) -> Tensor:
        return self.decoder(y_hat, quality)[0] + 0.5
