"""The average of the weights over the steps, which is better than any single step's."""

import copy

from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from codec.video_codec import VideoCodec


class Average:
    """An exponential moving average of a codec's parameters.

    Args:
        codec: that trains; the average begins as it stands.
        decay: of the average at each step. The first steps count for more, or it would keep the
            weights that training began with for long: the decay of step n is at most
            ``n / (n + 9)``.
    """

    def __init__(self, codec: VideoCodec, decay: float):
        self.codec = copy.deepcopy(codec).requires_grad_(False)
        self.decay = decay

    def follow(self, codec: nn.Module, step: int) -> None:
        """Take in the weights after a step, the first of which is 1."""
        decay = min(self.decay, step / (step + 9))
        own, new = list(self.codec.parameters()), list(codec.parameters())
        get_ema_multi_avg_fn(decay)(own, new, None)
