"""Linear cross-attention as one operator of torch: ``lgmc::linear_attention``."""

import torch
from torch import Tensor

from kernels import checks
from kernels.dispatch import choose
from kernels.linear_attention import naive

BACKENDS = ("naive", "cpu", "triton")
# Of a head, for the Triton back end: it holds channels of K x channels of V in registers.
MOST_CHANNELS = 128
# Numbers in query and key below which a call that names no back end is not worth an operator's.
SHORT_WAY = 2**16
# The same on several threads; naive's casts of bfloat16 take what that saves.
SHORT_WAY_THREADED = 2**19
# On a GPU the launches set the time up to there: 64 channels of 64 x 112 pixels.
SHORT_WAY_CUDA = 2**20


def linear_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int = 1,
    mask: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Cross-attention with two softmaxes: ``G = softmax_channels(Q) (softmax_pixels(K)^T V)``.

    Queries are normalised over the channels of their head, keys over the pixels of the image. There
    is no 1/sqrt(d). The implied attention map has rows that sum to 1 and a rank of at most the
    channels of a head; the cost is O(pixels * channels^2 / heads) (Shen et al. 2018, "Efficient
    attention"; LVC-LGMC 2024).
    Sums are accumulated in float32 (float64 for float64 input) whatever the size, 4x4 to 2160p, and
    autocast rounds none of them.

    Args:
        query: [B, C, Hq, Wq], float32, bfloat16 or (naive only) float64; any strides.
        key: [B, C, Hk, Wk]; need not have the query's size.
        value: [B, Cv, Hk, Wk].
        heads: divides C and Cv; each head attends with its own C / heads channels.
        mask: [B, 1, Hk, Wk] or [B, Hk, Wk] bool, True where the pixel of key and value counts.
            Others, padding say, have no influence whatever they hold and get zero gradients. An
            image without any pixel that counts gives zeros.
        backend: "naive", "cpu", "triton", or None to pick by device and dtype. A small call (see
            ``SHORT_WAY``) without a name is a few lines of torch, and on several threads of a CPU
            calls of up to 8 times the size are: between 2**16 and 2**19 numbers in query and key
            the last bits (3e-8) depend on whether there is one thread. With a name they do not.

    Returns:
        [B, Cv, Hq, Wq], contiguous, in the query's dtype. Differentiable once in query, key, value
        (the naive back end in eager mode: as often as one likes).

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit; the text names it.
    """
    _check(query, key, value, heads, mask)
    chosen = choose(backend, query, BACKENDS)
    widest = max(channels // heads for channels in (query.shape[1], value.shape[1]))
    if chosen == "triton" and widest > MOST_CHANNELS:
        if backend is not None:
            least = -(-widest * heads // MOST_CHANNELS)
            must = f">= {least} for triton: <= {MOST_CHANNELS} channels each"
            checks.refuse("heads", heads, must)
        chosen = "naive"
    if mask is not None:
        mask = mask.reshape(mask.shape[0], 1, *key.shape[2:])
    if not torch.compiler.is_compiling() and (chosen == "naive" or _tiny(backend, query, key)):
        return naive.linear_attention(query, key, value, heads, mask)
    return _forward(query, key, value, heads, mask, chosen)[0]


def _tiny(backend: str | None, query: Tensor, key: Tensor) -> bool:
    """Whether the few lines of torch are over before the operator's own call is: never slower."""
    if backend is not None:
        return False
    most = SHORT_WAY
    if query.is_cuda:
        most = SHORT_WAY_CUDA
    elif query.dtype == torch.float32 and torch.get_num_threads() > 1:
        most = SHORT_WAY_THREADED
    return query.numel() + key.numel() < most


def _check(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None) -> None:
    if mask is None and _plainly_right(query, key, value, heads):
        return
    checks.features("query", query, (4,), "[B, C, H, W]")
    checks.features("key", key, (4,), "[B, C, H, W]")
    checks.features("value", value, (4,), "[B, C, H, W]")
    checks.alike("key", key, "query", query)
    checks.alike("value", value, "query", query)
    batch, channels = query.shape[:2]
    checks.sized(
        "key", key, (batch, channels, *key.shape[2:]), "batch and channels of query, its own H, W"
    )
    checks.sized(
        "value", value, (batch, value.shape[1], *key.shape[2:]), "batch of query, H and W of key"
    )
    checks.whole("heads", heads)
    checks.divides("heads", heads, "channels of query and key", channels)
    checks.divides("heads", heads, "channels of value", value.shape[1])
    if mask is None:
        return
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        kind = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        checks.refuse("mask", kind, "a tensor of torch.bool, True where a pixel counts")
    checks.alike("mask", mask, "key", key, dtype=False)
    size = (batch, 1, *key.shape[2:]) if mask.dim() == 4 else (batch, *key.shape[2:])
    checks.sized("mask", mask, size, "[B, 1, H, W] or [B, H, W] of key")


def _plainly_right(query: Tensor, key: Tensor, value: Tensor, heads: int) -> bool:
    """The usual call: to ask for each error by itself takes 3 % of a small image's time."""
    return (
        isinstance(query, Tensor)
        and isinstance(key, Tensor)
        and isinstance(value, Tensor)
        and query.shape == key.shape == value.shape
        and query.dim() == 4
        and query.numel() > 0
        and query.dtype == key.dtype == value.dtype
        and query.dtype in checks.FLOATS
        and query.device == key.device == value.device
        and type(heads) is int
        and heads > 0
        and query.shape[1] % heads == 0
    )


@torch.library.custom_op("lgmc::linear_attention", mutates_args=())
def _forward(
    query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None, backend: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Output, context, maximum and inverse: see :func:`kernels.linear_attention.cpu.forward`."""
    if backend == "naive":
        out = naive.linear_attention(query, key, value, heads, mask)
        return out.contiguous(), *(out.new_empty(0) for _ in range(3))
    return _fast(backend).forward(query, key, value, heads, mask)


@_forward.register_fake
def _(query, key, value, heads, mask, backend):
    batch, channels = query.shape[:2]
    out = query.new_empty(batch, value.shape[1], *query.shape[2:])
    if backend == "naive":
        return out, *(query.new_empty(0) for _ in range(3))
    width = channels // heads
    context = query.new_empty(batch * heads, width, value.shape[1] // heads, dtype=torch.float32)
    maximum = query.new_empty(batch * heads, width, dtype=torch.float32)
    return out, context, maximum, torch.empty_like(maximum)


@torch.library.custom_op("lgmc::linear_attention_backward", mutates_args=())
def _backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    heads: int,
    mask: Tensor | None,
    context: Tensor,
    maximum: Tensor,
    inverse: Tensor,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of query, key and value."""
    if backend == "naive":
        return naive.gradients(grad, query, key, value, heads, mask)
    saved = (context, maximum, inverse)
    return _fast(backend).backward(grad, query, key, value, heads, mask, *saved)


@_backward.register_fake
def _(grad, query, key, value, heads, mask, context, maximum, inverse, backend):
    return tuple(x.new_empty(x.shape) for x in (query, key, value))


def _fast(backend: str):
    """The module of a fast back end, imported (and compiled) when it is first used."""
    if backend == "triton":
        from kernels.linear_attention import triton_passes as module
    else:
        from kernels.linear_attention import cpu as module
    return module


def _save(ctx, inputs, output):
    query, key, value, ctx.heads, mask, ctx.backend = inputs
    ctx.save_for_backward(query, key, value, mask, *output[1:])


def _differentiate(ctx, grad, *unused):
    query, key, value, mask, *saved = ctx.saved_tensors
    grads = _backward(grad, query, key, value, ctx.heads, mask, *saved, ctx.backend)
    return *grads, None, None, None


_forward.register_autograd(_differentiate, setup_context=_save)
