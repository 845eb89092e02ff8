"""Memory that a call needs beyond its inputs and outputs.

GPU: the allocator's peak. CPU: the resident set's peak in a process of its own, where every block
of 64 KiB or more is mapped alone and so given back when freed; the peak is set to the present
before the call (/proc/self/clear_refs). Compiled code and thread pools are made by a call at a
small size before.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import kernel_cases
from benchmarks.kernel_cases import SMALL, Case, Contender, Inputs
from kernels import pages

STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


def extra_bytes(case: Case, contender: Contender, threads: int) -> dict[str, int | None]:
    """Peak bytes beyond inputs and outputs.

    Returns:
        ``forward``: of the call without gradients. ``training``: of forward and backward, the
        inputs' gradients counted as outputs. None where nothing can measure it.

    Raises:
        RuntimeError: with the last line of what the process that measures said, where it failed.
    """
    if case.device == "cuda":
        return _both(case, contender, _cuda_peak)
    if not CLEAR.exists():
        return {"forward": None, "training": None}
    command = [sys.executable, "-m", "benchmarks.kernel_memory", case.key, contender.name]
    done = subprocess.run(
        [*command, str(threads), json.dumps(_settings())],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": str(threads)},
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or ["no message"]
        raise RuntimeError(f"memory, exit status {done.returncode}: {said[-1]}")
    return json.loads(done.stdout)


def _settings() -> dict[str, list]:
    """The sizes of this process's registry, for the child to have the same cases."""
    names = ("CPU_SEARCH", "CPU_LINEAR", "CPU_CORRELATION")
    return {name: getattr(kernel_cases, name) for name in names}


def _both(case: Case, contender: Contender, peak: Callable) -> dict[str, int | None]:
    inputs = case.inputs()

    def forward() -> tuple[Tensor, ...]:
        with torch.no_grad():
            return contender.result(inputs)

    found = peak(forward)
    with torch.no_grad():
        weights = torch.ones_like(contender.call(inputs))  # an input of the backward
    return {"forward": found, "training": peak(lambda: _train(contender, inputs, weights))}


def _train(contender: Contender, inputs: Inputs, weights: Tensor) -> tuple[Tensor | None, ...]:
    """Output and gradients."""
    leaves = [x.detach().requires_grad_() for x in inputs.values()]
    out = contender.call(dict(zip(inputs, leaves, strict=True)))
    gradients = torch.autograd.grad(out, leaves, weights, allow_unused=True)
    return (out.detach(), *gradients)


def _size(results: tuple[Tensor | None, ...]) -> int:
    """Bytes of storage behind the results, shared ones once."""
    storages = {}
    for x in results:
        if x is not None:
            storage = x.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())


def _cuda_peak(call: Callable[[], tuple[Tensor | None, ...]]) -> int:
    call()  # compiles and tunes what depends on the size
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    results = call()
    torch.cuda.synchronize()
    return max(torch.cuda.max_memory_allocated() - before - _size(results), 0)


def _resident_peak(call: Callable[[], tuple[Tensor | None, ...]]) -> int:
    pages.forget()  # what earlier calls left for this one would hide what it needs
    CLEAR.write_text("5")
    before = _status("VmRSS")
    results = call()
    peak = _status("VmHWM")
    return max(peak - before - _size(results), 0)


def _status(name: str) -> int:
    for line in STATUS.read_text().splitlines():
        if line.startswith(name + ":"):
            return 1024 * int(line.split()[1])
    raise KeyError(name)


def _child(key: str, name: str, threads: int, settings: dict[str, list]) -> dict[str, int | None]:
    torch.set_num_threads(threads)
    for setting, value in settings.items():
        setattr(kernel_cases, setting, [tuple(size) for size in value])
    case = kernel_cases.case("cpu", key)
    contender = next(c for c in case.contenders if c.name == name)
    small = case.make(*SMALL, "smooth")
    _train(contender, small, torch.ones_like(contender.call(small)))
    return _both(case, contender, _resident_peak)


if __name__ == "__main__":
    print(json.dumps(_child(sys.argv[1], sys.argv[2], int(sys.argv[3]), json.loads(sys.argv[4]))))
