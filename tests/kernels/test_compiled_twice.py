"""Kernels give the same bits in the process that compiles them and in those that find them so.

An encoder's first run compiles, its decoder's does not: their pictures have to be the same.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba")

ROOT = Path(__file__).parents[2]
SCRIPT = """
import hashlib
import torch
import kernels

torch.manual_seed(0)
torch.set_num_threads(1)


def told(what, *tensors):
    parts = [tensor.detach().contiguous().numpy().tobytes() for tensor in tensors]
    print(what, hashlib.sha256(b"".join(parts)).hexdigest())


def with_gradients(what, function, *inputs):
    inputs = [one.requires_grad_(True) for one in inputs]
    out = function(*inputs)
    told(what, out, *torch.autograd.grad((out * torch.randn_like(out)).sum(), inputs))


size = 30, 52
features = [torch.randn(1, 64, *size) for _ in range(3)]
told("linear", kernels.linear_attention(*features, heads=2))
with_gradients(
    "linear", lambda q, k, v: kernels.linear_attention(q, k, v, heads=2), *features
)
size = 15, 26
flow = 2 * torch.randn(1, 2, 2, *size)
for metric in ("dot", "l2"):
    search = {"window": 5, "topk": 3, "metric": metric}
    with_gradients(
        f"attention {metric}", lambda q, k, v: kernels.shifted_attention(q, k, v, flow, **search),
        torch.randn(1, 16, *size), torch.randn(1, 2, 16, *size), torch.randn(1, 2, 16, *size),
    )
    query, key = torch.randn(1, 16, *size), torch.randn(1, 2, 16, *size)
    told(f"search {metric}", *kernels.shifted_search(query, key, flow, patch=3, **search))
first, second = torch.randn(1, 16, *size), torch.randn(1, 16, *size)
told("correlation", kernels.correlation(first, second, radius=3))
"""


def test_they_do(tmp_path):
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    told = [
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            capture_output=True,
            text=True,
            check=True,
            env=environment,
            cwd=tmp_path,
        ).stdout
        for _ in range(2)
    ]
    assert len(told[0].splitlines()) == 7
    assert told[0] == told[1]
