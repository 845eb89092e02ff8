"""The one object that trains, estimates, encodes and decodes: intra and inter codec together."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from codec.config import ModelConfig
from codec.effort import NO_EFFORT, Effort, FrameEffort
from codec.entropy.coders import RateEstimate, StreamDecoder, StreamEncoder
from codec.entropy.gains import QUALITIES, lambda_of
from codec.entropy.latent import Coder, LatentCodec, Past
from codec.entropy.priors import ConditionalPrior
from codec.inter import GivenMotion, InterCodec, InterOutput, ReferenceState
from codec.intra import IntraCodec
from codec.layers import pad_to_multiple


class VideoCodec(nn.Module):
    """A learned video codec.

    Frames go in as [B, 3, H, W] RGB in [0, 1] of any size and come out at that size; inside they
    are padded right and bottom to :attr:`multiple`.
    """

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        self.intra = IntraCodec(config)
        self.inter = InterCodec(config)
        tcm = config.inter.family == "tcm"
        self.multiple = 64 if tcm else 16
        self.pad_mode = "zeros" if tcm else "replicate"

    def update(self) -> None:
        """Build the entropy tables that the checkpoint keeps (after training, never at decode)."""
        for module in self.modules():
            if isinstance(module, (ConditionalPrior, LatentCodec)):
                module.update()

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    @property
    def has_tables(self) -> bool:
        return self.intra.prior.has_tables and self.inter.latent.z_prior.has_tables

    def lambda_of(self, quality: Tensor | int) -> Tensor:
        """The Lagrangian that a quality index stands for."""
        return lambda_of(quality, self.config.lambda_min, self.config.lambda_max)

    def frame_quality(self, quality: Tensor | int, number: int) -> Tensor | int:
        """The quality index of a frame of a video of index ``quality``.

        Args:
            quality: 0..63, a number or a tensor of them.
            number: of the frame, counted from its I frame, which is 0.
        """
        pattern = self.config.pattern
        if number == 0:
            offset = pattern.intra
        else:
            offset = pattern.inter[(number - 1) % len(pattern.inter)]
        # Towards the ends of the range the offset shrinks, so that a better video always has better
        # frames: at least two fifths of a step for each step.
        top = QUALITIES - 1
        if isinstance(quality, Tensor):
            low, high = 0.4 * quality, top - 0.4 * (top - quality)
            return torch.floor((quality + offset).clamp(low, high))
        return int(min(max(quality + offset, 0.4 * quality), top - 0.4 * (top - quality)))

    def pad(self, frame: Tensor) -> Tensor:
        return pad_to_multiple(frame, self.multiple, self.pad_mode)

    def latent_size(self, height: int, width: int) -> tuple[int, int]:
        """Size of the latents of a frame of this size."""
        return tuple(-(-side // self.multiple) * self.multiple // 16 for side in (height, width))

    def code_intra(
        self,
        frame: Tensor | None,
        coder: Coder,
        quality: Tensor,
        size: tuple[int, int],
        effort: FrameEffort | None = None,
    ) -> ReferenceState:
        """Code an I frame (padded; None when decoding) of latent size ``size``.

        effort: what an encoder tries; None: nothing.
        """
        intra = self.intra
        if effort is None or not effort.steps.ahead:
            return self.intra_state(intra(frame, coder, quality, size))

        def outcome(y_hat: Tensor, _: Past) -> tuple[Tensor, ReferenceState]:
            decoded = intra.synthesise(y_hat, quality)
            return decoded, self.intra_state(decoded)

        y, known = intra.analyse(frame, quality), (quality, size)
        # Twice the steps: all frames of its period stand on it.
        steps = 2 * effort.steps.ahead
        y = self.inter.descended(intra.latent, y, intra.prior, known, outcome, frame, effort, steps)
        return self.intra_state(intra.code(y, coder, quality, size))

    @staticmethod
    def intra_state(decoded: Tensor) -> ReferenceState:
        """What an I frame leaves for the next one: the frame alone."""
        return ReferenceState(decoded.clamp(0, 1))

    def code_inter(
        self,
        frame: Tensor | None,
        state: ReferenceState,
        coder: Coder,
        quality: Tensor,
        size: tuple[int, int],
        given: GivenMotion | None = None,
        effort: FrameEffort | None = None,
    ) -> InterOutput:
        """Code a P frame (padded; None when decoding) of latent size ``size``.

        given, effort: see ``InterCodec.forward``.
        """
        return self.inter(frame, state, coder, quality, size, given, effort)


class Following(NamedTuple):
    """The next frame, where it is a P frame: [1, 3, H, W] in [0, 1], and its quality index."""

    frame: Tensor
    quality: int


class FrameCoder:
    """Codes a sequence frame by frame, holding the reference state: one for each direction.

    Args:
        codec: with tables built.
        height, width: of the frames.
        effort: of an encoder.
    """

    def __init__(self, codec: VideoCodec, height: int, width: int, effort: Effort = NO_EFFORT):
        self.codec = codec
        self.effort = effort
        self.height, self.width = height, width
        self.size = codec.latent_size(height, width)
        self.state: ReferenceState | None = None

    def code(
        self,
        frame: Tensor | None,
        intra: bool,
        quality: int,
        coder: Coder,
        following: Following | None = None,
    ) -> Tensor:
        """Code the next frame.

        Args:
            frame: [1, 3, H, W] in [0, 1], None when decoding.
            intra: whether it is an I frame; the first one must be.
            quality: 0..63.
            coder: RateEstimate, StreamEncoder or StreamDecoder.
            following: the frame that will refer to this one, for an encoder whose effort looks
                ahead. None: no frame will.

        Returns:
            The decoded frame [1, 3, H, W] in [0, 1].

        Raises:
            ValueError: a frame's shape or dtype, the quality, or a P frame that comes first.
        """
        # What inference mode makes, autograd refuses later; descent needs it.
        with torch.inference_mode(not self.effort), torch.no_grad():
            return self._code(frame, intra, quality, coder, following)

    def _code(
        self,
        frame: Tensor | None,
        intra: bool,
        quality: int,
        coder: Coder,
        following: Following | None,
    ) -> Tensor:
        codec, size = self.codec, self.size
        level = self._level(quality)
        effort = None
        if frame is not None:
            frame = self._padded(frame)
            effort = self._effort(following)
        if intra:
            self.state = codec.code_intra(frame, coder, level, size, effort)
        else:
            if self.state is None:
                raise ValueError("the first frame must be an I frame")
            coded = codec.code_inter(frame, self.state, coder, level, size, effort=effort)
            self.state = coded.state
        return self.state.frame[..., : self.height, : self.width]

    def _level(self, quality: int) -> Tensor:
        if not 0 <= quality < QUALITIES:
            raise ValueError(f"quality: was {quality}, must be 0..{QUALITIES - 1}")
        return torch.tensor([quality], dtype=torch.float32, device=self.codec.device)

    def _padded(self, frame: Tensor) -> Tensor:
        expected = 1, 3, self.height, self.width
        if tuple(frame.shape) != expected or not frame.is_floating_point():
            raise ValueError(
                f"frame: was {frame.dtype} {list(frame.shape)}, must be floats in [0, 1] of "
                f"{list(expected)}"
            )
        if self.effort and frame.is_inference():
            frame = frame.clone()
        return self.codec.pad(frame).contiguous(memory_format=torch.channels_last)

    def _effort(self, following: Following | None) -> FrameEffort | None:
        shown = self.height, self.width
        if not self.effort:
            return None
        if following is None or not self.effort.ahead:
            return FrameEffort(self.effort, shown)
        frame, level = self._padded(following.frame), self._level(following.quality)
        return FrameEffort(self.effort, shown, frame, level)

    def encode(
        self, frame: Tensor, intra: bool, quality: int, following: Following | None = None
    ) -> tuple[bytes, Tensor]:
        """The frame's stream and its reconstruction. following: see :meth:`code`."""
        coder = StreamEncoder()
        decoded = self.code(frame, intra, quality, coder, following)
        return coder.finish(), decoded

    def decode(
        self, payload: bytes, intra: bool, quality: int, account: bool = False
    ) -> tuple[Tensor, StreamDecoder]:
        """The decoded frame, and the coder that with ``account`` can tell the bits by part."""
        coder = StreamDecoder(payload, account)
        decoded = self.code(None, intra, quality, coder)
        coder.finish()
        return decoded, coder

    def estimate(
        self, frame: Tensor, intra: bool, quality: int, following: Following | None = None
    ) -> tuple[dict[str, float], Tensor]:
        """Estimated bits by part and the reconstruction; writes nothing. As :meth:`encode`."""
        coder = RateEstimate()
        decoded = self.code(frame, intra, quality, coder, following)
        return dict(coder.bits), decoded
