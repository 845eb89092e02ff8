"""The anchors: conventional encoders as the field's papers run them, to raw streams.

Fixed qp (crf depends on the frame rate), one intra frame every ``intra_period``, no scene cuts, an
explicit frame rate, raw .264, .265, .266 and .obu files whose bytes are the bits. The table of
encoders and their exact arguments is ``eval.anchors.table``; each runs one thread per stream, so
that its bits do not depend on the machine, and several points are coded at once.
"""

from pathlib import Path

from eval.anchors.anchor import Anchor
from eval.anchors.pixels import coded_format
from eval.anchors.reference import REFERENCES, ReferenceAnchor
from eval.anchors.table import ANCHORS, AV1_QPS, FAMILIES, anchor_names

__all__ = [
    "ANCHORS",
    "AV1_QPS",
    "FAMILIES",
    "REFERENCES",
    "Anchor",
    "ReferenceAnchor",
    "anchor_names",
    "coded_format",
    "make_anchor",
]


def make_anchor(
    name: str, intra_period: int = 32, ffmpeg: str | Path | None = None
) -> Anchor | ReferenceAnchor:
    """The anchor of that name: an encoder of FFmpeg's, or HM or VTM by an executable of yours.

    Raises ConfigError for an unknown name or a negative intra period.
    """
    kind = ReferenceAnchor if name in REFERENCES else Anchor
    return kind(name, intra_period, ffmpeg)
