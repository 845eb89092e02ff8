"""Compiles the Triton kernels ahead of time for a Hopper GPU; needs none. What the interpreter
forgives and the compiler does not shows here. ``test_triton.py`` runs it."""

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.correlation import triton_volume

HOPPER = GPUTarget("cuda", 90, 32)
CASES = {
    "volume_kernel": {"D": 16, "N": triton_volume.PIXELS},
    "gradient_kernel": {
        "MIRRORED": True,
        "C": triton_volume.CHANNELS,
        "N": triton_volume.PIXELS,
    },
}


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("features", ["*fp32", "*bf16"])
def test_compiles_for_a_gpu(name, features):
    kernel, constants = getattr(triton_volume, name), CASES[name]
    types = dict.fromkeys(("query", "key", "source"), features)
    types |= {"grad": "*fp32", "scale": "fp32"}
    types["out"] = features if name == "gradient_kernel" else "*fp32"
    signature, constexprs, attributes = {}, {}, {}
    for i, argument in enumerate(kernel.arg_names):
        if argument in constants:
            signature[argument], constexprs[(i,)] = "constexpr", constants[argument]
            continue
        signature[argument] = types.get(argument, "i32")
        if signature[argument].startswith("*"):
            attributes[(i,)] = [["tt.divisibility", 16]]
    done = triton.compile(ASTSource(kernel, signature, constexprs, attributes), target=HOPPER)
    assert len(done.asm["cubin"]) > 0
    assert ".local" not in done.asm["ptx"]


@pytest.mark.parametrize("size", [(256, 8, 256, 256), (1, 64, 2160, 3840), (1, 4, 4, 4)])
def test_grids_are_within_what_cuda_takes(size, monkeypatch):
    """65,535 programs on every axis but the first."""
    grids = {}
    monkeypatch.setattr(
        triton_volume,
        "start",
        lambda kernel, programs, *_, **__: grids.update({kernel.__name__: programs}),
    )
    x = torch.empty(size, device="meta")
    out = triton_volume.forward(x, x, 4, 1, True)
    triton_volume.backward(out, x, x, 4, 1, True)
    assert set(grids) == set(CASES)
    for programs in grids.values():
        assert programs[0] < 2**31 and max(programs[1:], default=1) <= 65535, grids
