"""Operations a pixel: the exact convolutions count as what they are, whoever computes them."""

import pytest
import torch.nn.functional as F

from codec.entropy.scale_path import IntegerConv
from eval.complexity import operations_per_pixel
from tests.codec.conftest import debug_config, loud_codec


def test_operators_of_ours_are_counted_as_torchs(monkeypatch):
    codec = loud_codec(debug_config())
    counted = operations_per_pixel(codec, 64, 48)

    def by_torch(self, x):
        weight, bias = self.integer_weight(), self.integer_bias()
        return F.conv2d(x, weight, bias, padding=self.padding)

    monkeypatch.setattr(IntegerConv, "exact", by_torch)
    assert operations_per_pixel(codec, 64, 48) == pytest.approx(counted, rel=1e-12)


def test_an_encoder_does_what_its_decoder_does_and_more():
    encoder, decoder = operations_per_pixel(loud_codec(debug_config()), 64, 48)
    assert encoder > decoder > 0
