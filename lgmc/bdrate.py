"""BD-rate of result files against an anchor's: bdrate ANCHOR.json TEST.json ...

The files are what lgmc eval writes, one per codec. A curve of fewer than four points, one that is
not monotone and curves that hardly meet get a reason instead of a number; the exit code is then 1.
Besides the mean over sequences there is the mean of the means of classes, which are the test sets
that the sequences belong to or what --classes says. Files that lgmc results import made will do.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from eval.bdrate import BD_CHOICES, MIN_OVERLAP


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("anchor", metavar="ANCHOR.json", help="the codec to hold others against")
    parser.add_argument("tests", metavar="TEST.json", nargs="+", help="one or more other codecs")
    parser.add_argument(
        "--metric",
        choices=BD_CHOICES,
        default="psnr_rgb",
        help="the quality (default psnr_rgb); ms_ssim is compared as -10 log10(1 - x)",
    )
    parser.add_argument(
        "--min-overlap",
        type=_share,
        default=MIN_OVERLAP,
        metavar="0..1",
        help=f"least share of common quality range that gives a figure (default {MIN_OVERLAP})",
    )
    parser.add_argument(
        "--classes",
        metavar="FILE",
        help='JSON {"class": ["sequence", ...], ...}, before the test sets that sequences are of',
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON on standard output")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number in 0..1")
    return value


def run(args: argparse.Namespace) -> int:
    from eval.compare import compare
    from eval.report.folder import SUMMARY
    from eval.results import load_results
    from eval.tables import comparison_lines
    from eval.testsets.classes import load_classes

    classes = load_classes(args.classes) if args.classes else None
    anchor = load_results(args.anchor)
    # DIR/*.json is short for all curves of a folder, where eval also puts its summary.
    curves = [path for path in args.tests if Path(path).name != SUMMARY] or args.tests
    tests = [load_results(path) for path in curves]
    comparisons = [
        compare(anchor, test, args.metric, min_overlap=args.min_overlap, classes=classes)
        for test in tests
    ]
    if args.json:
        print(json.dumps([one.to_json() for one in comparisons], indent=2))
    else:
        print("\n\n".join("\n".join(comparison_lines(one)) for one in comparisons))
    complete = all(len(one.computed) == len(one.deltas) for one in comparisons)
    return 0 if complete else 1
