"""Points of equal rate: what to show of other codecs beside one point of ours."""

from __future__ import annotations

import math
from collections.abc import Sequence

from eval.report.folder import is_under_test
from eval.results import RdPoint, RdResults


def reference_of(results: Sequence[RdResults], sequence: str) -> RdResults | None:
    """The codec whose points the others are matched to: the first model that has any, else anchor.

    None where no codec has a point of the sequence.
    """
    measured = [one for one in results if one.points_of(sequence)]
    return next((one for one in measured if is_under_test(one)), measured[0] if measured else None)


def middle_point(points: Sequence[RdPoint]) -> RdPoint:
    """The point in the middle of a curve by rate, the higher of two."""
    return sorted(points, key=lambda point: point.bpp)[len(points) // 2]


def nearest(points: Sequence[RdPoint], bpp: float) -> RdPoint:
    """The point whose rate is nearest to ``bpp`` bits per pixel by ratio."""
    return min(points, key=lambda point: abs(math.log(point.bpp / bpp)))


def matched(
    results: Sequence[RdResults], sequence: str, reference: RdResults, point: RdPoint
) -> dict[str, RdPoint]:
    """By codec, the point of ``sequence`` nearest in rate to ``point`` of ``reference``.

    The reference's own is ``point``; a codec without points of the sequence, or whose video of that
    name is another or (imported) not known, is not there.
    """
    digest = reference.sequence(sequence).digest
    found = {}
    for one in results:
        points = one.points_of(sequence)
        if not points:
            continue
        same = digest is not None and one.sequence(sequence).digest == digest
        if one is reference or same:
            found[one.codec] = point if one is reference else nearest(points, point.bpp)
    return found
