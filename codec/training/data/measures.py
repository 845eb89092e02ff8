"""What every frame of a clip is measured for, once, when the clip is decoded.

The figures are of the luma averaged over square cells, about 36 of them on the shorter side: noise
is gone there, and motion by a few pixels is little. Where a clip is cut and whether it is kept
follow from them and from :class:`codec.config.FilterConfig`, so limits can be changed without
decoding anything again.
"""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from codec.video.format import VideoFormat

CELLS = 36
BINS = 32
# Part of the file's name: figures of another kind are measured anew.
KIND = "measures1"


class Measures(NamedTuple):
    """Figures of each frame, float32 [frames] each; differences are in codes of 8 bit.

    Attributes:
        difference: mean absolute difference from the frame before, 0 for the first.
        beyond: the same between the frame before and the one after, which is small where a single
            frame stands out (a flash); for the last frame its ``difference``.
        histogram: share of the cells, 0..1, that would have to change their level of 32 to give
            the frame before's histogram; 0 for the first.
        brightest: of the cells' means, the largest.
    """

    difference: np.ndarray
    beyond: np.ndarray
    histogram: np.ndarray
    brightest: np.ndarray


def measure(planes: np.ndarray, form: VideoFormat) -> Measures:
    """Look through a clip.

    Args:
        planes: uint8 [frames, bytes of a frame], as they are cached.
        form: what they mean.
    """
    figures = np.zeros((len(Measures._fields), len(planes)), np.float32)
    cells: list[np.ndarray] = []  # of the last three frames
    levels = None
    for t, row in enumerate(planes):
        cells = [*cells[-2:], _cells(row, form)]
        before, levels = levels, _levels(cells[-1])
        figures[3, t] = cells[-1].max()
        if t > 0:
            figures[0, t] = figures[1, t] = np.abs(cells[-1] - cells[-2]).mean()
            figures[2, t] = np.abs(levels - before).sum() / (2 * cells[-1].size)
        if t > 1:
            figures[1, t - 1] = np.abs(cells[-1] - cells[-3]).mean()
    return Measures(*figures)


def load_or_measure(path: Path, planes: np.ndarray, form: VideoFormat) -> Measures:
    """The figures of a clip whose planes lie in the file ``path``, from the file beside it or
    measured now and written there."""
    beside = path.with_suffix(f".{KIND}.npy")
    if not beside.exists():
        found = measure(planes, form)
        temporary = beside.with_suffix(f".{os.getpid()}.tmp")
        with open(temporary, "wb") as out:
            np.save(out, np.stack(found))
        temporary.replace(beside)
        return found
    return Measures(*np.load(beside))


def _cells(row: np.ndarray, form: VideoFormat) -> np.ndarray:
    """Means of the luma (green of rgb) over cells, float32, in codes of 8 bit."""
    height, width = form.height, form.width
    samples = row.view(form.dtype)[: 2 * height * width]
    start = height * width if form.chroma == "rgb" else 0
    luma = samples[start : start + height * width].reshape(height, width)
    side = max(1, min(height, width) // CELLS)
    rows, columns = height // side, width // side
    luma = luma[: rows * side, : columns * side].reshape(rows, side, columns * side)
    sums = luma.sum(1, dtype=np.uint32).reshape(rows, columns, side).sum(2, dtype=np.uint32)
    return (sums / (side * side * (1 << (form.bit_depth - 8)))).astype(np.float32)


def _levels(cells: np.ndarray) -> np.ndarray:
    """How many cells there are at each of the levels of brightness, int64 [BINS]."""
    return np.bincount((cells * (BINS / 256)).astype(np.intp).ravel(), minlength=BINS)
