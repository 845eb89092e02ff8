"""The Triton back end against naive.py. ``test_triton.py`` runs this file in a process of its own:
interpreted on a machine without a GPU, compiled on CUDA tensors where there is one."""

import pytest
import torch
from torch import Tensor

from kernels import correlation
from kernels.correlation import naive, triton_volume

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _poison():
    """torch.empty gives NaN, so that an element nobody writes is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch):
    """Small images reach the case of several stretches to a row."""
    monkeypatch.setattr(triton_volume, "PIXELS", 16)


def with_gradients(function, inputs, grad: Tensor, *arguments, **options) -> list[Tensor]:
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, *arguments, **options)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


@pytest.mark.parametrize(
    "batch, channels, height, width, radius, stride, normalise",
    [
        (1, 1, 1, 1, 0, 1, True),
        (1, 5, 1, 1, 2, 1, True),
        (2, 7, 5, 21, 1, 1, False),
        (1, 20, 3, 18, 4, 1, True),
        (1, 3, 6, 9, 2, 2, True),
        (1, 2, 3, 4, 3, 3, True),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_volume_and_gradients(batch, channels, height, width, radius, stride, normalise, dtype):
    inputs = [
        torch.randn(batch, channels, height, width, device=DEVICE).to(dtype) for _ in range(2)
    ]
    grad = torch.randn(batch, (2 * radius + 1) ** 2, height, width, device=DEVICE)
    options = {"stride": stride, "normalise": normalise}
    found = with_gradients(correlation, inputs, grad, radius, backend="triton", **options)
    exact = [x.double() for x in inputs]
    expected = with_gradients(naive.correlation, exact, grad.double(), radius, **options)
    for ours, truth in zip(found, expected, strict=True):
        assert ours.shape == truth.shape
        # The interpreter cuts a float32 off where a GPU rounds it.
        limit = 1e-5 if ours.dtype == torch.float32 else 2.0**-7
        assert (ours.double() - truth).norm() <= limit * truth.norm().clamp(min=1e-3)


def test_any_strides():
    query = torch.randn(1, 6, 20, 5, device=DEVICE).transpose(2, 3)
    key = torch.randn(1, 6, 5, 20, device=DEVICE).contiguous(memory_format=torch.channels_last)
    grad = torch.randn(1, 5, 20, 9, device=DEVICE).permute(0, 3, 1, 2)
    found = with_gradients(correlation, (query, key), grad, 1, backend="triton")
    expected = with_gradients(naive.correlation, (query, key), grad, 1)
    for ours, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, truth)


def test_the_operator_is_registered_as_torch_asks():
    inputs = [torch.randn(1, 3, 4, 5, device=DEVICE).requires_grad_() for _ in range(2)]
    torch.library.opcheck(torch.ops.lgmc.correlation.default, (*inputs, 1, 1, True, "triton"))
