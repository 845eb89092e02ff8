"""Operators of motion compensation: shifted non-local search, linear cross-attention, correlation.

    from kernels import shifted_attention

Each operator has a folder: ``naive.py`` is the short truth for any device and float64, beside it
stand a fast CPU path (numba, compiled at its first call) and a Triton path; ``op.py`` checks the
arguments and picks one. Importing this package builds nothing, needs no GPU and imports neither
numba nor triton.
"""

# The operators are imported here and not at first use: a folder and its operator share a name, and
# what is bound last wins. So ``kernels.shifted_search`` is the operator, in whatever order a
# program imports; the folder's files are ``from kernels.shifted_search import naive``.
from kernels.correlation.op import correlation
from kernels.linear_attention.op import linear_attention
from kernels.shifted_search.op import gather, scatter, shifted_attention, shifted_search

__all__ = [
    "correlation",
    "gather",
    "linear_attention",
    "scatter",
    "shifted_attention",
    "shifted_search",
]
