"""Test sets, and clips for training: what is in a folder, frames prepared by a recipe, shards.

lgmc data list                    the sets, their sequences and where they come from
lgmc data check PATH              what is there, whole and of the right size, and what is missing
lgmc data prepare SOURCE OUT      a folder of PNG frames of each clip, for lgmc eval --sequences OUT
lgmc data pack FOLDER -o SHARDS   decoded clips in a few large files, for training.data.paths
lgmc data shorten FOLDER -o OUT   the beginnings of all clips, as they are, for a machine far away
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lgmc.arguments import add_reading, integer, reader_options

if TYPE_CHECKING:
    from codec.training.data.sources import Source


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
    pack = actions.add_parser("pack", help="decoded clips in a few large files, for training")
    pack.add_argument(
        "source", metavar="FOLDER", help="videos, folders of frames, or a Vimeo-90k root"
    )
    pack.add_argument("-o", "--out", required=True, metavar="SHARDS", help="a new folder")
    pack.add_argument(
        "--chroma",
        choices=("source", "420"),
        default="source",
        help="420: all as 8-bit 4:2:0 BT.709, as training.data.resident needs; default source",
    )
    pack.add_argument(
        "--shard-size", type=integer(1), default=4000, metavar="MB", help="default 4000"
    )
    pack.set_defaults(action=_pack)
    shorten = actions.add_parser("shorten", help="the beginnings of all clips, in so many MB")
    shorten.add_argument("source", metavar="FOLDER", help="video files")
    shorten.add_argument("-o", "--out", required=True, metavar="OUT", help="a new folder")
    shorten.add_argument(
        "--megabytes", type=integer(1), default=55, metavar="MB", help="of all of it (default 55)"
    )
    shorten.set_defaults(action=_shorten)


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
                    "checked": one.checked,
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
            count += f", {one.checked.upper()} right" if one.checked else ""
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


def _sources(folder: str) -> list[Source]:
    from codec.errors import ConfigError
    from codec.training.data.sources import find_sources

    sources = find_sources(Path(folder).expanduser())
    if not sources:
        raise ConfigError(f"{folder}: no video, no folder of frames and no Vimeo-90k there")
    return sources


def _shorten(args: argparse.Namespace) -> int:
    from codec.training.data.shorten import shorten

    done = shorten(
        _sources(args.source),
        Path(args.out),
        args.megabytes * 1_000_000,
        report=lambda line: print(f"data: {line}", file=sys.stderr, flush=True),
    )
    print(
        f"{args.out}: {done.clips} clip(s), {done.frames:,} of {done.frames_before:,} frames, "
        f"{done.size / 1e6:.1f} MB"
    )
    return 0


def _pack(args: argparse.Namespace) -> int:
    from codec.training.data.shards import pack

    sources = _sources(args.source)
    packed = pack(
        sources,
        Path(args.out),
        chroma=args.chroma,
        shard_bytes=args.shard_size * 1_000_000,
        report=lambda line: print(f"data: {line}", file=sys.stderr, flush=True),
    )
    left_out = f", {len(packed.left_out)} left out" if packed.left_out else ""
    print(
        f"{args.out}: {packed.clips} clip(s) in {packed.shards} shard(s), "
        f"{packed.size / 1e6:.0f} MB{left_out}"
    )
    return 0
