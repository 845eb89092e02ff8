"""What a folder of prepared frames says of itself: by which recipe, from what, at which rates."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from codec.errors import VideoError

FILE = "prepared.json"


class PreparedSequence(BaseModel):
    """One folder of frames.

    fps: as a fraction. limit: the number of frames asked for, None for all. source: the name of the
    file it was made of. test_set: that which has a sequence of this name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fps: str
    frames: int
    limit: int | None
    source: str
    test_set: str | None = None


class Prepared(BaseModel):
    """The content of prepared.json. ffmpeg: version of the FFmpeg that converted, if one did."""

    model_config = ConfigDict(extra="forbid")

    format: str = "lgmc-prepared/1"
    recipe: str
    ffmpeg: str | None = None
    sequences: dict[str, PreparedSequence] = {}

    def conditions(self) -> dict[str, str]:
        """As the conditions of a result carry it."""
        found = {"recipe": self.recipe}
        if self.ffmpeg:
            found["ffmpeg"] = self.ffmpeg
        sets = sorted({one.test_set for one in self.sequences.values() if one.test_set})
        return {**found, "test_sets": ", ".join(sets)} if sets else found


def read_prepared(folder: Path) -> Prepared | None:
    """The folder's prepared.json; None where there is none. Raises VideoError for a damaged one."""
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return Prepared.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as exc:
        raise VideoError(f"{path} is damaged: prepare the frames again") from exc
