"""The field's test sets: which sequences, of what size, rate and length, and where they are from.

Facts only, no pictures: the sets may not be passed on. No digests either, as their owners publish
none; lists that come with a set are read (``eval.testsets.sums``), and ``lgmc eval`` notes the
digest of the frames that it measured.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources

from codec.errors import ConfigError


@dataclass(frozen=True)
class TestSequence:
    """One sequence. width, height: pixels. fps, frames: None where the set does not settle it."""

    name: str
    width: int
    height: int
    fps: int | None
    frames: int | None

    __test__ = False  # not one of pytest's


@dataclass(frozen=True)
class TestSet:
    """A set: source: where it comes from. chroma: "420" or "rgb". bit_depth: of its raw files."""

    name: str
    source: str
    note: str
    chroma: str
    bit_depth: int | None
    sequences: tuple[TestSequence, ...]

    __test__ = False


def load_sets() -> dict[str, TestSet]:
    """Every set by name."""
    text = resources.files(__name__).joinpath("sets.json").read_text("utf-8")
    sets = {}
    for content in json.loads(text):
        sequences = tuple(TestSequence(**one) for one in content.pop("sequences"))
        sets[content["name"]] = TestSet(**content, sequences=sequences)
    return sets


def find_set(name: str) -> TestSet:
    """The set of that name, in any case. Raises ConfigError for an unknown one."""
    sets = load_sets()
    for known, one in sets.items():
        if known.lower() == name.lower():
            return one
    raise ConfigError(f"there is no test set {name!r}: choose from {', '.join(sets)}")


def find_sequence(name: str) -> tuple[TestSet, TestSequence] | None:
    """The set and sequence that a file or folder of this name (no suffix) holds, or None."""
    for one in load_sets().values():
        for sequence in one.sequences:
            if sequence.name.lower() == name.lower():
                return one, sequence
    return None
