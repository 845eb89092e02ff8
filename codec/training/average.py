"""Averages of weights: over the steps of a run, or of two models of which one learned on.

Either can be better than what it is the average of, as long as that is one training's: two that
began apart from each other have nothing in common to average.
"""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from codec.errors import ConfigError
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


@torch.no_grad()
def between(first: VideoCodec, second: VideoCodec, share: float) -> VideoCodec:
    """A codec whose parameters are ``1 - share`` of the first's and ``share`` of the second's.

    Its tables are built anew.

    Raises:
        ConfigError: they are no models of one configuration.
    """
    if first.config != second.config:
        raise ConfigError("models of different configurations have no average")
    average = copy.deepcopy(first)
    learned = dict(second.named_parameters())
    for name, parameter in average.named_parameters():
        parameter.copy_(parameter * (1 - share) + learned[name] * share)
    average.update()
    return average
