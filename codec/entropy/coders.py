"""The symbol coders: what a frame codec's single forward writes its symbols to or reads them from.

Every coder has ``code(residual, index, prior, part) -> symbols``:

- ``residual`` [B, C, H, W] is ``(y - mean) * gain``, or None when decoding;
- ``index`` is the table index of each element: integers, except in training;
- ``prior`` is the density, ``part`` the name that bits are counted under;
- ``symbols`` are the rounded residual as floats; the caller forms
  ``y_hat = mean + symbols / gain``.

=============  ========================================================================
RateModel      training: noise inside the likelihood, straight-through rounding outside
RateEstimate   evaluation: rounds and sums -log2 p of the rounded symbols
StreamEncoder  rounds and queues the symbols for rANS
StreamDecoder  reads the symbols from rANS
=============  ========================================================================

``decoding`` says that residuals are None; ``differentiable`` that gradients are wanted and indices
are real numbers.

Elements of a conditional prior with an index below its ``first_coded`` (scales so small that next
to no symbol is not zero) are not coded: their symbol is zero on both sides. The index is exact on
every machine, so both sides skip the same ones.
"""

from collections import defaultdict

import numpy as np
import torch
from torch import Tensor

from codec.entropy.priors import ConditionalPrior, FactorizedPrior
from codec.errors import BitstreamError
from codec.layers import round_straight_through

Prior = FactorizedPrior | ConditionalPrior

# compressai.ans writes two words when it flushes but reserves one per symbol (1.2.8): a stream of
# one symbol overruns its buffer. Every stream begins with these symbols, which cost ~0 bits.
_LEAD_IN = 4
_LEAD_IN_ROW = [0, (1 << 16) - 1, 1 << 16]
_SYMBOL_LIMIT = 1 << 15


class RateModel:
    """Differentiable bits for training.

    ``bits[part]`` is a tensor [B] per part. The reconstruction path rounds with a straight-through
    gradient; uniform noise is added only inside the likelihood.
    """

    decoding = False
    differentiable = True

    def __init__(self) -> None:
        self.bits: dict[str, Tensor] = {}

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        residual = residual.float()
        noisy = residual + torch.rand_like(residual) - 0.5
        if isinstance(prior, ConditionalPrior):
            index = prior.clamp(index.float())
        likelihood = prior.bounded_likelihood(noisy, index)
        bits = -torch.log2(likelihood).flatten(1).sum(1)  # [B]
        self.bits[part] = self.bits[part] + bits if part in self.bits else bits
        return round_straight_through(residual)


class RateEstimate:
    """Bits of the rounded symbols, as the entropy model prices them.

    Args:
        convention: ``stream`` prices what is really coded: the scale of the table entry, and
            nothing for skipped elements. ``dcvc`` is the reference code's formula, for comparison
            with it: unquantised scales and ``clamp(-log2(p + 1e-5), 0, 50)``.
    """

    decoding = False
    differentiable = False

    def __init__(self, convention: str = "stream") -> None:
        if convention not in ("stream", "dcvc"):
            raise ValueError(f"convention must be 'stream' or 'dcvc', not {convention!r}")
        self.convention = convention
        self.bits: dict[str, float] = defaultdict(float)

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        symbols = torch.round(residual.float())
        if self.convention == "dcvc":
            probability = prior.likelihood(symbols, index)
            bits = torch.clamp(-torch.log2(probability + 1e-5), 0, 50)
        else:
            index, coded = _table_index(index, prior)
            symbols = symbols.clamp(-_SYMBOL_LIMIT, _SYMBOL_LIMIT)
            if coded is not None:
                symbols = symbols * coded
            # Half a count of 2^16 is about where an escape code takes over from the table.
            probability = prior.likelihood(symbols, index).clamp(min=2.0**-17)
            bits = -torch.log2(probability)
            if coded is not None:
                bits = bits * coded
        self.bits[part] += float(bits.double().sum())
        return symbols


