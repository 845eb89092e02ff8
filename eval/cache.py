"""Measured points on disk, addressed by everything that decides them, so no work is done twice."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from eval.results import RdPoint, write_text


class PointCache:
    """A folder of points, one JSON file each, named by the SHA-256 of its key.

    A key is a dictionary of the input's digest, the codec's identity, level and intra period, and
    the digest of the code that measures. A file that is damaged or of an older schema counts as
    absent.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, key: dict[str, Any]) -> Path:
        """Where the point of ``key`` is, or would be."""
        text = json.dumps(key, sort_keys=True, allow_nan=False)
        return self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"

    def load(self, key: dict[str, Any]) -> RdPoint | None:
        """The point of ``key``, or None."""
        try:
            content = json.loads(self.path(key).read_text(encoding="utf-8"))
            if content["key"] != key:
                return None
            return RdPoint.model_validate(content["point"])
        except (OSError, ValueError, KeyError, TypeError, ValidationError):
            return None

    def store(self, key: dict[str, Any], point: RdPoint) -> None:
        """Keep a point. Raises ResultsError where the folder cannot be written."""
        content = {"key": key, "point": point.model_dump(mode="json")}
        write_text(self.path(key), json.dumps(content, sort_keys=True, allow_nan=False) + "\n")
