"""From what foreign files state to results of ours, with nothing in them that they do not say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction

from pydantic import ValidationError

from eval.exchange.foreign import ForeignFile, ForeignPoint
from eval.results import (
    Imported,
    RdPoint,
    RdResults,
    ResultsError,
    SequenceInfo,
    first_complaint,
)
from eval.testsets import find_sequence, load_sets

_RATES_AGREE = 1e-3
"""Relative: two rates of one point that are further apart contradict one another."""


@dataclass(frozen=True)
class Given:
    """What the user says of all sequences: a codec's name, (width, height) in pixels, the rate."""

    codec: str | None = None
    size: tuple[int, int] | None = None
    fps: Fraction | None = None


def assemble(files: list[ForeignFile], digests: dict[str, str], given: Given) -> RdResults:
    """One codec's results of one or more files of one format.

    digests: SHA-256 of the files by name. Size and rate of a sequence are those given, else those
    of the test set that has its name (or is its name, where all of the set's agree), else unknown.
    Raises ResultsError where files do not belong together, where a rate cannot be made one per
    pixel, and for what contradicts.
    """
    first = files[0]
    names = {given.codec or file.codec for file in files}
    for what, values in (("formats", {f.format for f in files}), ("codecs", names)):
        if len(values) > 1:
            listed = " and ".join(sorted(value or "(no name)" for value in values))
            raise ResultsError(f"the files are of different {what} ({listed}): import them apart")
    codec = names.pop()
    if not codec:
        raise ResultsError(f"{first.path} does not name its codec: give a name with --codec")
    notes = list(dict.fromkeys(note for file in files for note in file.notes))
    groups: dict[str, list[ForeignPoint]] = {}
    for file in files:
        for point in file.points:
            groups.setdefault(point.sequence, []).append(point)
    parameter = first.parameter if len({f.parameter for f in files}) == 1 else "index"
    if any(point.level is None for group in groups.values() for point in group):
        parameter = "index"
        notes.append("the files number no levels: they count from 0 by rising rate")
        groups = {name: _numbered(group) for name, group in groups.items()}
    infos = {name: _info(name, group, given, notes) for name, group in groups.items()}
    points = [_point(one, infos[name]) for name, group in groups.items() for one in group]
    try:
        return RdResults(
            codec=codec,
            parameter=parameter,
            conditions=None,
            sequences=list(infos.values()),
            points=points,
            imported=Imported(
                format=first.format,
                files=digests,
                description="; ".join(dict.fromkeys(f.description for f in files if f.description)),
                notes=notes,
            ),
        )
    except ValidationError as exc:
        raise ResultsError(f"{first.path} cannot be imported: {first_complaint(exc)}") from None


def _numbered(group: list[ForeignPoint]) -> list[ForeignPoint]:
    """The points with the places by rising rate for levels."""
    by_rate = sorted(group, key=lambda point: point.bpp or point.kbps)
    return [replace(point, level=place) for place, point in enumerate(by_rate)]


def _info(name: str, group: list[ForeignPoint], given: Given, notes: list[str]) -> SequenceInfo:
    """The sequence as far as it is known; adds to ``notes`` what the registry said."""
    frames = {point.frames for point in group}
    pixels = {point.pixels for point in group}
    if len(frames) > 1 or len(pixels) > 1:
        raise ResultsError(f"the points of {name} are not of the same frames: import them apart")
    (stated,) = pixels
    if given.size is not None and stated not in (None, given.size[0] * given.size[1]):
        width, height = given.size
        raise ResultsError(f"{name} has {stated} pixels a frame, not {width}x{height}: see --size")
    listed_size, listed_fps = _listed(name)
    if listed_size is not None and stated not in (None, listed_size[0] * listed_size[1]):
        notes.append(f"{name} has {stated} pixels a frame and is not what the test set has")
        listed_size = listed_fps = None
    size, fps = given.size or listed_size, given.fps or listed_fps
    for what, used, said in (("size", size, given.size), ("rate", fps, given.fps)):
        if used is not None and said is None:
            notes.append(f"{what} of {name} from the registry of test sets")
    return SequenceInfo(
        name=name,
        digest=None,
        width=size[0] if size else None,
        height=size[1] if size else None,
        fps=str(fps) if fps else None,
        frames=frames.pop(),
        chroma=None,
        bit_depth=None,
        matrix=None,
        range=None,
    )


def _listed(name: str) -> tuple[tuple[int, int] | None, Fraction | None]:
    """((width, height), rate) of a sequence of a test set, or of all of a set; None: not known."""
    if found := find_sequence(name):
        members = (found[1],)
    else:
        sets = {one.name.lower(): one.sequences for one in load_sets().values()}
        members = sets.get(name.lower().replace("_", "-"), ())
    sizes = {(one.width, one.height) for one in members}
    rates = {one.fps for one in members}
    rate = rates.pop() if len(rates) == 1 else None
    return sizes.pop() if len(sizes) == 1 else None, None if rate is None else Fraction(rate)


def _point(point: ForeignPoint, info: SequenceInfo) -> RdPoint:
    bits = None  # a second's, per kbps over bpp
    if info.width and info.height and info.fps:
        bits = info.width * info.height * float(Fraction(info.fps)) / 1000.0
    bpp, kbps = point.bpp, point.kbps
    if bpp is None and bits is None:
        raise ResultsError(
            f"the rate of {info.name} is in kbit/s, of frames whose size or rate is not known: "
            "give --size and --fps, or the name of a test set or of a sequence of one with "
            "--sequence"
        )
    if bpp is not None and kbps is not None and bits is not None:
        if abs(bpp * bits - kbps) > _RATES_AGREE * kbps:
            raise ResultsError(
                f"{info.name}: {bpp:.6g} bit/pixel are {bpp * bits:.6g} kbit/s at its size and "
                f"rate, but the file states {kbps:.6g}: correct --size, --fps or --sequence"
            )
    if bpp is None:
        bpp = kbps / bits
    if kbps is None and bits is not None:
        kbps = bpp * bits
    return RdPoint(
        sequence=info.name,
        level=point.level,
        frames=info.frames,
        bytes=None,
        bpp=bpp,
        kbps=kbps,
        metrics=point.metrics,
        encode_seconds=None,
        decode_seconds=None,
        measured=None,
        arguments=None,
        per_frame=point.per_frame,
    )
