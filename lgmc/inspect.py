"""Show what a .lgmc file holds: header, packets, bits per frame and per part.

Every byte of the file is accounted for. The bits of the parts (motion, residual, hyper ...) come
from decoding with the stream's model; --no-parts skips that. A damaged file is shown up to the
damage, and the exit code is then 1.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from codec.errors import LgmcError
from lgmc.arguments import add_machine, apply_machine
from lgmc.progress import Progress
from lgmc.wording import count

if TYPE_CHECKING:
    from lgmc.stream_report import StreamReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN.lgmc", help="the stream; - is standard input")
    parser.add_argument("--frames", action="store_true", help="a line for every frame")
    parser.add_argument("--no-parts", action="store_true", help="do not decode: no bits per part")
    parser.add_argument("--model", metavar="FILE", help="the model, where it is not one that ships")
    parser.add_argument("--json", action="store_true", help="everything as JSON on standard output")
    add_machine(parser)


def run(args: argparse.Namespace) -> int:
    from lgmc.stream_report import open_stream, survey

    with open_stream(args.source) as stream:
        report = survey(stream, args.source)
    note = None
    if not args.no_parts and args.source != "-" and report.frames:
        note = _add_parts(report, args)
    if args.json:
        print(json.dumps(report.as_json(args.source), indent=2))
    else:
        print("\n".join(describe(report, args.source, every_frame=args.frames)))
        if note:
            print(f"\nno bits per part: {note}")
    if report.damage is not None:
        raise report.damage
    return 0


def _add_parts(report: StreamReport, args: argparse.Namespace) -> str | None:
    """Fill in the parts of every frame; where the model is not at hand, return the reason."""
    apply_machine(args)
    from codec.session import account

    try:
        with Progress("inspect") as progress:
            per_frame = account(
                args.source, model=args.model, device=args.device, partial=True, progress=progress
            )
            for frame, parts in zip(report.frames, per_frame, strict=False):
                frame.parts = dict(parts)
    except LgmcError as exc:
        if args.model is not None:
            raise
        return str(exc)
    return None


def describe(report: StreamReport, name: str, *, every_frame: bool) -> list[str]:
    """The report as lines of text."""
    lines = _describe_header(report, name)
    lines += ["", *_describe_uses(report), "", *_describe_types(report)]
    if report.parts():
        lines += ["", *_describe_parts(report)]
    if every_frame:
        lines += ["", *_describe_frames(report)]
    return lines


def _describe_header(report: StreamReport, name: str) -> list[str]:
    header = report.header
    chroma = {"420": "4:2:0", "444": "4:4:4", "rgb": "RGB"}[header.chroma]
    colour = "" if header.chroma == "rgb" else f", {header.matrix} {header.range} range"
    frames = len(report.frames)
    seconds = float(frames / header.fps)
    period = header.intra_period
    return [
        f"{name}: {report.bytes:,} bytes, {report.bits_per_pixel:.4f} bit/pixel, "
        f"{report.kbit_per_second:,.1f} kbit/s",
        f"  video    {header.width}x{header.height}, {chroma} {header.bit_depth} bit{colour}",
        f"  length   {count(frames, 'frame')} at {float(header.fps):.6g} a second, {seconds:.2f} s",
        f"  model    {header.model}, weights {header.weights_digest.hex()}",
        f"  coding   quality {header.quality}, "
        + (f"an I frame every {period}" if period else "one I frame")
        + (", digests" if header.digests else ", no digests"),
    ]


def _describe_uses(report: StreamReport) -> list[str]:
    meaning = {
        "header": "sequence header",
        "framing": "packet types and lengths",
        "quality": "quality of each frame",
        "payload": "frames (rANS)",
        "digest": "digests of the pictures",
        "checksum": "checksums of the frames",
        "index": "index of the I frames",
        "end": "end packet",
        "unread": "after the damage, not read",
    }
    lines = [f"  {'bytes':>12}  {'share':>6}"]
    for use, size in report.uses.items():
        if size or use != "unread":
            lines.append(f"  {size:>12,}  {size / report.bytes:>6.1%}  {meaning[use]}")
    lines.append(f"  {sum(report.uses.values()):>12,}  {1:>6.1%}  the whole file")
    return lines


def _describe_types(report: StreamReport) -> list[str]:
    pixels = report.header.width * report.header.height
    lines = []
    for letter, (number, size) in report.by_type().items():
        mean = size / number
        qualities = [frame.quality for frame in report.frames if frame.type == letter]
        low, high = min(qualities), max(qualities)
        lines.append(
            f"  {count(number, f'{letter} frame')}, {mean:,.0f} bytes each, "
            f"{8 * mean / pixels:.4f} bit/pixel, "
            + (f"quality {low}" if low == high else f"quality {low} .. {high}")
        )
    return lines


def _describe_parts(report: StreamReport) -> list[str]:
    parts = report.parts()
    total = sum(parts.values())
    lines = [f"  {'bits':>12}  {'share':>6}  part (by the model's probabilities)"]
    for part, bits in parts.items():
        share = bits / total if total else 0.0
        lines.append(f"  {bits:>12,.0f}  {share:>6.1%}  {part}")
    return lines


def _describe_frames(report: StreamReport) -> list[str]:
    names = list(report.parts())
    lines = [
        f"  {'frame':>6} type quality {'offset':>10} {'bytes':>9}"
        + "".join(f" {name:>14}" for name in names)
    ]
    for frame in report.frames:
        bits = "".join(f" {frame.parts.get(name, 0.0):>14,.0f}" for name in names)
        lines.append(
            f"  {frame.frame:>6} {frame.type:>4} {frame.quality:>7} {frame.offset:>10}"
            f" {frame.bytes:>9,}{bits}"
        )
    return lines
