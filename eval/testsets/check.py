"""Whether a folder holds a test set, whole and of the right size, and what is missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from codec.errors import LgmcError, VideoError
from codec.video.format import VideoFormat
from eval.sequences import holds_images
from eval.testsets import TestSequence, TestSet, load_sets
from eval.testsets.sums import Sum, find_sums


@dataclass(frozen=True)
class Finding:
    """One sequence of a set: where it is (None: nowhere) and what is wrong with it (None: nothing).

    frames: how many there are, None where that was not counted. checked: the algorithm of the
    checksum that it was found to have, None where no list states one.
    """

    sequence: TestSequence
    path: Path | None
    frames: int | None = None
    problem: str | None = None
    checked: str | None = None

    @property
    def complete(self) -> bool:
        """Whether it is there and nothing is wrong."""
        return self.path is not None and self.problem is None


def check_sets(path: str | Path, names: list[str] | None = None) -> dict[str, list[Finding]]:
    """The findings per set, for the sets named or, when None, those of which something is there.

    path: a folder; sequences may lie in it or in folders below, and lists of checksums beside them
    are held against files that they name. Raises VideoError where it is no folder, ConfigError for
    an unknown set.
    """
    from eval.testsets import find_set

    folder = Path(path)
    if not folder.is_dir():
        raise VideoError(f"{folder} is no folder: give the one that holds the test sets")
    present, sums = _present(folder), find_sums(folder)
    chosen = [find_set(name) for name in names] if names else list(load_sets().values())
    report = {}
    for one in chosen:
        findings = [_finding(one, sequence, present, sums) for sequence in one.sequences]
        if names or any(finding.path for finding in findings):
            report[one.name] = findings
    return report


def _present(folder: Path) -> dict[str, Path]:
    """Videos by stem and folders of pictures by name, in lower case, down to two folders below."""
    found: dict[str, Path] = {}
    for depth in ("*", "*/*", "*/*/*"):
        for path in sorted(folder.glob(depth)):
            name = path.name if path.is_dir() else path.stem
            known = holds_images(path) if path.is_dir() else path.suffix.lower() in _SUFFIXES
            if known and not path.name.startswith("."):
                found.setdefault(name.lower(), path)
    return found


_SUFFIXES = (".yuv", ".rgb", ".y4m", ".mp4", ".mkv", ".mov", ".avi", ".nut")


def _finding(
    one: TestSet, sequence: TestSequence, present: dict[str, Path], sums: dict[str, Sum]
) -> Finding:
    path = present.get(sequence.name.lower())
    if path is None:
        return Finding(sequence, None, problem="missing")
    try:
        size, frames = _measure(path, one, sequence)
    except LgmcError as exc:
        return Finding(sequence, path, problem=str(exc))
    wanted = f"{sequence.width}x{sequence.height}"
    if size != wanted:
        return Finding(sequence, path, frames, f"is {size}, not {wanted}")
    if frames is not None and sequence.frames is not None and frames < sequence.frames:
        return Finding(sequence, path, frames, f"has {frames} of {sequence.frames} frames")
    stated = sums.get(path.name.lower()) or sums.get(path.stem.lower())
    if stated is None or not path.is_file():
        return Finding(sequence, path, frames)
    try:
        problem = stated.check(path)
    except LgmcError as exc:
        problem = str(exc)
    return Finding(sequence, path, frames, problem, None if problem else stated.algorithm)


def _measure(path: Path, one: TestSet, sequence: TestSequence) -> tuple[str, int | None]:
    """("WxH", frames) of what is there; a raw file has the size that divides it."""
    from codec.video.images import list_images
    from codec.video.reader import open_reader

    if path.is_file() and path.suffix.lower() in (".yuv", ".rgb"):
        if one.bit_depth is None:
            raise VideoError("is raw and the set settles no format: check it by eye")
        video = VideoFormat(sequence.width, sequence.height, 1, one.chroma, one.bit_depth)
        frames, rest = divmod(path.stat().st_size, video.frame_bytes)
        if rest or not frames:
            raise VideoError(f"is no whole number of frames of {video}: fetch it again")
        return f"{sequence.width}x{sequence.height}", frames
    with open_reader(path) as reader:
        count = len(list_images(path)) if path.is_dir() else reader.frame_count
        return f"{reader.format.width}x{reader.format.height}", count
