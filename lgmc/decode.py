"""Decode a .lgmc file to a video.

OUT is a .y4m, .yuv, .mp4 or .mkv file, a folder (of PNG), or - for y4m on standard output.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from codec.errors import ConfigError
from lgmc.arguments import add_machine, apply_machine
from lgmc.failures import complain
from lgmc.progress import Progress
from lgmc.wording import count, speed

if TYPE_CHECKING:
    from codec.session import DecodeReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN.lgmc", help="the stream; - is standard input")
    parser.add_argument("target", metavar="OUT", help="the video to write")
    parser.add_argument("--model", metavar="FILE", help="the model, where it is not one that ships")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="check that the pictures are the encoder's, bit for bit",
    )
    parser.add_argument(
        "--partial", action="store_true", help="keep the whole frames before a damage"
    )
    parser.add_argument("--json", action="store_true", help="the report as JSON on standard output")
    add_machine(parser)


def run(args: argparse.Namespace) -> int:
    if args.target == "-" and args.json:
        raise ConfigError("--json and OUT - both want standard output; give OUT a file")
    apply_machine(args)
    from codec.session import decode_to_file

    with Progress("decode") as progress:
        report = decode_to_file(
            args.source,
            args.target,
            model=args.model,
            device=args.device,
            partial=args.partial,
            verify=args.verify,
            progress=progress,
        )
    if report.damage is not None:
        # Asked for with --partial, so a success; but no one should take the rest for the whole.
        complain(str(report.damage))
    if args.json:
        print(report.to_json())
    else:
        print(summary(args, report), file=sys.stderr if args.target == "-" else sys.stdout)
    return 0


def summary(args: argparse.Namespace, report: DecodeReport) -> str:
    """What was made, in one line."""
    verified = ", every digest right" if args.verify else ""
    return (
        f"{args.target}: {count(report.frames, 'frame')} of {report.width}x{report.height}, "
        f"{speed(report.frames, report.seconds)}{verified}"
    )
