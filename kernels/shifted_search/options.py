"""The options of the search and of the gather, checked once and handed to every back end."""

import math
from dataclasses import dataclass, fields

from kernels import checks

METRICS = ("dot", "l2")
POSITIONS = ("bilinear", "integer")
ANCHORS = ("none", "query", "flow", "exclude_query")
MODES = ("sum", "stack")


@dataclass(frozen=True)
class SearchOptions:
    """What a search is asked for; ``op.shifted_search`` explains the fields."""

    window: int
    topk: int
    patch: int = 1
    dilation: int = 1
    heads: int = 1
    metric: str = "dot"
    query_stride: int = 1
    search_stride: float = 1.0
    positions: str = "bilinear"
    keep_in_image: bool = False
    per_reference: bool = False
    anchor: str = "none"

    # The same fields in the same order in the schema of a custom operator.
    SCHEMA = (
        "int window, int topk, int patch, int dilation, int heads, str metric, int query_stride, "
        "float search_stride, str positions, bool keep_in_image, bool per_reference, str anchor"
    )

    def check(self, channels: int, references: int) -> None:
        """Raise ValueError where a field is out of its range."""
        checks.odd("window", self.window)
        checks.whole("topk", self.topk)
        checks.whole("patch", self.patch)
        checks.whole("dilation", self.dilation)
        checks.whole("heads", self.heads)
        checks.whole("query_stride", self.query_stride)
        checks.positive("search_stride", self.search_stride)
        checks.one_of("metric", self.metric, METRICS)
        checks.one_of("positions", self.positions, POSITIONS)
        checks.one_of("anchor", self.anchor, ANCHORS)
        checks.divides("heads", self.heads, "channels", channels)
        searched = 1 if self.per_reference else references
        candidates = self.window**2 * searched
        if self.topk > candidates:
            where = f"{self.window} x {self.window} x {searched} reference(s)"
            checks.refuse("topk", self.topk, f"<= {candidates}, the candidates ({where})")
        if self.anchor == "flow" and self.topk < searched:
            checks.refuse("topk", self.topk, f">= {searched}: anchor='flow' fills that many slots")
        if self.positions == "integer" and self.search_stride != int(self.search_stride):
            checks.refuse("search_stride", self.search_stride, "whole where positions='integer'")

    def values(self) -> tuple:
        """The fields in the order of ``SCHEMA``."""
        return tuple(getattr(self, name) for name in self.NAMES)

    @property
    def half(self) -> int:
        """Candidates on each side of the centre."""
        return (self.window - 1) // 2

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(nH, nW): the queries of an image of height x width."""
        return query_grid(height, width, self.query_stride)

    def chosen(self, references: int) -> int:
        """K: results per query and head."""
        return self.topk * references if self.per_reference else self.topk

    def gathering(self) -> "GatherOptions":
        """How the attention gathers what the search found: in place, patch by patch."""
        return GatherOptions(self.heads, self.patch, self.dilation, self.query_stride)

    @property
    def worst(self) -> float:
        """The score of a candidate outside the image."""
        return math.inf if self.metric == "l2" else -math.inf


SearchOptions.NAMES = tuple(field.name for field in fields(SearchOptions))


@dataclass(frozen=True)
class GatherOptions:
    """How patches are gathered; ``op.gather`` explains the fields."""

    heads: int = 1
    patch: int = 1
    dilation: int = 1
    query_stride: int = 1
    mode: str = "sum"

    SCHEMA = "int heads, int patch, int dilation, int query_stride, str mode"

    def check(self, channels: int) -> None:
        """Raise ValueError where a field is out of its range."""
        checks.whole("heads", self.heads)
        checks.whole("patch", self.patch)
        checks.whole("dilation", self.dilation)
        checks.whole("query_stride", self.query_stride)
        checks.one_of("mode", self.mode, MODES)
        checks.divides("heads", self.heads, "channels", channels)

    def values(self) -> tuple:
        """The fields in the order of ``SCHEMA``."""
        return tuple(getattr(self, name) for name in self.NAMES)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """(nH, nW): the queries of an image of height x width."""
        return query_grid(height, width, self.query_stride)


GatherOptions.NAMES = tuple(field.name for field in fields(GatherOptions))


def query_grid(height: int, width: int, query_stride: int) -> tuple[int, int]:
    """(nH, nW): queries sit at the pixels (h * query_stride, w * query_stride)."""
    return (height - 1) // query_stride + 1, (width - 1) // query_stride + 1
