"""The Triton back end against naive.py. ``test_triton.py`` runs this file in a process of its own:
interpreted on a machine without a GPU, compiled on CUDA tensors where there is one."""

import pytest
import torch
from torch import Tensor

from kernels import linear_attention
from kernels.linear_attention import naive, triton_passes

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(autouse=True)
def _poison():
    """torch.empty gives NaN, so that an element nobody writes is seen."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(autouse=True)
def _few_programs(monkeypatch):
    """Small images reach several blocks to a program and several programs to a head."""
    monkeypatch.setattr(triton_passes, "PROGRAMS", 4)


def features(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, device=DEVICE).to(dtype)


def with_gradients(function, inputs, grad: Tensor, *arguments, **options) -> list[Tensor]:
    inputs = [x.detach().requires_grad_() for x in inputs]
    out = function(*inputs, *arguments, **options)
    return [out.detach(), *torch.autograd.grad(out, inputs, grad.to(out.dtype))]


def check(inputs, heads: int = 1, mask: Tensor | None = None, tolerance: float = 1e-5) -> None:
    """Output and all gradients as the naive ones in float64."""
    shape = (inputs[0].shape[0], inputs[2].shape[1], *inputs[0].shape[2:])
    grad = features(*shape, dtype=inputs[0].dtype)
    found = with_gradients(linear_attention, inputs, grad, heads, mask, backend="triton")
    exact = [x.double() for x in inputs]
    expected = with_gradients(naive.linear_attention, exact, grad, heads, mask)
    for ours, truth, x in zip(found, expected, (inputs[0], *inputs), strict=True):
        assert ours.shape == truth.shape and ours.dtype == x.dtype
        error = (ours.double() - truth).norm() / truth.norm().clamp(min=0.1)
        assert error <= tolerance, f"relative error {error:.2e}"


@pytest.mark.parametrize(
    "query, key, heads, width, values",
    [
        ((1, 1), (1, 1), 1, 1, 1),
        ((5, 7), (9, 3), 2, 3, 5),
        ((23, 31), (19, 37), 2, 16, 16),
        ((8, 16), (16, 8), 1, 33, 20),
        ((6, 11), (13, 6), 1, 72, 8),
    ],
)
@pytest.mark.parametrize("masked", [False, True])
def test_output_and_gradients(query, key, heads, width, values, masked):
    inputs = [
        features(2, heads * width, *query),
        features(2, heads * width, *key),
        features(2, heads * values, *key),
    ]
    mask = torch.rand(2, 1, *key, device=DEVICE) < 0.6 if masked else None
    check(inputs, heads, mask)


def test_bfloat16():
    inputs = [features(1, 32, 20, 23, dtype=torch.bfloat16) for _ in range(3)]
    # The interpreter cuts a float32 off where a GPU rounds it.
    check(inputs, 2, tolerance=2.0**-7)


def test_any_strides():
    inputs = [features(1, 8, 9, 14).transpose(2, 3) for _ in range(2)]
    inputs.append(features(1, 8, 14, 9).contiguous(memory_format=torch.channels_last))
    check(inputs, 2)


def test_large_logits():
    check(
        [features(1, 4, 12, 13) * 1e4, features(1, 4, 12, 13) * 1e4, features(1, 4, 12, 13)],
        tolerance=1e-4,
    )


def test_masked_pixels_have_no_influence():
    query, key, value = (features(2, 4, 9, 10) for _ in range(3))
    mask = torch.rand(2, 9, 10, device=DEVICE) < 0.5
    mask[1] = False
    clean = linear_attention(query, key, value, 2, mask, backend="triton")
    for x in (key, value):
        x.masked_fill_(~mask[:, None], float("nan"))
    assert torch.equal(linear_attention(query, key, value, 2, mask, backend="triton"), clean)
    assert clean[0].any() and not clean[1].any()


def test_heads_too_wide_for_the_registers():
    inputs = [features(1, 130, 2, 3) for _ in range(3)]
    with pytest.raises(ValueError, match="heads.*128"):
        linear_attention(*inputs, backend="triton")


def test_the_operator_is_registered_as_torch_asks():
    inputs = [features(1, 4, 3, 5).requires_grad_() for _ in range(3)]
    torch.library.opcheck(torch.ops.lgmc.linear_attention.default, (*inputs, 2, None, "triton"))
