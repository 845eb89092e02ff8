"""Measure speed, operations and memory on this machine.

Each suite first checks that results are right, and measures nothing where they are not. Quote
figures of an otherwise idle machine only.
"""

import argparse
import json
from pathlib import Path

from benchmarks.registry import suites
from lgmc.arguments import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=f"of {', '.join(suites())}")
    parser.add_argument("--model", default="lite", metavar="NAME|FILE", help="default lite")
    parser.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu", help="of the kernels suite; default cpu"
    )
    parser.add_argument(
        "--threads", type=integer(1), metavar="N", help="threads of each timed process"
    )
    parser.add_argument(
        "--json", nargs="?", const="-", metavar="FILE", help="the report as JSON, in a file or here"
    )


def run(args: argparse.Namespace) -> int:
    from benchmarks.runner import describe, failed, save
    from benchmarks.runner import run as measure
    from codec.errors import ConfigError, LgmcError

    names = args.suites or suites()
    unknown = [name for name in names if name not in suites()]
    if unknown:
        raise ConfigError(f"no suite {unknown[0]!r}: there are {', '.join(suites())}")
    options = {"model": args.model, "threads": args.threads, "device": args.device}
    report = measure(names, options)
    if args.json == "-":
        print(json.dumps(report, indent=1))
    else:
        if args.json:
            save(report, Path(args.json))
        print(describe(report))
    refused = failed(report)
    if refused:
        raise LgmcError(f"bench: {len(refused)} not timed, the first: {refused[0]}")
    return 0