class StreamEncoder:
    """Queues symbols and writes one rANS stream for the frame.

    compressai's buffered encoder writes last in, first out, so it is fed at :meth:`finish`.
    """

    decoding = False
    differentiable = False

    def __init__(self) -> None:
        self._queue: list[tuple[np.ndarray, np.ndarray, Prior]] = []

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        index, coded = _table_index(index, prior)
        symbols = torch.round(residual.float()).clamp(-_SYMBOL_LIMIT, _SYMBOL_LIMIT)
        if coded is not None:
            symbols = symbols * coded
        flat_symbols = symbols.to(torch.int32).cpu().numpy().ravel()
        flat_index = index.cpu().numpy().ravel()
        if coded is not None:
            kept = np.flatnonzero(flat_index >= prior.first_coded)
            flat_symbols, flat_index = flat_symbols[kept], flat_index[kept]
        self._queue.append((flat_symbols, flat_index, prior))
        return symbols

    def finish(self) -> bytes:
        """The rANS stream of everything coded so far."""
        from compressai import ans

        encoder = ans.BufferedRansEncoder()
        encoder.encode_with_indexes(
            [0] * _LEAD_IN, [0] * _LEAD_IN, [_LEAD_IN_ROW], [len(_LEAD_IN_ROW)], [0]
        )
        for symbols, index, prior in self._queue:
            if symbols.size:
                encoder.encode_with_indexes(symbols.tolist(), index.tolist(), *_rows(prior))
        self._queue.clear()
        return encoder.flush()


class StreamDecoder:
    """Reads symbols from one frame's rANS stream.

    Args:
        payload: the stream; checked against damage by the container before it comes here, because
            rANS itself reports nothing.
        account: also add up ``bits[part]``, the cost of each symbol by the stored tables, and keep
            it place by place in ``maps[part]``, [h, w] of the latent, summed over channels.
    """

    decoding = True
    differentiable = False

    def __init__(self, payload: bytes, account: bool = False) -> None:
        from compressai import ans

        if len(payload) < 8 or len(payload) % 4:
            raise BitstreamError(
                f"a frame's data has an impossible length ({len(payload)} bytes): the stream is "
                "damaged or was not made by lgmc; encode it again"
            )
        self.account = account
        self.bits: dict[str, float] = defaultdict(float)
        self.maps: dict[str, np.ndarray] = {}
        self._decoder = ans.RansDecoder()
        self._decoder.set_stream(payload)
        self._decoder.decode_stream([0] * _LEAD_IN, [_LEAD_IN_ROW], [len(_LEAD_IN_ROW)], [0])

    def code(self, residual: None, index: Tensor, prior: Prior, part: str) -> Tensor:
        index, coded = _table_index(index, prior)
        flat_index = index.cpu().numpy().ravel()
        symbols = np.zeros(flat_index.size, np.float32)
        kept = slice(None) if coded is None else np.flatnonzero(flat_index >= prior.first_coded)
        coded_index = flat_index[kept]
        if coded_index.size:
            symbols[kept] = self._decoder.decode_stream(coded_index.tolist(), *_rows(prior))
            if self.account:
                costs = np.zeros(flat_index.size)
                costs[kept] = _table_bits(symbols[kept], coded_index, prior)
                self.bits[part] += float(costs.sum())
                self.maps[part] = costs.reshape(index.shape).sum((0, 1))
        return torch.from_numpy(symbols).reshape(index.shape).to(index.device)


def _table_index(index: Tensor, prior: Prior) -> tuple[Tensor, Tensor | None]:
    """The integer table index and, for a conditional prior, which elements are coded."""
    if not isinstance(prior, ConditionalPrior):
        return index, None
    if index.is_floating_point():
        index = torch.round(index)
    index = index.clamp(0, prior.levels - 1).to(torch.int32)
    return index, index >= prior.first_coded


def _rows(prior: Prior) -> tuple[list[list[int]], list[int], list[int]]:
    """The prior's tables as lists, converted once per state of the tables."""
    cached = getattr(prior, "_cached_rows", None)
    version = prior.model._quantized_cdf._version, prior.model._quantized_cdf.data_ptr()
    if cached is None or cached[0] != version:
        cached = (version, prior.tables())
        object.__setattr__(prior, "_cached_rows", cached)
    return cached[1]


def _table_bits(symbols: np.ndarray, index: np.ndarray, prior: Prior) -> np.ndarray:
    """Bits of each decoded symbol by the stored tables; escapes are priced at 4 bits a nibble."""
    rows, lengths, offsets = _rows(prior)
    width = max(lengths)
    counts = np.zeros((len(rows), width - 1), np.float64)
    for row, cdf in enumerate(rows):
        counts[row, : len(cdf) - 1] = np.diff(cdf)
    position = symbols.astype(np.int64) - np.asarray(offsets)[index]
    last = np.asarray(lengths)[index] - 2
    escape = (position < 0) | (position >= last)
    bits = 16.0 - np.log2(counts[index, np.where(escape, last, position)])
    beyond = np.where(position < 0, -2 * position - 1, 2 * (position - last))[escape]
    nibbles = np.ceil(np.log2(beyond.astype(np.float64) + 1) / 4)
    bits[escape] += 4.0 * (nibbles + nibbles // 15 + 1)
    return bits
