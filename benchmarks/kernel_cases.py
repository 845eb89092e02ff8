"""The registry of what `lgmc bench kernels` times: operators, sizes, back ends and peers.

A case is one operator at one size and dtype. Its contenders are our back end for the device and the
peers of ``benchmarks.peers``; each makes its own result, which ``kernel_gate`` holds against the
operator's naive back end at a small size before anything of the case is timed.
"""

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

import kernels
from benchmarks import peers

WINDOW = 9
TOPK = 9
RADIUS = 4
HEADS = 2
CHANNELS = 64
CPU_SEARCH = [(128, 224)]
GPU_SEARCH = [(128, 224), (544, 960)]
CPU_LINEAR = [(64, 112), (270, 480), (540, 960), (1080, 1920)]
SMALL_LINEAR = [(4, 4), (8, 14), (16, 28), (24, 40), (32, 56), (45, 80), (64, 112)]
"""Where a call that names no back end may go the short way."""
GPU_LINEAR = [(64, 112), (540, 960), (1080, 1920)]
CPU_CORRELATION = [(128, 224)]
GPU_CORRELATION = [(128, 224), (544, 960)]
QUADRATIC_PIXELS = 64 * 112
"""Attention over all pairs of pixels is timed up to this size on a CPU, and 4 times it on a GPU."""
SMALL = (21, 27)
"""The gate's size: divides nothing, and has queries whose whole window lies inside."""
LARGE = (67, 131)
"""The gate's size for our back ends: many tiles, the last ones cut, and several parts of a head."""

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class Contender:
    """One way to compute a case.

    Attributes:
        call: the timed call: inputs -> a tensor with gradients (a search returns its scores).
        result: inputs -> the tensors that the gate compares, in the case's common form.
        ours: one of our back ends, compared everywhere and with all gradients.
        flow: the kind of flow for which a peer computes the same: smooth, constant or zero.
        same: where a peer's result equals naive's: everywhere, inside (queries whose window lies
            inside the image) or nowhere (another function, timed for what it costs).
        truth: what the gate compares it with, where that is not the case's reference.
    """

    name: str
    call: Callable[[Inputs], Tensor]
    result: Callable[[Inputs], tuple[Tensor, ...]]
    ours: bool = False
    flow: str = "smooth"
    same: str = "everywhere"
    truth: Callable[[Inputs], tuple[Tensor, ...]] | None = None


@dataclass(frozen=True)
class Work:
    """What must be done at least: operations (a multiply-add is two) and bytes read and written.

    A bilinear value counts as its four pixels. Backward: what is read again counts again.
    """

    operations: float
    bytes: float
    backward_operations: float
    backward_bytes: float


@dataclass(frozen=True)
class Case:
    """One operator at one size.

    Attributes:
        make: (height, width, kind of flow) -> inputs on the case's device, all of which but the
            mask-like ones may take gradients.
        reference: the naive back end in float64, as a contender.
    """

    operator: str
    name: str
    device: str
    dtype: str
    size: tuple[int, int]
    make: Callable[[int, int, str], Inputs]
    reference: Contender
    contenders: tuple[Contender, ...]
    work: Work

    @property
    def key(self) -> str:
        return f"{self.operator}/{self.name}/{self.dtype}"

    def inputs(self) -> Inputs:
        return self.make(*self.size, "smooth")


def cases(device: str) -> list[Case]:
    """All cases of a device, ``"cpu"`` or ``"cuda"``."""
    gpu = device == "cuda"
    found = []
    for dtype in ("float32", "bfloat16"):
        with_peers = gpu or dtype == "float32"
        for size in GPU_SEARCH if gpu else CPU_SEARCH:
            found += [
                search_case(device, dtype, size, with_peers),
                attention_case(device, dtype, size, with_peers),
            ]
        for size in GPU_LINEAR if gpu else CPU_LINEAR if with_peers else CPU_LINEAR[:2]:
            found.append(linear_case(device, dtype, size, with_peers))
        for size in GPU_CORRELATION if gpu else CPU_CORRELATION:
            found.append(correlation_case(device, dtype, size, with_peers))
    return found


def case(device: str, key: str) -> Case:
    return {c.key: c for c in cases(device)}[key]


def our_backend(device: str) -> str:
    return "triton" if device == "cuda" else "cpu"


