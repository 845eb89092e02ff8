"""Importing ``kernels`` builds nothing and needs neither numba, triton nor a GPU."""

import subprocess
import sys

import pytest
import torch

import kernels
from kernels.dispatch import choose

_PROGRAM = """
import sys
import {first}
from kernels import {name}
assert callable({name}) and not isinstance({name}, type(sys)), {name}
slow = [m for m in ("numba", "llvmlite", "triton") if m in sys.modules]
assert not slow, slow
import torch
assert not torch.cuda.is_initialized()
"""


@pytest.mark.parametrize("first", ["kernels", "kernels.shifted_search.naive"])
def test_import_is_light(first):
    program = _PROGRAM.format(first=first, name="shifted_search")
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr


def test_exports_are_operators():
    for name in kernels.__all__:
        assert callable(getattr(kernels, name)), name
    with pytest.raises(AttributeError):
        _ = kernels.no_such_operator


AVAILABLE = ("naive", "cpu", "triton")


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [(torch.float32, "cpu"), (torch.bfloat16, "cpu"), (torch.float64, "naive")],
)
def test_automatic_choice_on_the_cpu(dtype, expected):
    assert choose(None, torch.zeros(1, dtype=dtype), AVAILABLE) == expected


def test_automatic_choice_elsewhere():
    assert choose(None, torch.zeros(1, device="meta"), AVAILABLE) == "naive"
    assert choose(None, torch.zeros(1), ("naive",)) == "naive"


@pytest.mark.parametrize(
    ("backend", "dtype"),
    [("fast", torch.float32), ("sampler", torch.float32), ("cpu", torch.float64)],
)
def test_refused_choice(backend, dtype):
    with pytest.raises(ValueError, match="backend: was"):
        choose(backend, torch.zeros(1, dtype=dtype), AVAILABLE)


def test_triton_refuses_cpu_tensors(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match="backend: was 'triton'"):
        choose("triton", torch.zeros(1), AVAILABLE)
