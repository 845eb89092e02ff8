"""The class of a sequence, over which averages are made: its test set, or what a file says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from codec.errors import ConfigError
from eval.testsets import find_sequence

REST = "other"
"""The class of all sequences that neither a file nor a test set has."""


def classes_of(names: Iterable[str], mapping: dict[str, str] | None = None) -> dict[str, str]:
    """Sequence -> class, in the order of ``names``.

    mapping: sequence -> class, which goes first; then the test set that has the sequence, such as
    HEVC-B; the rest is one class, ``REST``.
    """
    mapping = mapping or {}
    classes = {}
    for name in names:
        found = None if name in mapping else find_sequence(name)
        classes[name] = mapping.get(name) or (found[0].name if found else REST)
    return classes


def load_classes(path: str | Path) -> dict[str, str]:
    """Sequence -> class of a JSON file ``{"class": ["sequence", ...], ...}``.

    Raises ConfigError, in one line, for anything else and for a sequence in two classes.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as exc:
        raise ConfigError(
            f"{path} cannot be read ({exc.strerror or exc}): check --classes"
        ) from None
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} is not JSON ({' '.join(str(exc).split())})") from None
    lists = content.values() if isinstance(content, dict) else [None]
    if not all(isinstance(one, list) and all(isinstance(n, str) for n in one) for one in lists):
        raise ConfigError(f'{path} is not of the form {{"class": ["sequence", ...], ...}}')
    classes: dict[str, str] = {}
    for name, sequences in content.items():
        for sequence in sequences:
            if classes.setdefault(sequence, name) != name:
                raise ConfigError(f"{path} has {sequence} in {classes[sequence]} and in {name}")
    return classes
