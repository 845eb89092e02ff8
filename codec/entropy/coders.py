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
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from codec.entropy.priors import ConditionalPrior, FactorizedPrior, ShiftedPrior
from codec.errors import BitstreamError, ModelError

Prior = FactorizedPrior | ConditionalPrior | ShiftedPrior

# compressai.ans writes two words when it flushes but reserves one per symbol (1.2.8): a stream of
# one symbol overruns its buffer. Every stream begins with these symbols, which cost ~0 bits.
_LEAD_IN = 4
_LEAD_IN_ROWS = [[0, (1 << 16) - 1, 1 << 16]], [3], [0]
_SYMBOL_LIMIT = 1 << 15


class RateModel:
    """Differentiable bits for training.

    ``bits[part]`` is a tensor [B] per part. The reconstruction path rounds, and leaves out what a
    stream leaves out, with a straight-through gradient; uniform noise is added only inside the
    likelihood, which prices what is left out too, or scales would only ever shrink.

    Args:
        rand_like: draws the noise, uniform in [0, 1), of its argument's shape.
    """

    decoding = False
    differentiable = True

    def __init__(self, rand_like: Callable[[Tensor], Tensor] = torch.rand_like) -> None:
        self.bits: dict[str, Tensor] = {}
        self._rand_like = rand_like

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        residual = residual.float()
        noisy = residual + self._rand_like(residual) - 0.5
        symbols = torch.round(residual)
        if isinstance(prior, ConditionalPrior):
            index = prior.clamp(index.float())
            symbols = symbols * (torch.round(index) >= prior.first_coded)
        likelihood = prior.bounded_likelihood(noisy, index)
        bits = -torch.log2(likelihood).flatten(1).sum(1)  # [B]
        self.bits[part] = self.bits[part] + bits if part in self.bits else bits
        return residual + (symbols - residual).detach()


class RateEstimate:
    """Bits of the rounded symbols, as the entropy model prices them.

    Args:
        convention: ``stream`` prices what is really coded: the scale of the table entry, and
            nothing for skipped elements. ``dcvc`` is the reference code's formula, for comparison
            with it: unquantised scales and ``clamp(-log2(p + 1e-5), 0, 50)``.
        account: also keep the bits place by place in ``maps[part]``, [h, w] of the latent, summed
            over channels.
    """

    decoding = False
    differentiable = False

    def __init__(self, convention: str = "stream", account: bool = False) -> None:
        if convention not in ("stream", "dcvc"):
            raise ValueError(f"convention must be 'stream' or 'dcvc', not {convention!r}")
        self.convention = convention
        self.account = account
        self.bits: dict[str, float] = defaultdict(float)
        self.maps: dict[str, np.ndarray] = {}

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        symbols = torch.round(residual.float())
        if self.convention == "dcvc":
            probability = prior.likelihood(symbols, index)
            bits = torch.clamp(-torch.log2(probability + 1e-5), 0, 50)
        else:
            index, coded = table_index(index, prior)
            symbols = symbols.clamp(-_SYMBOL_LIMIT, _SYMBOL_LIMIT)
            if coded is not None:
                symbols = symbols * coded
            # Half a count of 2^16 is about where an escape code takes over from the table.
            probability = prior.likelihood(symbols, index).clamp(min=2.0**-17)
            bits = -torch.log2(probability)
            if coded is not None:
                bits = bits * coded
        self.bits[part] += float(bits.double().sum())
        if self.account:
            here = bits.double().sum((0, 1)).cpu().numpy()
            self.maps[part] = self.maps.get(part, 0.0) + here
        return symbols


