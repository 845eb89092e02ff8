"""Forward-mode differentiation goes through naive: the other back ends would give zeros."""

import pytest
import torch

from kernels import (
    correlation,
    gather,
    linear_attention,
    scatter,
    shifted_attention,
    shifted_search,
)

SIZE = 2, 4, 5, 6


def _operators() -> dict:
    generator = torch.Generator().manual_seed(1)
    key, value = (torch.randn(SIZE, generator=generator) for _ in range(2))
    flow = torch.randn(2, 2, 5, 6, generator=generator)
    weights = torch.rand(2, 1, 5, 6, 3, generator=generator)
    offsets = torch.randn(2, 1, 5, 6, 3, 2, generator=generator)
    near = {"window": 3, "topk": 2}
    return {
        "shifted_search": lambda x, **b: shifted_search(x, key, flow, **near, **b)[0],
        "shifted_attention": lambda x, **b: shifted_attention(x, key, value, flow, **near, **b),
        "linear_attention": lambda x, **b: linear_attention(x, key, value, **b),
        "correlation": lambda x, **b: correlation(x, key, 1, **b),
        "gather": lambda x, **b: gather(x, weights, offsets, **b),
        "scatter": lambda x, **b: scatter(x, weights, offsets, **b),
    }


@pytest.mark.parametrize("name", _operators())
def test_derivative_in_a_direction_is_that_of_the_gradient(name):
    operator = _operators()[name]
    x, direction = torch.randn(SIZE, requires_grad=True), torch.randn(SIZE)
    out = operator(x)
    towards = torch.randn(out.shape)
    (gradient,) = torch.autograd.grad(out, x, towards)
    _, tangent = torch.func.jvp(operator, (x.detach(),), (direction,))
    torch.testing.assert_close((tangent * towards).sum(), (gradient * direction).sum())


@pytest.mark.parametrize("name", _operators())
def test_a_back_end_that_has_none_is_refused(name):
    operator = _operators()[name]
    x = torch.randn(SIZE)
    with pytest.raises(ValueError, match="backend: was 'cpu', must be 'naive' in forward-mode"):
        torch.func.jvp(lambda x: operator(x, backend="cpu"), (x,), (x,))
