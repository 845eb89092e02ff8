"""What a paper must state beside its figures, from the result files themselves.

Everything that another person would need to get the same numbers, in the order of docs/protocol.md.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from codec.effort import Effort
from eval.anchors import ANCHORS, REFERENCES
from eval.bdrate import METHOD
from eval.report.folder import is_outside
from eval.results import RdResults, SequenceInfo

_UNKNOWN = "not known"
_MEANING = {
    "psnr_rgb": "PSNR of 8-bit RGB, one mean squared error over R, G and B",
    "psnr_y": "PSNR of the luma plane",
    "psnr_u": "PSNR of the U plane",
    "psnr_v": "PSNR of the V plane",
    "psnr_yuv611": "(6 PSNR Y + PSNR U + PSNR V) / 8",
    "psnr_yuv411": "(4 PSNR Y + PSNR U + PSNR V) / 6",
    "ms_ssim": "MS-SSIM of the same RGB, 0..1",
    "vmaf": "VMAF of FFmpeg's libvmaf filter",
    "xpsnr_y": "XPSNR of the luma plane by FFmpeg's filter",
    "xpsnr_u": "XPSNR of the U plane by FFmpeg's filter",
    "xpsnr_v": "XPSNR of the V plane by FFmpeg's filter",
}


def statement(results: Sequence[RdResults]) -> list[str]:
    """Lines of Markdown on one or more codecs' results; what a file does not say is "not known"."""
    lines = ["# What was measured, and how", ""]
    lines += _codecs(results)
    lines += ["", "## Sequences", "", *_sequences(results)]
    lines += ["", "## Rate and distortion", "", *_figures(results)]
    lines += ["", "## Where and when", "", *_machine(results)]
    return lines


def _codecs(results: Sequence[RdResults]) -> list[str]:
    lines = ["## Codecs", ""]
    for one in results:
        levels = sorted({point.level for point in one.points})
        lines.append(f"- **{one.codec}**: {_identity(one)}")
        at = ", ".join(map(str, levels)) or "none"
        lines.append(f"  - {one.parameter} {at}; intra period {_period(one)}")
        if one.failures:
            lines.append(f"  - {len(one.failures)} point(s) failed and are in no figure")
    return lines


def _identity(one: RdResults) -> str:
    if one.conditions is None:
        files = ", ".join(one.imported.files) if one.imported else _UNKNOWN
        return f"imported from {files}; how it was measured is {_UNKNOWN}"
    codec = dict(one.conditions.codec)
    if "weights" in codec and not is_outside(one):
        effort = Effort.of(codec.get("effort", 0))
        delay = (
            "low delay"
            if not effort.ahead
            else "low delay but for one frame that the encoder waits for"
        )
        return (
            f"model `{codec.get('model', one.codec)}`, weights {codec['weights']}, sources "
            f"{codec.get('code', _UNKNOWN)[:16]}, {delay}, on {one.conditions.device}"
            + (f", encoder's effort {effort}" if effort else "")
        )
    options = codec.pop("options", None)
    rest = ", ".join(f"{name} {value}" for name, value in codec.items() if name != "anchor")
    parts = (_delay(codec.get("anchor")), rest, f"`{options}`" if options else "")
    return ", ".join(part for part in parts if part) or _UNKNOWN


def _delay(anchor: str | None) -> str:
    """How far an anchor looks ahead; empty for one that is not of the table."""
    kind = ANCHORS.get(anchor) or REFERENCES.get(anchor)
    if kind is None:
        return ""
    return "low delay" if kind.low_delay else "random access: coding waits for later frames"


def _period(one: RdResults) -> str:
    if one.intra_period is None:
        return _UNKNOWN
    return f"{one.intra_period} frames" if one.intra_period else "none but the first frame"


def _sequences(results: Sequence[RdResults]) -> list[str]:
    """Each once where all files agree on it, and every reading of it where they do not."""
    found: dict[SequenceInfo, list[str]] = {}
    for one in results:
        for info in one.sequences:
            found.setdefault(info, []).append(one.codec)
    names = [info.name for info in found]
    lines = []
    for info, codecs in found.items():
        only = f" (for {', '.join(codecs)})" if names.count(info.name) > 1 else ""
        size = f"{info.width}x{info.height}" if info.width and info.height else "of unknown size"
        chroma = {"420": "4:2:0", "444": "4:4:4", "rgb": "RGB"}.get(info.chroma or "", _UNKNOWN)
        lines.append(
            f"- {info.name}{only}: {size}, frames {_known(info.frames)}, frames a second "
            f"{_known(info.fps)}, {chroma}, bits {_known(info.bit_depth)}, matrix "
            f"{_known(info.matrix)}, range {_known(info.range)}; SHA-256 of its planes "
            f"{_known(info.digest)}"
        )
    ways = [one.conditions.prepared for one in results if one.conditions]
    said = [f"- prepared: {way}" if way else "- frames as they came" for way in ways]
    return [*lines, *dict.fromkeys(said)]


def _figures(results: Sequence[RdResults]) -> list[str]:
    metrics = dict.fromkeys(name for one in results for p in one.points for name in p.metrics)
    lines = []
    if any(one.imported is None for one in results):
        lines.append(
            "- rate: bits of the whole file, headers included, over luma pixels x frames; the file "
            "was written and the frames were decoded from it"
        )
        lines.append(
            "- distortion: of the decoded integer planes in the source's format, float64, mean "
            "over frames of each one's figure, mean over sequences after that"
        )
    lines += [f"  - `{name}`: {_MEANING[name]}" for name in metrics]
    for one in results:
        for note in one.imported.notes if one.imported else ():
            lines.append(f"- {one.codec}, imported: {note}")
    lines.append(
        f"- BD-rate: {METHOD} over log-rate, per sequence, then the mean over sequences; state the "
        "share of common quality that `lgmc bdrate` prints beside it"
    )
    return lines


def _machine(results: Sequence[RdResults]) -> list[str]:
    lines = []
    for one in results:
        if one.conditions is None:
            lines.append(f"- {one.codec}: {_UNKNOWN}")
            continue
        machine = ", ".join(f"{k} {v}" for k, v in one.conditions.machine.items() if v is not None)
        measured = sorted(point.measured for point in one.points if point.measured)
        when = f"measured {measured[0]} to {measured[-1]}" if measured else "nothing measured"
        lines.append(f"- {one.codec}: {when}, written {one.conditions.date}; {machine}")
        versions = ", ".join(f"{k} {v}" for k, v in one.conditions.versions.items())
        lines.append(f"  - {versions}")
        lines.append(f"  - `{shlex.join(one.conditions.command)}`")
    return lines


def _known(value: object) -> str:
    return _UNKNOWN if value is None else str(value)
