"""Compiles the Triton kernels ahead of time for a Hopper GPU; needs none. What the interpreter
forgives and the compiler does not shows here. ``test_triton.py`` runs it."""

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.linear_attention import triton_passes

HOPPER = GPUTarget("cuda", 90, 32)
KERNELS = ("key_forward", "query_forward", "query_backward", "key_backward")
FEATURES = ("query", "key", "value", "out", "grad", "grad_query", "grad_key", "grad_value")
SIZES = ("heads", "channels", "value_channels", "pixels", "splits", "steps")


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))


@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize(
    "channels, dtype", [(32, torch.float32), (32, torch.bfloat16), (128, torch.float32)]
)
def test_compiles_for_a_gpu(name, channels, dtype):
    kernel = getattr(triton_passes, name)
    image = torch.empty(1, channels, 2, 2, dtype=dtype)
    *_, constants = triton_passes._options(image, image, 1)
    constants["MASKED"] = True
    names = kernel.arg_names
    options = {key: value for key, value in constants.items() if key not in names}
    options.pop("MASKED", None)
    signature, constexprs, attributes = {}, {}, {}
    for i, argument in enumerate(names):
        if argument in constants:
            signature[argument], constexprs[(i,)] = "constexpr", constants[argument]
            continue
        if argument in SIZES:
            signature[argument] = "i32"
            continue
        pointer = {"mask": "*u8"}.get(argument, "*fp32")
        if argument in FEATURES and dtype == torch.bfloat16:
            pointer = "*bf16"
        signature[argument] = pointer
        attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs, attributes)
    done = triton.compile(source, target=HOPPER, options=options)
    assert len(done.asm["cubin"]) > 0
    # A Hopper multiprocessor gives a program at most 227 KiB of shared memory.
    assert done.metadata.shared <= 227 * 1024
    uses_matrix_units = "mma" in done.asm["ptx"]
    assert uses_matrix_units == (dtype == torch.bfloat16)


@pytest.mark.parametrize(
    ("channels", "heads", "size"), [(64, 2, (2160, 3840)), (128, 1, (1440, 2560)), (4, 4, (4, 4))]
)
def test_grids_are_within_what_cuda_takes(channels, heads, size, monkeypatch):
    """65,535 programs on every axis but the first."""
    grids = {}
    monkeypatch.setattr(
        triton_passes,
        "start",
        lambda kernel, programs, *_, **__: grids.update({kernel.__name__: programs}),
    )
    x = torch.empty(2, channels, *size, device="meta")
    out, *saved = triton_passes.forward(x, x, x, heads, None)
    triton_passes.backward(out, x, x, x, heads, None, *saved)
    assert set(grids) == set(KERNELS)
    for programs in grids.values():
        assert programs[0] < 2**31 and max(programs[1:]) <= 65535, grids
