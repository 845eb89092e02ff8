"""The priors: likelihoods that sum to one, tables that fit them, tables that survive a file."""

import pytest
import torch

from codec.entropy.priors import ConditionalPrior, FactorizedPrior


@pytest.mark.parametrize("distribution", ["gaussian", "laplace", "mixture"])
def test_likelihoods_sum_to_one_and_tables_agree(distribution):
    prior = ConditionalPrior(distribution)
    prior.update()
    rows, lengths, offsets = prior.tables()
    for index in (0, 10, 31, 63):
        symbols = torch.arange(-3000, 3001).float()
        p = prior.likelihood(symbols, torch.full_like(symbols, index)).detach()
        assert float(p.sum()) == pytest.approx(1.0, abs=1e-4)
        counts = torch.tensor(rows[index]).diff() / 65536
        start = offsets[index] + 3000
        inside = p[start : start + lengths[index] - 2]
        assert float((counts[:-1] - inside).abs().max()) < 3e-3


def test_index_and_scale_are_inverse():
    prior = ConditionalPrior("gaussian", 0.11, 64.0, 64)
    index = torch.linspace(0, 63, 100)
    assert torch.allclose(prior.index_of(prior.scale(index)), index, atol=1e-3)
    assert float(prior.scale(torch.tensor(0.0))) == pytest.approx(0.11, rel=1e-5)
    assert float(prior.scale(torch.tensor(63.0))) == pytest.approx(64.0, rel=1e-5)


def test_index_below_the_table_learns_only_upwards():
    prior = ConditionalPrior()
    index = torch.tensor([-5.0, -5.0, 5.0], requires_grad=True)
    (prior.clamp(index) * torch.tensor([1.0, -1.0, 1.0])).sum().backward()
    # A loss that falls with a larger index (gradient < 0) may lift it; the other may not sink it.
    assert index.grad.tolist() == [0.0, -1.0, 1.0]


def test_laplace_is_the_textbook_density():
    prior = ConditionalPrior("laplace")
    symbols = torch.tensor([0.0, 1.0, -3.0])
    scale = prior.scale(torch.tensor(40.0))
    law = torch.distributions.Laplace(0.0, scale)
    expected = law.cdf(symbols + 0.5) - law.cdf(symbols - 0.5)
    assert torch.allclose(prior.likelihood(symbols, torch.full((3,), 40.0)), expected, atol=1e-6)


def test_factorized_tables_load_into_another_instance():
    torch.manual_seed(0)
    prior = FactorizedPrior(4)
    prior.update()
    other = FactorizedPrior(4)
    assert not other.has_tables
    other.load_state_dict(prior.state_dict())
    assert other.tables() == prior.tables()


@torch.no_grad()
def test_factorized_tables_are_those_of_each_channels_density():
    torch.manual_seed(0)
    prior = FactorizedPrior(3)
    first = next(p for name, p in prior.model.named_parameters() if "bias" in name)
    first[1] += 12.0  # its density lies elsewhere
    prior.update()
    rows, lengths, offsets = prior.tables()
    every = torch.arange(-1000, 1001).float()
    p = prior.likelihood(every.view(2001, 1, 1, 1).expand(-1, 3, 2, 1))
    assert p.shape == (2001, 3, 2, 1) and torch.equal(p[:, :, 0], p[:, :, 1])
    for channel, (row, length, offset) in enumerate(zip(rows, lengths, offsets, strict=True)):
        inside = p[offset + 1000 : offset + 1000 + length - 2, channel, 0, 0]
        counts = torch.tensor(row).diff() / 65536
        assert float((counts[:-1] - inside).abs().max()) < 3e-3
        assert float(inside.sum()) > 0.999 * float(p[:, channel, 0, 0].sum())
    assert offsets[1] + lengths[1] / 2 < offsets[0] + lengths[0] / 2 - 20
    assert not prior.model.quantiles.requires_grad


def test_factorized_index_is_the_channel():
    index = FactorizedPrior(3).index(2, 4, 5, torch.device("cpu"))
    assert index.shape == (2, 3, 4, 5)
    assert index[1, :, 2, 2].tolist() == [0, 1, 2]


def test_tables_that_are_missing_are_a_fault():
    with pytest.raises(RuntimeError, match="update"):
        FactorizedPrior(2).tables()
