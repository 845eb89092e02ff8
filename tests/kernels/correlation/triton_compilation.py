"""Compiles the Triton kernels ahead of time for a Hopper GPU; needs none. What the interpreter
forgives and the compiler does not shows here. ``test_triton.py`` runs it."""

import pytest
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