class StreamEncoder:
    """Queues symbols and writes one rANS stream for the frame.

    compressai's buffered encoder writes last in, first out, so it is fed at :meth:`finish`.

    Raises:
        ModelError: from :meth:`code`, a residual that is NaN.
        ValueError: from :meth:`code`, a residual of another shape than its index.
    """

    decoding = False
    differentiable = False

    def __init__(self) -> None:
        self._queue: list[tuple[np.ndarray, np.ndarray, Prior]] = []

    def code(self, residual: Tensor, index: Tensor, prior: Prior, part: str) -> Tensor:
        index, coded = table_index(index, prior)
        symbols = torch.round(residual.float()).clamp(-_SYMBOL_LIMIT, _SYMBOL_LIMIT)
        if coded is not None:
            symbols = symbols * coded
        kept, rows = _in_order(index, prior)
        # The rANS encoder checks neither, and reads memory that is not its own.
        if symbols.shape != index.shape:
            raise ValueError(
                f"residual: was {list(symbols.shape)}, must be {list(index.shape)} as index is"
            )
        queued = symbols.cpu().numpy().ravel()[kept]
        if np.isnan(queued).any():
            raise ModelError(
                f"a frame's {part} latent is not a number: the frame holds NaN, or the model has "
                "diverged; use other weights"
            )
        self._queue.append((queued, rows, prior))
        return symbols

    def finish(self) -> bytes:
        """The rANS stream of everything coded so far."""
        from compressai import ans

        encoder = ans.BufferedRansEncoder()
        encoder.encode_with_indexes([0] * _LEAD_IN, [0] * _LEAD_IN, *_LEAD_IN_ROWS)
        for symbols, rows, prior in self._queue:
            if rows.size:
                # It copies every row it is given, and a prior's longest are its least used.
                first, last = int(rows.min()), int(rows.max())
                lists = _rows(prior).between(first, last)
                numbers = (rows - first).tolist()
                encoder.encode_with_indexes(symbols.astype(np.int32).tolist(), numbers, *lists)
        self._queue.clear()
        return encoder.flush()


class StreamDecoder:
    """Reads symbols from one frame's rANS stream.

    Args:
        payload: the stream; checked against damage by the container before it comes here, because
            rANS itself reports next to nothing.
        account: remember the symbols, so that :attr:`bits` and :attr:`maps` can tell what each
            cost by the stored tables; that is reckoned when they are asked for.

    Raises:
        BitstreamError: here or from any method, no encoder wrote such a payload.
    """

    decoding = True
    differentiable = False

    def __init__(self, payload: bytes, account: bool = False) -> None:
        from codec.entropy import rans  # numba: for decoders alone

        if len(payload) < 8 or len(payload) % 4:
            raise _forged(f"has an impossible length ({len(payload)} bytes)")
        self.account = account
        self._bits: dict[str, float] = defaultdict(float)
        self._maps: dict[str, np.ndarray] = {}
        self._to_account: list[tuple[str, Prior, Tensor, np.ndarray | slice, np.ndarray]] = []
        self._words = np.frombuffer(payload, "<u4").astype(np.uint32)
        self._rans, self._at = rans, rans.begin(self._words)
        if self._read(np.zeros(_LEAD_IN, np.int32), _LEAD_IN_TABLES).any():
            raise _forged("does not begin as one")

    def code(self, residual: None, index: Tensor, prior: Prior, part: str) -> Tensor:
        kept, rows = _in_order(index, prior)
        symbols = np.zeros(index.numel(), np.float32)
        if rows.size:
            symbols[kept] = self._read(rows, _tables(prior))
        if self.account:
            self._to_account.append((part, prior, index, kept, symbols))
        return torch.from_numpy(symbols).reshape(index.shape).to(index.device)

    def finish(self) -> None:
        """Check that nothing is left of the payload.

        What is read with other tables than it was written with next to never ends there.
        """
        if not self._rans.is_at_end(self._words, self._at):
            raise _forged("holds more than its symbols")

    @property
    def bits(self) -> dict[str, float]:
        """Bits by part of what was decoded so far; empty without ``account``."""
        self._settle()
        return self._bits

    @property
    def maps(self) -> dict[str, np.ndarray]:
        """The same place by place, [h, w] of the latent, summed over channels."""
        self._settle()
        return self._maps

    def _settle(self) -> None:
        for part, prior, index, kept, symbols in self._to_account:
            rows = table_index(index, prior)[0].cpu().numpy().ravel()[kept]
            costs = np.zeros(symbols.size)
            costs[kept] = _table_bits(symbols[kept], rows, prior)
            self._bits[part] += float(costs.sum())
            here = costs.reshape(index.shape).sum((0, 1))
            self._maps[part] = self._maps.get(part, 0.0) + here
        self._to_account.clear()

    def _read(self, rows: np.ndarray, tables: "_Tables") -> np.ndarray:
        """The next symbols, float32, one for each row of the tables."""
        symbols = np.empty(rows.size, np.float32)
        outcome = self._rans.read(self._words, self._at, rows.astype(np.int32), *tables, symbols)
        if outcome == self._rans.TOO_SHORT:
            raise _forged("ends before its symbols do")
        if outcome == self._rans.TOO_FAR:
            raise _forged("holds a symbol that no encoder writes")
        return symbols


