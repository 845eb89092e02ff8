"""The gate before each timing: does a contender compute what the naive back end does?

At a small size whose sides divide nothing, against the naive back end in float64 on the same
(rounded) inputs. Our back ends are compared everywhere, gradients included; peers where they are
the same function (``Contender.same``). Ours are compared at a larger size as well, which has them
share their work out as the timed sizes do; there without the gradients of a search, which take
naive gigabytes.
"""

import torch
from torch import Tensor

from benchmarks import kernel_cases
from benchmarks.kernel_cases import Case, Contender, Inputs

# Error over the largest value of the reference, and the share of values that must be within it: two
# candidates of nearly equal score may change places.
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
SHARE = {"float32": 0.999, "bfloat16": 0.97}
# The worst error, likewise. What is computed from chosen candidates may be that of another one,
# whose offset is then anywhere in the same window.
WORST = {"float32": 1e-3, "bfloat16": 1e-1}
WORST_OF_CHOSEN = 2.0


def refusal(case: Case, contender: Contender) -> str | None:
    """Why a contender may not be timed; None where it is right."""
    why = refusal_at(case, contender, kernel_cases.SMALL, contender.flow)
    if why is None and contender.ours:
        why = refusal_at(case, contender, kernel_cases.LARGE, "torn")
    return why


def refusal_at(case: Case, contender: Contender, size: tuple[int, int], flow: str) -> str | None:
    """The same by one size and one kind of flow."""
    inputs = case.make(*size, flow)
    with torch.no_grad():
        found = contender.result(inputs)
    if contender.same == "nowhere":
        return None if all(torch.isfinite(x).all() for x in found) else "not finite"
    exact = {name: x.double() for name, x in inputs.items()}
    with torch.no_grad():
        expected = (contender.truth or case.reference.result)(exact)
    inside = _inside(exact) if contender.same == "inside" else None
    names = ("scores", "offsets") if len(found) == 2 else ("output",)
    for name, a, b in zip(names, found, expected, strict=True):
        if name == "offsets" and not contender.ours and case.dtype != "float32":
            continue  # scores of 8 bits are full of ties, which peers break as they like
        chosen = "flow" in inputs and name == "output"
        why = _differs(name, a, b, case.dtype, chosen, inside)
        if why:
            return why
    if not contender.ours or ("flow" in inputs and size == kernel_cases.LARGE):
        return None
    return _gradients(case, contender, inputs, exact)


def _inside(inputs: Inputs) -> Tensor | None:
    """Queries whose window lies inside, bilinear neighbours included: [1, 1, H, W].

    With and without the flow: who warps first can only look at what the warp has kept.
    """
    if "flow" not in inputs:
        return None
    height, width = inputs["query"].shape[2:]
    reach = kernel_cases.WINDOW // 2 + 1
    flow = inputs["flow"]
    mask = torch.ones(1, height, width, dtype=torch.bool, device=flow.device)
    for shift in (flow, torch.zeros_like(flow)):
        x = torch.arange(width, device=flow.device) + shift[:, 0]
        y = torch.arange(height, device=flow.device)[:, None] + shift[:, 1]
        mask &= (x >= reach) & (x < width - reach) & (y >= reach) & (y < height - reach)
    return mask[:, None]


def _differs(
    name: str, a: Tensor, b: Tensor, dtype: str, chosen: bool, inside: Tensor | None = None
) -> str | None:
    """What speaks against values ``a``; ``chosen``: they are computed from chosen candidates."""
    if a.shape != b.shape:
        return f"{name}: shape {tuple(a.shape)}, naive's is {tuple(b.shape)}"
    if inside is not None:
        where = inside if a.ndim == 4 else inside[:, :, None]
        where = where.expand_as(b)
        a, b = a[where], b[where]
    if b.numel() == 0:
        return f"{name}: nothing to compare"
    a, b = a.double().cpu(), b.double().cpu()
    finite = torch.isfinite(b)
    if not torch.equal(torch.isfinite(a), finite):
        return f"{name}: finite where naive is not, or the reverse"
    error = (a[finite] - b[finite]).abs()
    largest = b[finite].abs().max().clamp_min(1e-6)
    allowed = TOLERANCE[dtype] * largest
    share = (error <= allowed).double().mean().item()
    if share < SHARE[dtype]:
        return f"{name}: {100 * (1 - share):.2f} % off by more than {allowed:.2g}"
    worst = (WORST_OF_CHOSEN if chosen else WORST[dtype]) * largest
    if name == "offsets":
        worst = kernel_cases.WINDOW - 1 + allowed
    if not error.max() <= worst:
        return f"{name}: one off by {error.max():.2g}, more than {worst:.2g}"
    return None


def _gradients(case: Case, contender: Contender, inputs: Inputs, exact: Inputs) -> str | None:
    found = gradients(contender, inputs)
    expected = gradients(case.reference, exact)
    for name, a, b in zip(inputs, found, expected, strict=True):
        if (a is None) != (b is None):
            return f"gradient of {name}: None on one side"
        name = f"gradient of {name}"
        why = a is not None and _differs(name, a, b, case.dtype, chosen="flow" in inputs)
        if why:
            return why
    return None


def gradients(contender: Contender, inputs: Inputs) -> tuple[Tensor | None, ...]:
    """Of a fixed random weighting of the output, with respect to every input."""
    leaves = [x.detach().requires_grad_() for x in inputs.values()]
    out = contender.call(dict(zip(inputs, leaves, strict=True)))
    generator = torch.Generator().manual_seed(1)
    weights = torch.randn(out.shape, generator=generator).to(out.device)
    finite = torch.isfinite(out.detach())
    weights = torch.where(finite, weights, torch.zeros_like(weights)).to(out.dtype)
    return torch.autograd.grad(out, leaves, weights, allow_unused=True)
