"""The symbol coders: any symbols through rANS and back, estimates against tables."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.entropy.coders import (
    RateEstimate,
    RateModel,
    StreamDecoder,
    StreamEncoder,
    _rows,
    _tables,
    table_index,
)
from codec.entropy.priors import ConditionalPrior, FactorizedPrior
from codec.errors import BitstreamError, ModelError


@pytest.fixture(scope="module")
def priors():
    torch.manual_seed(0)
    conditional, factorized = ConditionalPrior(), FactorizedPrior(3)
    conditional.update()
    factorized.update()
    return conditional, factorized


def round_trip(chunks):
    encoder = StreamEncoder()
    sent = [encoder.code(residual, index, prior, "x") for residual, index, prior in chunks]
    payload = encoder.finish()
    decoder = StreamDecoder(payload, account=True)
    got = [decoder.code(None, index, prior, "x") for _, index, prior in chunks]
    return payload, sent, got, decoder


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 9), st.integers(0, 9), st.floats(0.01, 3000))
def test_any_symbols_survive(priors, seed, height, width, spread):
    conditional, factorized = priors
    torch.manual_seed(seed)
    residual = torch.randn(1, 3, height, width) * spread
    index = torch.randint(0, 64, residual.shape)
    channel = factorized.index(1, height, width, torch.device("cpu"))
    _, sent, got, _ = round_trip(
        [(residual, index, conditional), (residual / 50, channel, factorized)]
    )
    for ours, theirs in zip(sent, got, strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(sent[0], torch.round(residual) * (index > 0))


def test_what_would_end_the_process_in_the_rans_encoder_is_refused(priors):
    conditional, factorized = priors
    residual, channel = torch.zeros(1, 3, 2, 2), factorized.index(1, 2, 2, torch.device("cpu"))
    with pytest.raises(ModelError, match="latent is not a number"):
        StreamEncoder().code(residual + torch.nan, channel, factorized, "x")
    for prior in (conditional, factorized):
        with pytest.raises(ValueError, match=r"residual: was \[2, 3, 2, 2\], must be \[1, 3, 2, 2"):
            StreamEncoder().code(residual.expand(2, -1, -1, -1), channel, prior, "x")


def test_index_zero_is_not_coded(priors):
    conditional, _ = priors
    residual = torch.full((1, 8, 8, 8), 7.0)
    payload, sent, _, _ = round_trip([(residual, torch.zeros(1, 8, 8, 8), conditional)])
    assert len(payload) == 8
    assert not sent[0].any()


def test_scales_up_to_the_skip_scale_are_not_coded():
    prior = ConditionalPrior(skip_scale=0.15)
    prior.update()
    assert prior.scale(torch.tensor(prior.first_coded - 1)) <= 0.15
    assert prior.scale(torch.tensor(prior.first_coded)) > 0.15
    index = torch.arange(64).view(1, 64, 1, 1).expand(1, 64, 5, 5)
    residual = torch.full(index.shape, -2.0)
    payload, sent, got, _ = round_trip([(residual, index, prior)])
    assert torch.equal(sent[0], residual * (index >= prior.first_coded))
    assert torch.equal(sent[0], got[0])
    estimate = RateEstimate()
    estimate.code(residual[:, : prior.first_coded], index[:, : prior.first_coded], prior, "x")
    assert estimate.bits["x"] == 0


def test_real_valued_indices_are_rounded_alike(priors):
    conditional, _ = priors
    residual = torch.randn(1, 2, 6, 6) * 3
    index = torch.rand(1, 2, 6, 6) * 90 - 10  # beyond both ends of the table
    _, sent, got, _ = round_trip([(residual, index, conditional)])
    assert torch.equal(sent[0], got[0])


def test_an_index_beyond_the_table_is_its_end(priors):
    """Exact indices are not clamped where they come from."""
    conditional, factorized = priors
    index, coded = table_index(torch.tensor([-7, 0, 1, 62, 63, 64, 32768]), conditional)
    assert index.tolist() == [0, 0, 1, 62, 63, 63, 63]
    assert coded.tolist() == [False, False, True, True, True, True, True]
    assert table_index(torch.tensor([0.4, 0.6, 62.6, 99.0]), conditional)[0].tolist() == [
        0, 1, 63, 63,
    ]  # fmt: skip
    residual, ends = torch.randn(1, 4, 5, 5) * 40, torch.tensor([62, 63, 64, 32768])
    encoded = []
    for clamped in (ends, ends.clamp(max=63)):
        encoder = StreamEncoder()
        encoder.code(residual, clamped.view(1, 4, 1, 1).expand(1, 4, 5, 5), conditional, "x")
        encoded.append(encoder.finish())
    assert encoded[0] == encoded[1]


def test_the_estimate_leaves_out_and_limits_what_a_stream_does(priors):
    conditional, _ = priors
    index = torch.tensor([0, 1, 1, 63]).view(1, 4, 1, 1)
    residual = torch.tensor([7.4, 300.2, 1e6, -1e6]).view(1, 4, 1, 1)
    estimate = RateEstimate()
    symbols = estimate.code(residual, index, conditional, "x")
    assert torch.equal(symbols, StreamEncoder().code(residual, index, conditional, "x"))
    assert symbols.flatten().tolist() == [0, 300, 32768, -32768]
    assert estimate.bits["x"] == 3 * 17  # what no table holds is priced as an escape about is


def test_what_was_written_is_not_written_again(priors):
    conditional, _ = priors
    residual, index = torch.randn(1, 2, 4, 4) * 9, torch.full((1, 2, 4, 4), 40)
    encoder = StreamEncoder()
    payloads = []
    for _ in range(2):
        encoder.code(residual, index, conditional, "x")
        payloads.append(encoder.finish())
    assert payloads[0] == payloads[1]
    assert len(encoder.finish()) == 8


def test_estimate_and_account_agree_with_the_bytes(priors):
    conditional, factorized = priors
    torch.manual_seed(1)
    index = torch.randint(1, 64, (1, 16, 40, 40))
    residual = torch.randn(index.shape) * conditional.scale(index)
    estimate = RateEstimate()
    estimate.code(residual, index, conditional, "x")
    payload, _, _, decoder = round_trip([(residual, index, conditional)])
    real = 8 * len(payload)
    assert estimate.bits["x"] == pytest.approx(real, rel=0.005)
    assert decoder.bits["x"] == pytest.approx(real, abs=100)


def test_escapes_are_priced(priors):
    conditional, _ = priors
    residual = torch.tensor([[[[5000.0, -5000.0, 900.0, 0.0]]]])
    index = torch.full((1, 1, 1, 4), 5)
    payload, sent, got, decoder = round_trip([(residual, index, conditional)])
    assert torch.equal(sent[0], got[0])
    assert abs(8 * len(payload) - decoder.bits["x"]) < 64 + 32


@pytest.mark.parametrize("beyond", [1, 2, 8, 9, 128, 129, 2048, 30000])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_escape_costs_what_it_takes(priors, beyond, sign):
    """Many of them, so that a nibble more or less a symbol is seen."""
    conditional, _ = priors
    _, lengths, offsets = conditional.tables()
    last = lengths[5] - 3 + offsets[5]  # the last symbol with a place in the row
    residual = torch.full((1, 1, 20, 20), float(sign * (last + beyond)))
    payload, sent, got, decoder = round_trip(
        [(residual, torch.full_like(residual, 5), conditional)]
    )
    assert torch.equal(sent[0], got[0]) and torch.equal(sent[0], residual)
    assert decoder.bits["x"] / 400 == pytest.approx((8 * len(payload) - 64) / 400, abs=0.2)


def test_tables_that_change_are_read_anew():
    """In place, and as another tensor that is given the address of the one before."""
    prior, other = ConditionalPrior(), ConditionalPrior("laplace")
    prior.update()
    other.update()
    residual, index = torch.randn(1, 2, 6, 6) * 9, torch.full((1, 2, 6, 6), 40)

    def written(by: ConditionalPrior) -> bytes:
        encoder = StreamEncoder()
        encoder.code(residual, index, by, "x")
        return encoder.finish()

    before, expected = written(prior), written(other)
    loaded = ConditionalPrior()
    loaded.update()
    assert written(loaded) == before != expected
    loaded.load_state_dict(other.state_dict())
    assert written(loaded) == expected
    memory = prior.model._quantized_cdf.numpy().copy()
    for change in (lambda row: row, lambda row: row // 2, lambda row: row // 3):
        memory[:, 1:3] = change(memory[:, 1:3])
        prior.model._quantized_cdf = torch.from_numpy(memory)
        assert _rows(prior).counts == prior.tables()[0]
        assert _tables(prior).counts[40, :3].tolist() == memory[40, :3].tolist()
    prior.model._quantized_cdf[:, 1:3] += 1
    assert _rows(prior).counts == prior.tables()[0]
    assert _tables(prior).counts[40, :3].tolist() == memory[40, :3].tolist()


def test_rate_model_is_differentiable_and_rounds_straight_through(priors):
    conditional, _ = priors
    residual = (torch.randn(2, 3, 4, 4) * 2).requires_grad_()
    index = torch.full((2, 3, 4, 4), 30.0, requires_grad=True)
    coder = RateModel()
    symbols = coder.code(residual, index, conditional, "x")
    assert torch.equal(symbols.detach(), torch.round(residual.detach()))
    (symbols.sum() + coder.bits["x"].sum()).backward()
    assert coder.bits["x"].shape == (2,)
    assert torch.isfinite(residual.grad).all() and torch.isfinite(index.grad).all()
    assert index.grad.abs().sum() > 0


def test_training_leaves_out_what_a_stream_leaves_out():
    prior = ConditionalPrior(skip_scale=0.2)
    prior.update()
    index = torch.arange(64.0).view(1, 64, 1, 1).expand(1, 64, 3, 3)
    residual = (3 * torch.randn(1, 64, 3, 3)).requires_grad_()
    model = RateModel()
    learned = model.code(residual, index, prior, "y")
    streamed = StreamEncoder().code(residual.detach(), index, prior, "y")
    assert torch.equal(learned.detach(), streamed)
    assert not learned[:, : prior.first_coded].any() and learned[:, prior.first_coded :].any()
    (gradient,) = torch.autograd.grad(learned.sum(), residual)
    assert torch.equal(gradient, torch.ones_like(gradient))  # or what is left out would be for good
    alone = RateModel()
    alone.code(residual[:, :1], index[:, :1], prior, "y")
    assert alone.bits["y"] > 0  # and is priced


def test_a_batch_through_one_stream(priors):
    conditional, factorized = priors
    residual = torch.randn(2, 3, 4, 5) * 4
    channel = factorized.index(2, 4, 5, torch.device("cpu"))
    _, sent, got, _ = round_trip(
        [(residual, channel, factorized), (residual, torch.full((2, 3, 4, 5), 40), conditional)]
    )
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(sent, got, strict=True))
    assert torch.equal(got[0], torch.round(residual))


def test_impossible_lengths_are_refused():
    for length in (0, 4, 9):
        with pytest.raises(BitstreamError, match="impossible length"):
            StreamDecoder(bytes(length))


def test_golden_bytes(priors):
    """The bytes of a fixed symbol stream: a change here breaks every stream ever written."""
    conditional, _ = priors
    residual = (torch.arange(48).float().reshape(1, 3, 4, 4) % 7 - 3) * 2
    index = torch.arange(48).reshape(1, 3, 4, 4) + 8
    encoder = StreamEncoder()
    encoder.code(residual, index, conditional, "x")
    assert encoder.finish().hex() == GOLDEN


GOLDEN = (
    "ebac05d6a1bba82e310000cb644aea6721ffff61ffff51ff11460005ffff0020ffff111f560bfd5f430dedc6"
    "6a36d1727d698c95f66911a7"
)


def test_the_estimate_tells_places_as_the_decoder_does(priors):
    conditional, _ = priors
    index = torch.randint(0, 50, (1, 3, 4, 5))
    residual = torch.randn(index.shape) * conditional.scale(index)
    encoder, estimate = StreamEncoder(), RateEstimate(account=True)
    encoder.code(residual, index, conditional, "x")
    decoder = StreamDecoder(encoder.finish(), account=True)
    decoder.code(None, index, conditional, "x")
    estimate.code(residual, index, conditional, "x")
    assert estimate.maps["x"].shape == decoder.maps["x"].shape == (4, 5)
    assert estimate.maps["x"].sum() == pytest.approx(estimate.bits["x"])
    assert estimate.maps["x"] == pytest.approx(decoder.maps["x"], rel=0.05)
    assert not RateEstimate().maps
