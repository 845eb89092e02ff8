"""Two passes over a latent: who is coded when, what may depend on what, and that it can learn."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.config import load_experiment
from codec.entropy.coders import RateEstimate, RateModel, StreamDecoder, StreamEncoder
from codec.entropy.latent import LatentCodec, Past
from codec.entropy.priors import ConditionalPrior
from codec.entropy.scale_path import ExactScalePath, SecondScalePath
from codec.entropy.second_pass import first_places, packed, spread

from ..conftest import CONFIGS
from .test_scale_path import int64_conv

QUALITY = torch.tensor([40.0])
CPU = torch.device("cpu")


@given(st.integers(1, 5), st.integers(1, 7), st.integers(1, 7), st.integers(1, 3))
def test_every_element_is_coded_once(half, height, width, batch):
    values = torch.randn(batch, 2 * half, height, width)
    places = first_places(2 * half, height, width, CPU)
    first, second = packed(values, places), packed(values, ~places)
    assert first.shape == second.shape == (batch, half, height, width)
    assert torch.equal(spread(first, places) + spread(second, ~places), values)
    assert not (spread(first, places) * ~places).any()


def test_the_second_pass_is_surrounded_by_the_first():
    places = first_places(4, 5, 6, CPU)[0]
    for rows in (slice(0, 4), slice(1, 5)):
        other = slice(1, 5) if rows.start == 0 else slice(0, 4)
        assert torch.equal(places[:, rows], ~places[:, other])
    assert torch.equal(places[:, :, 1:], ~places[:, :, :-1])
    assert torch.equal(places[:2], ~places[2:])


def make_latent(passes: int, channels: int = 6, temporal: int = 0) -> LatentCodec:
    torch.manual_seed(0)
    latent = LatentCodec(
        "residual",
        channels,
        4,
        (4, 4),
        temporal=temporal,
        parameter_widths=(8,),
        hyper_out=5,
        scale_width=8,
        previous_symbols=True,
        gain=1.0,
        passes=passes,
        pass_width=16,
    )
    latent.update()
    return latent


def make_prior() -> ConditionalPrior:
    prior = ConditionalPrior(skip_scale=0.15)
    prior.update()
    return prior


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (1, 1), (3, 8)])
@torch.no_grad()
def test_a_fresh_second_pass_codes_what_one_pass_does(height, width):
    one, two = make_latent(1, temporal=3), make_latent(2, temporal=3)
    missing = two.load_state_dict(one.state_dict(), strict=False).missing_keys
    assert missing and all(name.startswith("second.") for name in missing)
    y, temporal = 3 * torch.randn(1, 6, height, width), torch.randn(1, 3, height, width)
    previous = torch.randint(-3, 4, (1, 6, height, width)).float()
    known = make_prior(), QUALITY, (height, width), temporal, Past(previous)
    coders = RateEstimate(account=True), RateEstimate(account=True)
    (y_one, left_one), (y_two, left_two) = (
        latent(y, coder, *known) for latent, coder in zip((one, two), coders, strict=True)
    )
    assert torch.equal(left_one.symbols, left_two.symbols)
    torch.testing.assert_close(y_one, y_two)
    for part, bits in coders[0].bits.items():
        assert coders[1].bits[part] == pytest.approx(bits, rel=1e-6)
        torch.testing.assert_close(
            torch.tensor(coders[1].maps[part]), torch.tensor(coders[0].maps[part])
        )


def loud(latent: LatentCodec, by: float = 0.3) -> LatentCodec:
    """A second pass that moves means and indices by a lot."""
    with torch.no_grad():
        for parameter in latent.second.parameters():
            parameter.normal_(0, by)
    return latent


@torch.no_grad()
def test_what_the_second_pass_holds_changes_nothing_for_the_first():
    latent, prior = loud(make_latent(2)), make_prior()
    y = 3 * torch.randn(1, 6, 5, 7)
    places = first_places(6, 5, 7, CPU)
    changed = torch.where(places, y, y + 5)
    coded = []
    for one in (y, changed):
        # z sees all of y: hold it.
        latent.hyper_encoder.forward = lambda x: torch.zeros(1, 4, 2, 2)
        given = latent.given(one, RateEstimate(), prior, QUALITY, (5, 7))
        symbols = latent(one, RateEstimate(), prior, QUALITY, (5, 7))[1].symbols
        coded.append((given.means, given.index, symbols * places))
    for a, b in zip(*coded, strict=True):
        assert torch.equal(a, b)


@torch.no_grad()
def test_the_first_pass_moves_its_neighbours_alone():
    latent, prior = loud(make_latent(2)), make_prior()
    latent.hyper_encoder.forward = lambda x: torch.zeros(1, 4, 3, 3)
    y = torch.zeros(1, 6, 9, 9)
    changed = y.clone()
    changed[:, :, 4, 4] = 9.0
    before, after = (
        latent.given(one, RateEstimate(), prior, QUALITY, (9, 9)) for one in (y, changed)
    )
    moved = (before.means != after.means).any(1)[0]
    assert moved[3:6, 3:6].all()
    moved[3:6, 3:6] = False
    assert not moved.any()
    # The scale path's two layers see 3x3, and so does what it adds.
    assert (before.index != after.index).any()


@torch.no_grad()
def test_a_given_is_what_the_coder_uses():
    latent, prior = loud(make_latent(2)), make_prior()
    y = 3 * torch.randn(1, 6, 5, 7)
    given = latent.given(y, RateEstimate(), prior, QUALITY, (5, 7))
    y_hat, (symbols, _) = latent(y, RateEstimate(), prior, QUALITY, (5, 7))
    torch.testing.assert_close(y_hat, given.means + symbols / given.gain)
    coded = prior.clamp(given.index) >= prior.first_coded
    torch.testing.assert_close(symbols, torch.round((y - given.means) * given.gain) * coded)


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (1, 1)])
@torch.no_grad()
def test_a_decoder_reads_what_was_written(height, width):
    latent, prior = loud(make_latent(2), 0.1), make_prior()  # by more, symbols are escaped
    y = torch.randn(1, 6, height, width)
    previous = torch.randint(-3, 4, (1, 6, height, width)).float()
    known = prior, QUALITY, (height, width), None, Past(previous)
    encoder, estimate = StreamEncoder(), RateEstimate()
    y_hat, left = latent(y, encoder, *known)
    decoder = StreamDecoder(encoder.finish(), account=True)
    again, read = latent(None, decoder, *known)
    assert torch.equal(read.symbols, left.symbols) and torch.equal(again, y_hat)
    latent(y, estimate, *known)
    assert decoder.bits["residual"] == pytest.approx(estimate.bits["residual"], rel=0.02, abs=1)
    assert decoder.maps["residual"].sum() == pytest.approx(decoder.bits["residual"])


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 5), st.integers(1, 6), st.floats(0.1, 20))
def test_its_indices_are_integer_arithmetic(seed, height, width, loudness):
    torch.manual_seed(seed)
    first, second = ExactScalePath(5, 6, 8, True), SecondScalePath(6, 12, 7)
    with torch.no_grad():
        for parameter in (*first.parameters(), *second.parameters()):
            parameter.mul_(loudness).add_(0.1 * torch.randn_like(parameter))
    first.update()
    z = torch.randint(-200, 200, (1, 5, height, width)).float()
    symbols = torch.randint(-90, 90, (1, 6, 4 * height, 4 * width)).float()
    inputs = first.exact_inputs(z, symbols, torch.tensor([17]))
    found = second.exact(symbols, inputs)

    magnitude = symbols.abs().clamp(max=63).to(torch.int64) * 64
    joined = torch.cat((magnitude, inputs.joined.to(torch.int64)), 1)
    hidden = ((int64_conv(joined, second.hidden) + (1 << 11)) >> 12).clamp(0, 1 << 14)
    sums = inputs.index.to(torch.int64) + int64_conv(hidden, second.last)
    assert torch.equal(found.to(torch.int64), ((sums + (1 << 17)) >> 18).clamp(-1, 1 << 15))

    emulated = second(symbols, first.inputs(z, symbols, torch.tensor([17])))
    near = (emulated.clamp(-1, 1 << 15) - found).abs() <= 0.51 + 1e-3 * found.abs()
    assert near.float().mean() > 0.98


def test_it_learns_what_neighbours_say():
    """A latent that hardly changes from place to place, with a hyperprior that says nothing."""
    latent, prior = make_latent(2), make_prior()
    latent.requires_grad_(False)
    latent.second.requires_grad_(True)
    generator = torch.Generator().manual_seed(1)
    learner = torch.optim.Adam(latent.second.parameters(), 3e-3)

    def bits(batch: int) -> torch.Tensor:
        smooth = 6 * torch.randn(batch, 6, 1, 1, generator=generator).expand(-1, -1, 8, 8)
        y = smooth + 0.5 * torch.randn(batch, 6, 8, 8, generator=generator)
        coder = RateModel()
        latent(y, coder, prior, QUALITY.expand(batch), (8, 8))
        return coder.bits["residual"].mean()

    with torch.no_grad():
        before = float(bits(32))
    for _ in range(150):
        learner.zero_grad()
        bits(8).backward()
        learner.step()
    with torch.no_grad():
        assert float(bits(32)) < 0.8 * before


def test_configurations_that_cannot_be():
    with pytest.raises(ValueError, match="even number of channels"):
        make_latent(2, channels=5)
    with pytest.raises(Exception, match="passes: 2 needs scale_path: exact"):
        load_experiment(
            CONFIGS / "debug.yaml",
            ["model.inter.entropy.passes=2", "model.inter.entropy.scale_path=float"],
        )
