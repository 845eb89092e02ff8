"""Where a clip is cut, and which of its shots are worth training on."""

from collections import Counter, defaultdict
from typing import Any, NamedTuple

import numpy as np

from codec.config import FilterConfig
from codec.training.data.measures import Measures

# Steps on each side that a step between frames is compared with.
WINDOW = 8
# A frame repeats the one before where they differ by less than this share of the mean round it.
REPEATED = 0.1
# Across a cut, frames further apart stay as different as those beside it, by this share.
APART = 0.75
# Least medians that a ratio is taken of: where nothing moves, noise is no cut.
LEAST_DIFFERENCE, LEAST_HISTOGRAM = 0.5, 0.005
# Names in the log for each reason.
NAMED = 20


class Shot(NamedTuple):
    """Consecutive frames of a clip without a cut between them."""

    first: int
    frames: int


class Judged(NamedTuple):
    """What became of a clip.

    Attributes:
        shots: those that are kept.
        cuts: how many were found.
        left_out: (reason, frames) of what is not kept.
    """

    shots: tuple[Shot, ...]
    cuts: int
    left_out: list[tuple[str, int]]


def find_cuts(figures: Measures, limits: FilterConfig) -> list[int]:
    """The frames that begin a new shot, the clip's first not among them.

    A hard cut is a step between frames that is large, larger than those round it, and changes the
    histogram; and the frames on both sides of it stay apart, which those round a flash do not.
    Fades and dissolves are not found.
    """
    difference, beyond, histogram, _ = figures
    cuts = []
    for t in np.flatnonzero(difference >= limits.cut_difference):
        apart = min(beyond[t], beyond[t - 1] if t > 1 else beyond[t])
        usual = max(np.median(_around(difference, t)), LEAST_DIFFERENCE)
        usual_histogram = max(np.median(_around(histogram, t)), LEAST_HISTOGRAM)
        if (
            apart >= APART * difference[t]
            and difference[t] >= limits.cut_ratio * usual
            and histogram[t] >= max(limits.cut_histogram, limits.cut_ratio * usual_histogram)
        ):
            cuts.append(int(t))
    return cuts


def judge(figures: Measures, limits: FilterConfig) -> Judged:
    """Cut a clip and choose among its shots."""
    count = len(figures.difference)
    cuts = find_cuts(figures, limits)
    dark = figures.brightest < limits.black
    edges = {0, count, *cuts, *(np.flatnonzero(np.diff(dark)) + 1).tolist()}
    shots, left_out = [], []
    bounds = sorted(edges)
    for first, end in zip(bounds, bounds[1:], strict=False):
        reason = "black" if dark[first] else _fault(figures.difference[first:end], limits)
        if reason:
            left_out.append((reason, end - first))
        else:
            shots.append(Shot(first, end - first))
    return Judged(tuple(shots), len(cuts), left_out)


def _fault(difference: np.ndarray, limits: FilterConfig) -> str:
    """What is wrong with a shot, given the differences of its frames; empty for nothing."""
    if len(difference) < limits.shortest:
        return "short"
    steps = difference.copy()
    steps[0] = 0  # from the shot before
    if len(steps) < 2:
        return ""
    if steps[1:].mean() < limits.still:
        return "still"
    repeated = sum(steps[t] < REPEATED * _around(steps, t).mean() for t in range(1, len(steps)))
    return "repeated frames" if repeated > limits.repeats * (len(steps) - 1) else ""


def _around(steps: np.ndarray, t: int) -> np.ndarray:
    """Up to WINDOW figures on each side of ``t``, without the first frame's; [0] for none."""
    near = np.concatenate((steps[max(1, t - WINDOW) : t], steps[t + 1 : t + 1 + WINDOW]))
    return near if near.size else np.zeros(1, steps.dtype)


class Report:
    """Counts of what was cut and left out of a set of clips."""

    def __init__(self) -> None:
        self.cuts = 0
        self.unreadable: list[str] = []  # a sentence each
        self.shots: Counter[str] = Counter()
        self.frames: Counter[str] = Counter()
        self._names: dict[str, list[str]] = defaultdict(list)

    def cannot_be_read(self, name: str, sentence: str) -> None:
        self.unreadable.append(sentence)
        self.shots["cannot be decoded"] += 1
        self._names["cannot be decoded"].append(name)

    def add(self, name: str, judged: Judged) -> None:
        self.cuts += judged.cuts
        for reason, frames in judged.left_out:
            self.shots[reason] += 1
            self.frames[reason] += frames
            if self._names[reason][-1:] != [name]:
                self._names[reason].append(name)

    def record(self) -> dict[str, Any]:
        """For the log: cuts and, by reason, shots, frames and the first names of their clips."""
        left_out = {
            reason: {
                "shots": shots,
                "frames": self.frames[reason],
                "clips": self._names[reason][:NAMED],
            }
            for reason, shots in sorted(self.shots.items())
        }
        return {"cuts": self.cuts, "left_out": left_out}

    def line(self) -> str:
        """The same in a line for the terminal."""
        parts = []
        for reason, shots in sorted(self.shots.items()):
            names = self._names[reason]
            more = f" and {len(names) - 3} more clips" if len(names) > 3 else ""
            parts.append(f"{shots} {reason} ({', '.join(names[:3])}{more})")
        return f"{self.cuts} cuts; left out: {', '.join(parts) or 'nothing'}"