def _forged(what: str) -> BitstreamError:
    return BitstreamError(
        f"a frame's data {what}: the stream is damaged or was not made by lgmc; encode it again"
    )


def table_index(index: Tensor, prior: Prior) -> tuple[Tensor, Tensor | None]:
    """The integer table index and, for a conditional prior, which elements are coded."""
    if not isinstance(prior, ConditionalPrior):
        return index, None
    index = _to_table(index, prior)
    return index, index >= prior.first_coded


def _to_table(index: Tensor, prior: ConditionalPrior) -> Tensor:
    """The nearest entry of the table, uint8."""
    if index.is_floating_point():
        index = torch.round(index)
    return index.clamp(0, prior.levels - 1).to(torch.uint8)


class _Rows(NamedTuple):
    """A prior's tables as compressai.ans takes them: cumulative counts, lengths, first symbols."""

    counts: list[list[int]]
    lengths: list[int]
    offsets: list[int]

    def between(self, first: int, last: int) -> "_Rows":
        return _Rows(*(part[first : last + 1] for part in self))


class _Tables(NamedTuple):
    """The same as rans.read takes them: counts [rows, width], lengths and offsets, int32."""

    counts: np.ndarray
    lengths: np.ndarray
    offsets: np.ndarray


def _as_tables(rows: _Rows) -> _Tables:
    counts = np.zeros((len(rows.counts), max(rows.lengths)), np.int32)
    for number, row in enumerate(rows.counts):
        counts[number, : len(row)] = row
    return _Tables(counts, np.array(rows.lengths, np.int32), np.array(rows.offsets, np.int32))


_LEAD_IN_TABLES = _as_tables(_Rows(*_LEAD_IN_ROWS))


def _rows(prior: Prior) -> _Rows:
    """The prior's tables as lists."""
    return _converted(prior)[0]


def _tables(prior: Prior) -> _Tables:
    """The prior's tables as arrays."""
    return _converted(prior)[1]


def _converted(prior: Prior) -> tuple[_Rows, _Tables]:
    """The prior's tables both ways, converted once per state of the tables."""
    cached = getattr(prior, "_cached_rows", None)
    # The tensor itself beside its address, which another may be given once it is gone.
    table = prior.model._quantized_cdf
    version = table._version, table.data_ptr()
    if cached is None or cached[0] is not table or cached[1] != version:
        rows = _Rows(*prior.tables())
        cached = (table, version, (rows, _as_tables(rows)))
        object.__setattr__(prior, "_cached_rows", cached)
    return cached[2]


def _in_order(index: Tensor, prior: Prior) -> tuple[np.ndarray | slice, np.ndarray]:
    """What is coded: which elements, in memory's order, and the table's row of each."""
    if not isinstance(prior, ConditionalPrior):
        return slice(None), index.cpu().numpy().ravel()
    flat = _to_table(index, prior).cpu().numpy().ravel()
    kept = np.flatnonzero(flat >= prior.first_coded)
    return kept, flat[kept]


def _table_bits(symbols: np.ndarray, index: np.ndarray, prior: Prior) -> np.ndarray:
    """Bits of each decoded symbol by the stored tables; escapes are priced at 4 bits a nibble."""
    cumulative, lengths, offsets = _tables(prior)
    counts = np.diff(cumulative).astype(np.float64)  # beyond a row's length of no meaning
    position = symbols.astype(np.int64) - offsets[index]
    last = lengths[index] - 2
    escape = (position < 0) | (position >= last)
    bits = 16.0 - np.log2(counts[index, np.where(escape, last, position)])
    beyond = np.where(position < 0, -2 * position - 1, 2 * (position - last))[escape]
    nibbles = np.ceil(np.log2(beyond.astype(np.float64) + 1) / 4)
    bits[escape] += 4.0 * (nibbles + 1)  # one tells their number: 15 of them no symbol needs
    return bits