def smooth_flow(height: int, width: int, kind: str, generator: torch.Generator) -> Tensor:
    """A flow [1, 2, H, W] as video has it: a pan and slow changes, a few pixels strong.

    ``constant``: the pan alone; ``zero``: none; ``torn``: with an object, the right third, that
    goes far away from the rest, so that neighbours at its edge are searched apart.
    """
    device = generator.device
    pan = torch.tensor([2.3, -1.6], device=device)[None, :, None, None]
    if kind == "zero":
        return torch.zeros(1, 2, height, width, device=device)
    if kind == "constant":
        return pan.expand(1, 2, height, width).contiguous()
    cells = (max(height // 16, 2), max(width // 16, 2))
    change = torch.randn(1, 2, *cells, generator=generator, device=device)
    flow = pan + 1.5 * F.interpolate(change, size=(height, width), mode="bilinear")
    if kind == "torn":
        flow[..., 2 * width // 3 :] -= torch.tensor([13.4, -9.7], device=device)[:, None, None]
    return flow


def _maker(device: str, dtype: str, names: tuple[str, ...], *, flow: bool, channels: int):
    def make(height: int, width: int, kind: str) -> Inputs:
        seed = zlib.crc32(f"{height} {width}".encode())
        generator = torch.Generator(device).manual_seed(seed)
        shape = (1, channels, height, width)
        inputs = {
            name: torch.randn(shape, generator=generator, device=device).to(getattr(torch, dtype))
            for name in names
        }
        if flow:
            inputs["flow"] = smooth_flow(height, width, kind, generator)
        return inputs

    return make


def _bytes(dtype: str) -> int:
    return torch.finfo(getattr(torch, dtype)).bits // 8


def _label(size: tuple[int, int], rest: str) -> str:
    return f"{CHANNELS}x{size[0]}x{size[1]} {rest}"


def search_case(
    device: str, dtype: str, size: tuple[int, int], with_peers: bool, topk: int = TOPK
) -> Case:
    """Forward: scores and offsets of the best; the gradient comes in through the scores."""

    def ours(backend: str) -> Contender:
        def both(x: Inputs) -> tuple[Tensor, Tensor]:
            scores, offsets = kernels.shifted_search(
                x["query"], x["key"], x["flow"], window=WINDOW, topk=topk, backend=backend
            )
            return scores[:, 0].movedim(-1, 1), offsets[:, 0].movedim(-2, 1).movedim(-1, 2)

        return Contender(backend, lambda x: both(x)[0], both, ours=True)

    def peer(name: str, search: Callable, flow: str) -> Contender:
        def both(x: Inputs) -> tuple[Tensor, Tensor]:
            return search(x["query"], x["key"], x["flow"], WINDOW, topk)

        return Contender(name, lambda x: both(x)[0], both, flow=flow, same="inside")

    contenders = [ours(our_backend(device))]
    if with_peers:
        contenders += [
            peer("grid_sample", peers.grid_sample_search, "smooth"),
            peer("unfold+matmul", peers.unfold_search, "zero"),
            peer("unfold+product", peers.unfold_product_search, "zero"),
        ]
        if peers.installed("spatial_correlation_sampler"):
            contenders.append(peer("warp+sampler", peers.sampler_search, "constant"))
    pixels = size[0] * size[1]
    return Case(
        "shifted_search",
        _label(size, f"window {WINDOW} top {topk}"),
        device,
        dtype,
        size,
        _maker(device, dtype, ("query", "key"), flow=True, channels=CHANNELS),
        ours("naive"),
        tuple(contenders),
        Work(
            2.0 * CHANNELS * (WINDOW + 1) ** 2 * pixels,
            pixels * (2 * CHANNELS * _bytes(dtype) + 8 + topk * 12),
            2 * 8.0 * CHANNELS * topk * pixels,  # the gradients of query and key
            pixels * (4 * CHANNELS * _bytes(dtype) + 8 + topk * 12),
        ),
    )


def attention_case(device: str, dtype: str, size: tuple[int, int], with_peers: bool) -> Case:
    """Search, softmax and aggregation: [B, C, H, W] out."""
    scale = peers.one_over_root(CHANNELS)

    def ours(backend: str) -> Contender:
        def call(x: Inputs) -> Tensor:
            return kernels.shifted_attention(
                x["query"],
                x["key"],
                x["value"],
                x["flow"],
                window=WINDOW,
                topk=TOPK,
                scale=scale,
                backend=backend,
            )

        return Contender(backend, call, lambda x: (call(x),), ours=True)

    def peer(name: str, attention: Callable, flow: str) -> Contender:
        def call(x: Inputs) -> Tensor:
            return attention(x["query"], x["key"], x["value"], x["flow"], WINDOW, TOPK, scale)

        return Contender(name, call, lambda x: (call(x),), flow=flow, same="inside")

    contenders = [ours(our_backend(device))]
    if with_peers:
        contenders += [
            peer("grid_sample", peers.grid_sample_attention, "smooth"),
            peer("unfold+matmul", peers.unfold_attention, "zero"),
            peer("unfold+product", peers.unfold_product_attention, "zero"),
        ]
        if peers.installed("spatial_correlation_sampler"):
            contenders.append(peer("warp+sampler", peers.sampler_attention, "constant"))
        if device == "cuda" and peers.installed("natten"):
            contenders.append(natten_contender())
    pixels = size[0] * size[1]
    return Case(
        "shifted_attention",
        _label(size, f"window {WINDOW} top {TOPK}"),
        device,
        dtype,
        size,
        _maker(device, dtype, ("query", "key", "value"), flow=True, channels=CHANNELS),
        ours("naive"),
        tuple(contenders),
        Work(
            2.0 * CHANNELS * ((WINDOW + 1) ** 2 + 4 * TOPK) * pixels,
            pixels * (4 * CHANNELS * _bytes(dtype) + 8),
            4 * 8.0 * CHANNELS * TOPK * pixels,  # the gradients of query, key, value, weights
            pixels * (7 * CHANNELS * _bytes(dtype) + 16),
        ),
    )


def natten_contender() -> Contender:
    """NATTEN's softmax over the whole window: our attention with all candidates and no flow."""
    scale = peers.one_over_root(CHANNELS)

    def call(x: Inputs) -> Tensor:
        return peers.natten_attention(x["query"], x["key"], x["value"], WINDOW, scale)

    def truth(x: Inputs) -> tuple[Tensor]:
        out = kernels.shifted_attention(
            x["query"],
            x["key"],
            x["value"],
            x["flow"],
            window=WINDOW,
            topk=WINDOW**2,
            scale=scale,
            keep_in_image=True,
            backend="naive",
        )
        return (out,)

    return Contender("natten", call, lambda x: (call(x),), flow="zero", truth=truth)


def linear_case(device: str, dtype: str, size: tuple[int, int], with_peers: bool) -> Case:
    def ours(backend: str) -> Contender:
        def call(x: Inputs) -> Tensor:
            return kernels.linear_attention(
                x["query"], x["key"], x["value"], heads=HEADS, backend=backend
            )

        return Contender(backend, call, lambda x: (call(x),), ours=True)

    def peer(name: str, attention: Callable, same: str) -> Contender:
        def call(x: Inputs) -> Tensor:
            return attention(x["query"], x["key"], x["value"], HEADS)

        return Contender(name, call, lambda x: (call(x),), same=same)

    contenders = [ours(our_backend(device))]
    pixels = size[0] * size[1]
    if with_peers:
        contenders.append(peer("five lines", peers.torch_linear_attention, "everywhere"))
        if pixels <= QUADRATIC_PIXELS * (4 if device == "cuda" else 1):
            contenders.append(peer("sdpa", peers.quadratic_attention, "nowhere"))
    per_head = CHANNELS // HEADS
    return Case(
        "linear_attention",
        _label(size, f"{HEADS} heads"),
        device,
        dtype,
        size,
        _maker(device, dtype, ("query", "key", "value"), flow=False, channels=CHANNELS),
        ours("naive"),
        tuple(contenders),
        Work(
            4.0 * CHANNELS * per_head * pixels,
            4 * CHANNELS * _bytes(dtype) * pixels,
            8.0 * CHANNELS * per_head * pixels,
            7 * CHANNELS * _bytes(dtype) * pixels,
        ),
    )


def default_linear() -> Contender:
    """Linear attention without the name of a back end."""

    def call(x: Inputs) -> Tensor:
        return kernels.linear_attention(x["query"], x["key"], x["value"], heads=HEADS)

    return Contender("default", call, lambda x: (call(x),), ours=True)


def correlation_case(device: str, dtype: str, size: tuple[int, int], with_peers: bool) -> Case:
    def ours(backend: str) -> Contender:
        def call(x: Inputs) -> Tensor:
            return kernels.correlation(x["query"], x["key"], RADIUS, backend=backend)

        return Contender(backend, call, lambda x: (call(x),), ours=True)

    def sampler(x: Inputs) -> Tensor:
        return peers.sampler_correlation(x["query"], x["key"], 2 * RADIUS + 1) / CHANNELS

    def products(x: Inputs) -> Tensor:
        return peers.shifted_products(x["query"], x["key"], RADIUS)

    contenders = [ours(our_backend(device))]
    if with_peers:
        contenders.append(Contender("shifted products", products, lambda x: (products(x),)))
        if peers.installed("spatial_correlation_sampler"):
            contenders.append(Contender("sampler", sampler, lambda x: (sampler(x),)))
    pixels = size[0] * size[1]
    side = 2 * RADIUS + 1
    return Case(
        "correlation",
        _label(size, f"radius {RADIUS}"),
        device,
        dtype,
        size,
        _maker(device, dtype, ("query", "key"), flow=False, channels=CHANNELS),
        ours("naive"),
        tuple(contenders),
        Work(
            2.0 * CHANNELS * side**2 * pixels,
            pixels * (2 * CHANNELS * _bytes(dtype) + 4 * side**2),
            4.0 * CHANNELS * side**2 * pixels,
            pixels * (4 * CHANNELS * _bytes(dtype) + 4 * side**2),
        ),
    )
