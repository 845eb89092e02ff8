"""How the Triton back ends run their kernels."""

import contextlib

import torch


def start(kernel, programs: tuple[int, ...], *args, **constants) -> None:
    """Run a kernel on the device of its tensors (CPU tensors: in Triton's interpreter).

    CUDA takes up to 2**31 - 1 programs on the first axis, 65,535 on the others: what grows with the
    image, and with the batch times its rows, goes to the first.
    """
    cuda = args[0].device.type == "cuda"
    with torch.cuda.device(args[0].device) if cuda else contextlib.nullcontext():
        kernel[programs](*args, **constants)
