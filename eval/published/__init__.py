"""Figures that others published, as data: one JSON file per source, with its conditions.

They are quoted, not measured here: a table or plot that shows them says so, and nothing is computed
from them.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from codec.errors import ConfigError
from eval.metrics import METRICS


class _Quoted(BaseModel):
    """source: publication and place. conditions: what it says of how it was measured."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    format: Literal["lgmc-published/1"]
    source: str
    conditions: dict[str, str]


class PublishedTable(_Quoted):
    """BD-rates in % against ``anchor``, per codec and test set; quality: by what, in its words."""

    kind: Literal["bd_rate"]
    quality: str
    anchor: str
    rows: dict[str, dict[str, float]]


class PublishedCurve(BaseModel):
    """Points (bits per pixel, dB) of one codec, averaged over one test set, by rising rate."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    codec: str
    set: str
    points: list[tuple[float, float]]

    @property
    def label(self) -> str:
        """As in a legend."""
        return f"{self.codec} on {self.set} (quoted)"


class PublishedCurves(_Quoted):
    """Rate-distortion curves by one metric of ``eval.metrics.METRICS``."""

    kind: Literal["curves"]
    metric: Literal[METRICS]
    curves: list[PublishedCurve]


Published = Annotated[PublishedTable | PublishedCurves, Field(discriminator="kind")]


def published_names() -> list[str]:
    """What can be loaded, sorted."""
    files = resources.files(__name__).iterdir()
    return sorted(file.name[:-5] for file in files if file.name.endswith(".json"))


def load_published(name: str) -> PublishedTable | PublishedCurves:
    """The figures of that name. Raises ConfigError where there are none."""
    if name not in published_names():
        known = ", ".join(published_names())
        raise ConfigError(f"there are no published figures {name!r}: choose from {known}")
    content = json.loads(resources.files(__name__).joinpath(f"{name}.json").read_text("utf-8"))
    return TypeAdapter(Published).validate_python(content)
