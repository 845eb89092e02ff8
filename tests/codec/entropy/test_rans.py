"""The bounded reader: compressai's symbols of compressai's streams, and no harm from any other."""

import numpy as np
import pytest
import torch
from compressai import ans
from hypothesis import given, settings
from hypothesis import strategies as st

from codec.entropy import rans
from codec.entropy.coders import StreamDecoder, StreamEncoder
from codec.entropy.priors import ConditionalPrior
from codec.errors import BitstreamError

ROWS = (
    [0, 1, 2, 40000, 65535, 65536],
    [0, 65535, 65536],
    [0, 7, 65529, 65536],
)
LENGTHS = [len(row) for row in ROWS]
OFFSETS = [-2, 0, 5]


def tables():
    counts = np.zeros((len(ROWS), max(LENGTHS)), np.int32)
    for number, row in enumerate(ROWS):
        counts[number, : len(row)] = row
    return counts, np.array(LENGTHS, np.int32), np.array(OFFSETS, np.int32)


def read(payload: bytes, rows: np.ndarray) -> tuple[int, np.ndarray, bool]:
    words = np.frombuffer(payload, "<u4").astype(np.uint32)
    at, symbols = rans.begin(words), np.full(rows.size, np.nan, np.float32)
    outcome = rans.read(words, at, rows.astype(np.int32), *tables(), symbols)
    return outcome, symbols, rans.is_at_end(words, at)


@pytest.fixture(scope="module")
def prior() -> ConditionalPrior:
    prior = ConditionalPrior()
    prior.update()
    return prior


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**6), st.integers(4, 400), st.sampled_from([1, 3, 50, 30000]))
def test_it_reads_what_compressai_writes(seed, count, spread):
    """Small symbols and escapes on both sides, of all lengths that a codec's symbols have."""
    random = np.random.default_rng(seed)
    rows = random.integers(0, len(ROWS), count)
    symbols = np.rint(random.normal(0, spread, count)).clip(-(2**15), 2**15).astype(int)
    encoder = ans.BufferedRansEncoder()
    encoder.encode_with_indexes(symbols.tolist(), rows.tolist(), [*ROWS], LENGTHS, OFFSETS)
    payload = encoder.flush()
    outcome, got, at_end = read(payload, rows)
    assert outcome == rans.WHOLE and at_end
    assert np.array_equal(got, symbols)
    theirs = ans.RansDecoder()
    theirs.set_stream(payload)
    assert theirs.decode_stream(rows.tolist(), [*ROWS], LENGTHS, OFFSETS) == got.tolist()


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=8, max_size=400), st.integers(1, 5000), st.integers(0, 10**6))
def test_any_bytes_end_within_their_bounds(payload, count, seed):
    payload = payload[: len(payload) // 4 * 4]
    rows = np.random.default_rng(seed).integers(0, len(ROWS), count)
    outcome, symbols, at_end = read(payload, rows)
    assert outcome in (rans.WHOLE, rans.TOO_SHORT, rans.TOO_FAR)
    if outcome == rans.WHOLE:
        assert np.isfinite(symbols).all() and np.abs(symbols).max() < 2**28
    else:
        assert not at_end


@pytest.mark.parametrize("byte", [0x00, 0x0F, 0x7F, 0xF0, 0xFF])
@pytest.mark.parametrize("length", [8, 64, 100_000])
def test_forged_payloads_are_refused(prior, byte, length):
    """The lead-in alone ended a process with 0xFF; other bytes get as far as some symbols."""
    index = torch.full((1, 4, 64, 64), 30)
    with pytest.raises(BitstreamError, match="damaged or was not made by lgmc"):
        decoder = StreamDecoder(bytes([byte]) * length)
        decoder.code(None, index, prior, "y")
        decoder.finish()


def test_a_payload_has_an_end(prior):
    torch.manual_seed(0)
    index = torch.randint(1, 64, (1, 3, 9, 11))
    encoder = StreamEncoder()
    encoder.code(torch.randn(index.shape) * 3, index, prior, "y")
    payload = encoder.finish()

    def decode(payload: bytes, index: torch.Tensor) -> None:
        decoder = StreamDecoder(payload)
        decoder.code(None, index, prior, "y")
        decoder.finish()

    decode(payload, index)
    with pytest.raises(BitstreamError, match="holds more than its symbols"):
        decode(payload + bytes(4), index)
    with pytest.raises(BitstreamError, match="holds more than its symbols"):
        decode(payload, index[:, :2])
    with pytest.raises(BitstreamError):
        decode(payload[:-4], index)
    with pytest.raises(BitstreamError):  # other tables
        decode(payload, (index + 1).clamp(max=63))
