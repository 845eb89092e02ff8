"""``lgmc VERB ...``: the parser, and the way from a verb to an exit code."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence
from importlib import import_module, metadata

from codec.memory import keep_freed_memory
from lgmc.failures import guarded
from lgmc.neighbours import check_neighbours

# Each module lgmc.VERB has add_arguments(parser) and run(args) -> int; its docstring's first line
# is the help text. They are imported to build the parser, so they import nothing heavy at the top.
VERBS = (
    "encode",
    "decode",
    "inspect",
    "eval",
    "bdrate",
    "results",
    "report",
    "data",
    "ablate",
    "runs",
    "explain",
    "bench",
    "models",
    "demo",
)

DISTRIBUTION = "lvc-lgmc"
REPORTED_PACKAGES = ("torch", "compressai", "numpy", "av", "imageio-ffmpeg")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code.

    0: done. 1: a user's error, said in one line on stderr. 2: wrong arguments (raised as SystemExit
    by argparse). 3: a stream was written, but not at the rate that was asked for. 130, 143: stopped
    by Ctrl-C or by a TERM signal. 141: the reader of our standard output went away. Faults of ours
    leave as the exception they are.
    """
    return guarded(lambda: _run(arguments))


def _run(arguments: Sequence[str] | None) -> int:
    check_neighbours()
    keep_freed_memory()
    args = build_parser().parse_args(arguments)
    return args.run(args)


def build_parser() -> argparse.ArgumentParser:
    """The parser of the whole command; every verb sets ``run``."""
    parser = argparse.ArgumentParser(
        prog="lgmc",
        description="Compress video with learned codecs: encode, decode, look inside, compare.",
        epilog="`lgmc VERB --help` explains a verb. `lgmc demo` shows a whole round trip.",
    )
    parser.add_argument(
        "--version", action=_Version, help="print the versions of lgmc and what it stands on"
    )
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        module = import_module(f"lgmc.{verb}")
        text = module.__doc__ or verb
        verb_parser = verbs.add_parser(
            verb,
            help=text.splitlines()[0].rstrip("."),
            description=text,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(verb_parser)
        verb_parser.set_defaults(run=module.run)
    return parser


def versions() -> str:
    """One line: lgmc, Python and the packages that decide results."""
    parts = [f"lgmc {_version_of(DISTRIBUTION)}", f"Python {platform.python_version()}"]
    parts += [f"{name} {_version_of(name)}" for name in REPORTED_PACKAGES]
    return ", ".join(parts)


def _version_of(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "(not installed)"


class _Version(argparse.Action):
    """Prints ``versions()``; an action, so that looking them up costs nothing otherwise."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: object) -> None:
        super().__init__(option_strings, dest, nargs=0, help=options.get("help"))

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        print(versions())
        parser.exit()
