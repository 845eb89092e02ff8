"""Reads compressai.ans' streams within their bounds, whatever is in them.

compressai's own decoder neither stops at a payload's end nor bounds an escape: with a forged stream
it reads beyond its memory. This one gives the same symbols of any stream that compressai.ans wrote.

The coder is rANS with a state of 64 bits and words of 32 (Duda, arXiv:1311.2540; Giesen's rans64),
counts of 16 bits. A symbol that its row has no place for is an escape: the row's last entry, then
a nibble that says how many follow, then those, the lowest first.
"""

import numpy as np

from kernels.jit import compiled

LEAST_STATE = 1 << 31
"""Where every stream's encoder begins, and so its decoder ends."""

WHOLE, TOO_SHORT, TOO_FAR = 0, 1, 2
"""What became of a call of :func:`read`: as it should, the words ran out, an escape too large."""

_MOST_NIBBLES = 7
_STATE, _PLACE = 0, 1

# All of these are unsigned: with a signed one among them numba would reckon in floats.
_LOW_16, _LOW_4 = np.uint64(0xFFFF), np.uint64(15)
_BY_16, _BY_4, _BY_32 = np.uint64(16), np.uint64(4), np.uint64(32)
_LEAST = np.uint64(LEAST_STATE)


def begin(words: np.ndarray) -> np.ndarray:
    """The place in a stream of at least two words, uint32: the state and the next word, uint64."""
    low, high = int(words[0]), int(words[1])
    return np.array([high << 32 | low, 2], np.uint64)


def is_at_end(words: np.ndarray, at: np.ndarray) -> bool:
    """Whether nothing is left: that what was read is what was written."""
    return int(at[_STATE]) == LEAST_STATE and int(at[_PLACE]) == len(words)


@compiled
def read(
    words: np.ndarray,
    at: np.ndarray,
    rows: np.ndarray,
    counts: np.ndarray,
    lengths: np.ndarray,
    offsets: np.ndarray,
    symbols: np.ndarray,
) -> int:
    """Read the next symbols, one for each of ``rows``; ``at`` moves on.

    Args:
        words: the stream, uint32.
        at: of :func:`begin`.
        rows: the table's row of each symbol, int32.
        counts: cumulative counts [rows, width], int32: from 0 to 2^16, in ``lengths`` of them.
        lengths, offsets: of each row, int32; the offset is the symbol that it starts at.
        symbols: as many, float32, written.

    Returns:
        WHOLE, TOO_SHORT or TOO_FAR.
    """
    state, place = at[0], np.int64(at[1])
    for number in range(rows.size):
        row = rows[number]
        cumulative = np.int32(state & _LOW_16)
        low, high = 0, lengths[row] - 1  # counts[low] <= cumulative < counts[high]
        while high - low > 1:
            middle = (low + high) >> 1
            if counts[row, middle] <= cumulative:
                low = middle
            else:
                high = middle
        first = np.uint64(counts[row, low])
        share = np.uint64(counts[row, low + 1]) - first
        state = share * (state >> _BY_16) + (state & _LOW_16) - first
        if state < _LEAST:
            if place >= words.size:
                return TOO_SHORT
            state = state << _BY_32 | np.uint64(words[place])
            place += 1
        value = np.int64(low)
        last = np.int64(lengths[row]) - 2
        if value == last:
            left, beyond, shift = np.int64(-1), np.int64(0), 0
            while left != 0:
                nibble = np.int64(state & _LOW_4)
                state = state >> _BY_4
                if state < _LEAST:
                    if place >= words.size:
                        return TOO_SHORT
                    state = state << _BY_32 | np.uint64(words[place])
                    place += 1
                if left < 0:
                    if nibble > _MOST_NIBBLES:
                        return TOO_FAR
                    left = nibble
                else:
                    beyond |= nibble << shift
                    shift += 4
                    left -= 1
            value = -(beyond >> 1) - 1 if beyond & 1 else (beyond >> 1) + last
        symbols[number] = value + offsets[row]
    at[0] = state
    at[1] = np.uint64(place)
    return WHOLE
