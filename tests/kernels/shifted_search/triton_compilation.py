"""Compiles the Triton kernels ahead of time, as the back end would start them on a Hopper GPU.

What the interpreter forgives and the compiler does not shows here; no GPU is needed.
``test_triton.py`` runs this file in a process of its own.
"""

import re
import subprocess
import tempfile

import pytest
import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from kernels.shifted_search import triton as backend
from kernels.shifted_search.options import GatherOptions, SearchOptions
from kernels.shifted_search.triton_tiles import SIZES

TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.int32: "*i32"}
HOPPER = GPUTarget("cuda", 90, 32)


def compiled(kernel, args: tuple, constants: dict):
    """What ``kernel[grid](*args, **constants)`` would compile, for aligned tensors."""
    options = {k: v for k, v in constants.items() if k not in kernel.arg_names}
    signature, constexprs, attributes = {}, {}, {}
    for i, name in enumerate(kernel.arg_names):
        value = args[i] if i < len(args) else constants[name]
        special = name not in SIZES
        divisible = False
        if i >= len(args) or (isinstance(value, int) and value == 1 and special):
            signature[name], constexprs[(i,)] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name], divisible = TYPES[value.dtype], True
        elif isinstance(value, float):
            signature[name] = "fp32"
        else:
            signature[name], divisible = "i32", special and value % 16 == 0
        if divisible:
            attributes[(i,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constexprs, attributes)
    return triton.compile(source, target=HOPPER, options=options)


def stack_bytes(kernel) -> int:
    """Local memory of a lane: what did not fit its registers."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        tool = triton.knobs.nvidia.cuobjdump.path
        report = subprocess.run(
            [tool, "-res-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    return int(re.search(r"STACK:(\d+)", report)[1])


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Compile instead of run; the list of (kernel's name, bytes that spilled)."""
    monkeypatch.setattr(triton.knobs.cache, "dir", str(tmp_path))
    done = []

    def compile_only(kernel, programs, *args, **constants):
        done.append((kernel.__name__, stack_bytes(compiled(kernel, args, constants))))

    monkeypatch.setattr(backend, "start", compile_only)
    return done


def images(channels: int, dtype: torch.dtype):
    """query, key, value, flow of one small image; only their types, strides and channels matter."""
    query = torch.empty(1, channels, 16, 32, dtype=dtype)
    flow = torch.empty(1, 1, 2, 16, 32)
    return query, query[:, None].contiguous(), query[:, None].contiguous(), flow


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_case_of_the_codec(dtype, started):
    query, key, value, flow = images(64, dtype)
    options = SearchOptions(window=9, topk=9)
    scores, offsets = backend.search_forward(query, key, flow, options)
    out, weights, _ = backend.attention_forward(query, key, value, flow, 1.0, options)
    backend.attention_backward(out, query, key, value, weights, offsets, 1.0, options)
    assert [name for name, _ in started if name != "reorder_kernel"] == [
        "search_kernel",
        "attention_kernel",
        "gather_backward_kernel",
        "search_backward_kernel",
    ]
    for name, spilled in started:
        assert spilled <= 64, name


@pytest.mark.parametrize(
    ("channels", "options"),
    [
        (96, SearchOptions(9, 9, metric="l2")),
        (64, SearchOptions(9, 9, patch=3, metric="l2", anchor="query", keep_in_image=True)),
        (8, SearchOptions(33, 1, heads=2, search_stride=0.5, anchor="flow")),
        (3, SearchOptions(5, 25, metric="l2", anchor="exclude_query", positions="integer")),
    ],
)
def test_other_searches(channels, options, started):
    query, key, _, flow = images(channels, torch.float32)
    scores, offsets = backend.search_forward(query, key, flow, options)
    backend.search_backward(scores, query, key, scores, offsets, options)
    assert {"search_kernel", "search_backward_kernel"} <= {name for name, _ in started}


@pytest.mark.parametrize("mode", ["sum", "stack"])
def test_gathers(mode, started):
    _, _, value, _ = images(32, torch.float32)
    options = GatherOptions(patch=3, mode=mode)
    weights, offsets = torch.empty(1, 1, 16, 32, 4), torch.empty(1, 1, 16, 32, 4, 2)
    out = backend.gather_forward(value, weights, offsets, options)
    backend.gather_backward(out, value, weights, offsets, options)
    if mode == "sum":
        backend.scatter_forward(out, weights, offsets, (16, 32), 1, options)
    assert "gather_kernel" in {name for name, _ in started}
