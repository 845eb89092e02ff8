"""Which back end runs an operator.

| back end | runs on | dtypes |
|---|---|---|
| ``naive`` | any device | float32, bfloat16, float64 |
| ``cpu`` | CPU | float32, bfloat16 |
| ``triton`` | CUDA; CPU in Triton's interpreter (TRITON_INTERPRET=1) | float32, bfloat16 |
| ``sampler`` | CPU, CUDA (spatial-correlation-sampler; correlation only) | float32 |

Nothing is imported to find out: a package counts as there when Python finds it.

Forward-mode differentiation (``torch.func.jvp``) is naive's alone: through an operator of the
others torch would drop the tangents without a word and give zeros.
"""

import os
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.autograd import forward_ad

from kernels.checks import one_of, refuse

_INSTALLED = {
    "cpu": find_spec("numba") is not None,
    "triton": find_spec("triton") is not None,
    "sampler": find_spec("spatial_correlation_sampler") is not None,
}
_PACKAGE = {"cpu": "numba", "triton": "triton", "sampler": "spatial-correlation-sampler"}


def choose(backend: str | None, tensor: Tensor, available: tuple[str, ...]) -> str:
    """The back end for ``tensor``.

    Args:
        backend: a name, or None to pick: CUDA goes to triton where it is installed, CPU tensors of
            float32 or bfloat16 to cpu, everything else, and all in forward mode, to naive.
        tensor: decides by its device and dtype.
        available: the back ends the operator has.

    Raises:
        ValueError: the back end is unknown, not installed, or cannot take this tensor.
    """
    if backend is None:
        return _automatic(tensor, available)
    one_of("backend", backend, available)
    if not _INSTALLED.get(backend, True):
        refuse("backend", repr(backend), f"one that is installed (pip install {_PACKAGE[backend]})")
    problem = _problem(backend, tensor)
    if problem:
        refuse("backend", repr(backend), problem)
    return backend


def _automatic(tensor: Tensor, available: tuple[str, ...]) -> str:
    wanted = {"cuda": "triton", "cpu": "cpu"}.get(tensor.device.type, "naive")
    if wanted not in available or not _INSTALLED.get(wanted, True) or _dtype_problem(tensor):
        return "naive"
    return "naive" if _in_forward_mode() else wanted


def _in_forward_mode() -> bool:
    """Whether tensors may have tangents, which are not looked for one by one."""
    return getattr(forward_ad, "_current_level", -1) >= 0


def _dtype_problem(tensor: Tensor) -> bool:
    return tensor.dtype not in (torch.float32, torch.bfloat16)


def _problem(backend: str, tensor: Tensor) -> str:
    """What speaks against this back end for this tensor: the end of an error, or nothing."""
    device = tensor.device.type
    if backend == "naive":
        return ""
    if _in_forward_mode():
        return "'naive' in forward-mode differentiation (jvp)"
    if backend == "sampler":
        return "" if tensor.dtype == torch.float32 else f"'naive' for {tensor.dtype}"
    if _dtype_problem(tensor):
        return f"'naive' for {tensor.dtype}"
    if backend == "cpu" and device != "cpu":
        return f"'triton' or 'naive' for a tensor on {device}"
    interpreted = device == "cpu" and os.environ.get("TRITON_INTERPRET") == "1"
    if backend == "triton" and device != "cuda" and not interpreted:
        return f"'cpu' or 'naive' for a tensor on {device}"
    return ""
