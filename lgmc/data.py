"""Test sets: which there are, what of them is in a folder, and frames prepared by a named recipe.

lgmc data list                    the sets, their sequences and where they come from
lgmc data check PATH              what is there, whole and of the right size, and what is missing
lgmc data prepare SOURCE OUT      a folder of PNG frames of each clip, for lgmc eval --sequences OUT
"""

from __future__ import annotations

import argparse
import json
import sys

from lgmc.arguments import add_reading, integer, reader_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    listing = actions.add_parser("list", help="the sets, their sequences and where they come from")
    listing.set_defaults(action=_list)
    check = actions.add_parser("check", help="what a folder holds of them, and what is missing")
    check.add_argument("path", metavar="PATH", help="the folder that holds the sets")
    check.add_argument(
        "--set",
        action="append",
        dest="sets",
        metavar="NAME",
        help="a set to look for; may be given several times (default: what is there in part)",
    )
    check.add_argument("--json", action="store_true", help="the findings as JSON")
    check.set_defaults(action=_check)
    prepare = actions.add_parser("prepare", help="a folder of PNG frames of each clip")
    prepare.add_argument("source", metavar="SOURCE", help="a video file or a folder of them")
    prepare.add_argument("out", metavar="OUT", help="the folder for the folders of frames")
    prepare.add_argument(
        "--recipe",
        required=True,
        choices=("tcm-bt601", "bt709"),
        help="tcm-bt601: as DCVC-TCM and its successors, by FFmpeg; bt709: by the matrix of HD",
    )
    prepare.add_argument("--frames", type=integer(1), metavar="N", help="the first N of each clip")
    add_reading(prepare)
    prepare.set_defaults(action=_prepare)


def run(args: argparse.Namespace) -> int:
    return args.action(args)


def _list(args: argparse.Namespace) -> int:
    from eval.testsets import load_sets

    for one in load_sets().values():
        print(f"{one.name}: from {one.source}" + (f" ({one.note})" if one.note else ""))
        for sequence in one.sequences:
            rate = f"{sequence.fps} a second" if sequence.fps else "rate in the file"
            length = f"{sequence.frames} frames" if sequence.frames else "length not known here"
            size = f"{sequence.width}x{sequence.height}"
            print(f"  {sequence.name:44}  {size:9}  {rate}, {length}")
    return 0


def _check(args: argparse.Namespace) -> int:
    from eval.testsets import find_set
    from eval.testsets.check import check_sets

    report = check_sets(args.path, args.sets)
    complete = bool(report) and all(one.complete for found in report.values() for one in found)
    if args.json:
        content = {
            name: [
                {
                    "sequence": one.sequence.name,
                    "path": str(one.path) if one.path else None,
                    "frames": one.frames,
                    "problem": one.problem,
                }
                for one in found
            ]
            for name, found in report.items()
        }
        print(json.dumps(content, indent=1))
        return 0 if complete else 1
    if not report:
        print(f"{args.path} holds nothing of the test sets: lgmc data list says what they are")
    for name, found in report.items():
        whole = sum(one.complete for one in found)
        print(f"{name}: {whole} of {len(found)} complete")
        for one in found:
            count = f"{one.frames} frames" if one.frames else "frames not counted"
            print(f"  {one.sequence.name}: {one.problem or count}")
        if whole < len(found):
            print(f"  get what is missing from {find_set(name).source}")
    return 0 if complete else 1


def _prepare(args: argparse.Namespace) -> int:
    from eval.testsets.prepare import RECIPES, prepare

    prepared = prepare(
        args.source,
        args.out,
        args.recipe,
        frames=args.frames,
        reader_options=reader_options(args),
        report=lambda line: print(f"data: {line}", file=sys.stderr, flush=True),
    )
    count = len(prepared.sequences)
    print(f"{args.out}: {count} sequence(s) by {args.recipe}: {RECIPES[args.recipe]}")
    return 0
