"""Checks of arguments: every refusal is a ValueError that names the argument, what it was and what
it must be."""

import math
from collections.abc import Sequence
from numbers import Integral, Real

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.bfloat16, torch.float64)


def refuse(argument: str, was: object, must: str) -> None:
    """Raise the one form of error that the operators raise."""
    raise ValueError(f"{argument}: was {was}, must be {must}")


def require(condition: bool, argument: str, was: object, must: str) -> None:
    """Raise unless ``condition`` holds."""
    if not condition:
        refuse(argument, was, must)


def shape(tensor: Tensor) -> str:
    """A tensor's shape as errors show it: ``[2, 64, 32, 48]``."""
    return str(list(tensor.shape))


def features(name: str, tensor: Tensor, dimensions: Sequence[int], layout: str) -> None:
    """A floating tensor of one of the numbers of ``dimensions``, without empty axes."""
    if not isinstance(tensor, Tensor):
        refuse(name, type(tensor).__name__, "a tensor")
    if tensor.dim() not in dimensions:
        refuse(name, shape(tensor), layout)
    if tensor.numel() == 0:
        refuse(name, shape(tensor), f"{layout} without an empty axis")
    if tensor.dtype not in FLOATS:
        refuse(name, tensor.dtype, "float32, bfloat16 or float64")


def alike(name: str, tensor: Tensor, other_name: str, other: Tensor, dtype: bool = True) -> None:
    """``tensor`` on the device (and of the dtype) of ``other``."""
    if tensor.device != other.device:
        refuse(name, tensor.device, f"on the device of {other_name}, {other.device}")
    if dtype and tensor.dtype != other.dtype:
        refuse(name, tensor.dtype, f"of the dtype of {other_name}, {other.dtype}")


def sized(name: str, tensor: Tensor, expected: Sequence[int], layout: str) -> None:
    """``tensor`` of exactly the shape ``expected``, which ``layout`` explains."""
    if list(tensor.shape) != list(expected):
        refuse(name, shape(tensor), f"{list(expected)} ({layout})")


def whole(name: str, value: int, least: int = 1) -> None:
    """An int of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
        refuse(name, repr(value), f"a whole number >= {least}")


def odd(name: str, value: int) -> None:
    """A positive odd int."""
    whole(name, value)
    if value % 2 == 0:
        refuse(name, value, "odd")


def positive(name: str, value: float) -> None:
    """A finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, Real) or not 0 < value < float("inf"):
        refuse(name, repr(value), "a number > 0")


def finite(name: str, value: float) -> None:
    """A number, not infinite, not NaN."""
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
        refuse(name, repr(value), "a finite number")


def one_of(name: str, value: str, choices: Sequence[str]) -> None:
    """One of the words ``choices``."""
    if value not in choices:
        refuse(name, repr(value), "one of " + ", ".join(repr(choice) for choice in choices))


def divides(name: str, parts: int, whole_name: str, value: int) -> None:
    """``parts`` (an argument) divides ``value``."""
    if value % parts:
        refuse(name, parts, f"a divisor of the {value} {whole_name}")
