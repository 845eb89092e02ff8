"""Compress a video to a .lgmc file.

IN is anything FFmpeg reads, a .y4m, a raw .yuv (with --size, --fps and --pix-fmt), a folder of
images, or - for y4m on standard input. The file appears under its name when it is whole.
docs/rate_control.md tells how a bit rate is met.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from codec.errors import ConfigError
from lgmc.arguments import (
    add_coding,
    add_effort,
    add_machine,
    add_rate,
    add_reading,
    apply_machine,
    rate_target,
    reader_options,
)
from lgmc.failures import complain
from lgmc.progress import Progress
from lgmc.wording import bit_rate, bits_per_pixel, count, speed

if TYPE_CHECKING:
    from codec.session import EncodeReport

EXTENSION = ".lgmc"
RATE_MISSED = 3
"""Exit code: the stream is whole, and does not meet the rate or the buffer that was asked for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN", help="the video; - is y4m on standard input")
    parser.add_argument("target", metavar="OUT.lgmc", help="the stream to write")
    parser.add_argument(
        "--model", default="lite", metavar="NAME|FILE", help="see `lgmc models` (default lite)"
    )
    add_coding(parser)
    add_effort(parser)
    add_rate(parser)
    parser.add_argument(
        "--recon", metavar="FILE", help="also write what a decoder will show (.y4m, .yuv, folder)"
    )
    parser.add_argument(
        "--no-digests",
        action="store_true",
        help="leave out the digests that `lgmc decode --verify` checks (8 bytes a frame)",
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    add_reading(parser)
    add_machine(parser)


def run(args: argparse.Namespace) -> int:
    check_target(args.target)
    if args.recon == "-" and args.json:
        raise ConfigError("--json and --recon - both want standard output; give --recon a file")
    rate = rate_target(args)
    apply_machine(args)
    from codec.session import encode

    with Progress("encode") as progress:
        report = encode(
            args.source,
            args.target,
            model=args.model,
            quality=args.quality,
            intra_period=args.intra_period,
            rate=rate,
            effort=args.effort,
            frames=args.frames,
            recon=args.recon,
            digests=not args.no_digests,
            device=args.device,
            progress=progress,
            **reader_options(args),
        )
    if args.json:
        print(report.to_json())
    else:
        print(summary(args.target, report), file=sys.stderr if args.recon == "-" else sys.stdout)
    misses = report.outcome.misses if report.outcome else ()
    for miss in misses:
        complain(f"{args.target} is whole, but {miss}")
    return RATE_MISSED if misses else 0


def check_target(target: str) -> None:
    """Refuse a name that would make the stream look like something else.

    It also keeps IN and OUT apart, and special files such as /dev/null from being replaced.
    """
    if Path(target).suffix.lower() != EXTENSION:
        raise ConfigError(f"{target} does not end in {EXTENSION}; streams are written to OUT.lgmc")


def summary(target: str, report: EncodeReport) -> str:
    """What was made, in one line."""
    frames = len(report.frames)
    return (
        f"{target}: {count(frames, 'frame')} of {report.width}x{report.height}, "
        f"{report.bytes:,} bytes, "
        f"{bits_per_pixel(report.bytes, frames, report.width, report.height)}, "
        f"{bit_rate(report.bytes, frames, report.fps)}, {_qualities(report)}"
        f"{speed(frames, report.seconds)}"
    )


def _qualities(report: EncodeReport) -> str:
    """What rate control chose: ``quality 22..41, buffer up to 83 %, ``; empty without it."""
    if report.outcome is None:
        return ""
    chosen = [frame["quality"] for frame in report.frames]
    text = f"quality {min(chosen)}..{max(chosen)}, "
    if report.outcome.peak is not None:
        text += f"buffer up to {report.outcome.peak:.0%}, "
    return text
