"""Operations of a model: multiply-accumulates per pixel of a P frame, encoder and decoder apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from codec.video_codec import VideoCodec


def operations_per_pixel(
    codec: VideoCodec, width: int = 416, height: int = 240, quality: int = 32
) -> tuple[float, float]:
    """(encoder, decoder) kMAC a luma pixel of the second P frame, by torch's FlopCounterMode.

    The encoder's include the decoder's, which it runs to know the reference. Operators of ours are
    counted by the formulas below; elementwise work, warps and the entropy coder are not counted.
    """
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from codec.video_codec import FrameCoder

    generator = torch.Generator().manual_seed(0)
    frames = torch.rand(3, 3, height, width, generator=generator)
    coder, decoder = (FrameCoder(codec, height, width) for _ in range(2))
    for number in range(2):
        payload, _ = coder.encode(frames[number : number + 1], number == 0, quality)
        decoder.decode(payload, number == 0, quality)
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as encoding:
        payload, _ = coder.encode(frames[2:], False, quality)
    with FlopCounterMode(display=False, custom_mapping=_formulas()) as decoding:
        decoder.decode(payload, False, quality)
    pixels = width * height
    totals = (counter.get_total_flops() for counter in (encoding, decoding))
    return tuple(total / 2 / 1000 / pixels for total in totals)


def _formulas() -> dict:
    import torch

    import kernels
    from codec.entropy import integer_sums

    # The operators are registered when their modules are first used.
    assert kernels.linear_attention and kernels.shifted_attention and integer_sums.convolved
    return {
        torch.ops.lgmc.linear_attention: _linear_attention,
        torch.ops.lgmc.shifted_attention: _shifted_attention,
        torch.ops.lgmc.integer_conv: _integer_conv,
    }


def _linear_attention(query, key, value, heads, *_, **__) -> int:
    """Two products of a head's d x d summary with the pixels, of the key and of the query."""
    batch, channels, *query_size = query
    pixels = query_size[0] * query_size[1] + key[2] * key[3]
    return 2 * batch * pixels * channels * value[1] // heads


def _shifted_attention(query, key, value, flow, scale, window, topk, *_, **__) -> int:
    """(window + 1)^2 integer products a query and reference, and topk bilinear values gathered."""
    batch, channels, height, width = query
    searched = key[1] * (window + 1) ** 2 * channels
    return 2 * batch * height * width * (searched + 4 * topk * value[2])


def _integer_conv(x, weight, *_, **__) -> int:
    """All products, those with zeros too, which are left out where it runs."""
    batch, channels, height, width = x
    outputs, _, size, _ = weight
    return 2 * batch * height * width * channels * outputs * size**2
