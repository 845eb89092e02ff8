"""What the tests of the shifted search share: the comparison of a back end with naive.py.

Fixtures return functions, since test files import nothing of one another.
"""

import math

import numpy as np
import pytest
import torch
from torch import Tensor


def gradients(operator, tensors: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs of ``operator(*tensors)`` and the gradients of all tensors for random output
    gradients.

    Infinite outputs (candidates outside the image) take no part; a tensor that the operator does
    not depend on has gradient 0.
    """
    leaves = [tensor.detach().clone().requires_grad_() for tensor in tensors]
    outputs = operator(*leaves)
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    generator = torch.Generator().manual_seed(1)
    loss = 0.0
    for output in outputs:
        weight = torch.randn(output.shape, generator=generator).to(output.device)
        finite = torch.where(torch.isfinite(output), output.float(), 0.0)
        loss = loss + (finite * weight).sum()
    found = torch.autograd.grad(loss, leaves, allow_unused=True)
    pairs = zip(found, leaves, strict=True)
    return outputs, [torch.zeros_like(leaf) if grad is None else grad for grad, leaf in pairs]


def compare(operator, tensors: list[Tensor], backend: str, tolerance: float = 2e-5) -> None:
    """Assert that outputs and all gradients of a back end are those of naive.

    Args:
        operator: called as operator(*tensors, backend=...).
        tolerance: of the largest magnitude in each tensor (or 1); 0 asks for equal bits.
    """
    expected = gradients(lambda *leaves: operator(*leaves, backend="naive"), tensors)
    found = gradients(lambda *leaves: operator(*leaves, backend=backend), tensors)
    for kind, these, those in zip(("output", "gradient"), expected, found, strict=True):
        for place, (want, got) in enumerate(zip(these, those, strict=True)):
            assert want.shape == got.shape and want.dtype == got.dtype, (kind, place)
            want, got = want.detach().double(), got.detach().double()
            assert not torch.isnan(got).any(), f"{kind} {place}: NaN"
            finite = torch.isfinite(want)
            assert torch.equal(torch.where(finite, 0.0, want), torch.where(finite, 0.0, got)), (
                f"{kind} {place}: infinities differ"
            )
            error = torch.where(finite, (want - got).abs(), 0.0).max().item()
            largest = max(1.0, torch.where(finite, want.abs(), 0.0).max().item())
            assert error <= tolerance * largest, f"{kind} {place}: {error} of {largest}"


@pytest.fixture(scope="session")
def agrees_with_naive():
    """``compare``: a back end's outputs and gradients against naive's."""
    return compare


@pytest.fixture(scope="session")
def outputs_and_gradients():
    """``gradients``: an operator's outputs and all its gradients."""
    return gradients


@pytest.fixture
def poisoned_memory(monkeypatch):
    """Uninitialised tensors are full of NaN (numbers of any kind: of the largest) in this test."""
    deterministic = torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    torch.use_deterministic_algorithms(True, warn_only=True)
    assert torch.isnan(torch.empty(8)).all()
    empty = np.empty

    def poisoned(shape, dtype=float, **rest):
        array = empty(shape, dtype, **rest)
        kind = array.dtype.kind
        array.fill(np.nan if kind == "f" else np.iinfo(array.dtype).max)
        return array

    monkeypatch.setattr(np, "empty", poisoned)
    yield
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def search_inputs():
    """make(batch, references, channels, height, width, ...) -> [query, key, flow], value.

    references=0 gives the pair form. With ``exact`` all numbers are small multiples of 1/8, so that
    every back end finds the same bits, ties included.
    """

    def make(
        batch=1, references=0, channels=6, height=7, width=9, reach=4.0, exact=False, device="cpu"
    ):
        several = (references,) if references else ()
        sizes = {
            "query": (batch, channels, height, width),
            "key": (batch, *several, channels, height, width),
            "flow": (batch, *several, 2, height, width),
            "value": (batch, *several, channels, height, width),
        }

        def draw(name: str) -> Tensor:
            if not exact:
                return torch.randn(sizes[name]) * (reach if name == "flow" else 1.0)
            if name == "flow":
                steps = math.ceil(8 * reach)
                return torch.randint(-steps, steps + 1, sizes[name]).float() / 8
            return torch.randint(-3, 4, sizes[name]).float()

        query, key, flow, value = (draw(name).to(device) for name in sizes)
        return [query, key, flow], value

    return make
