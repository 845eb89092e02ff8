"""The samples of a batch that are learned from at once: one process's, or a micro-batch of these.

What is drawn at random for a sample is the same wherever the sample is learned from: all that a
whole batch needs is drawn in its order, and the rows of these samples are kept.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Samples ``first`` to ``last`` (without it) of a batch of ``whole``."""

    first: int
    last: int
    whole: int

    @classmethod
    def all(cls, whole: int) -> "Rows":
        return cls(0, whole, whole)

    @property
    def is_all(self) -> bool:
        return self.last - self.first == self.whole

    @property
    def slice(self) -> slice:
        """Of a tensor of the whole batch."""
        return slice(self.first, self.last)

    @property
    def share(self) -> float:
        """Of the batch: means over these rows times their shares add up to the batch's mean."""
        return (self.last - self.first) / self.whole

    def within(self, rows: "Rows") -> slice:
        """Of a tensor of ``rows``, which these are some of."""
        return slice(self.first - rows.first, self.last - rows.first)

    def split(self, parts: int) -> list["Rows"]:
        """These rows in so many parts, as even as they can be."""
        count = self.last - self.first
        ends = [self.first + count * part // parts for part in range(parts + 1)]
        return [Rows(*ends[part : part + 2], self.whole) for part in range(parts)]

    def rand_like(self, x: Tensor) -> Tensor:
        """Uniform in [0, 1): for ``x`` of these rows, what :func:`torch.rand_like` has for all.

        Draws for the whole batch, in the order in which ``x`` lies in memory.
        """
        if self.is_all:
            return torch.rand_like(x)
        return self.whole_like(x).uniform_()[self.slice]

    def whole_like(self, x: Tensor) -> Tensor:
        """A tensor of the whole batch, not filled, that lies in memory as ``x`` of these rows."""
        last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
        layout = torch.channels_last if last else torch.contiguous_format
        shape = (self.whole, *x.shape[1:])
        return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=layout)
