"""One page of what lgmc eval measured: curves, BD-rates, frames, pictures, conditions.

DIR is the folder that lgmc eval --out wrote. The page is one file that needs no network. With
--sequences it holds a frame of each clip, original and decoded by every codec at matched rate: they
are encoded again, from the first frame on, and kept in DIR/frames. What cannot be shown is said in
the page and on stderr, the rest is made, and the exit code is then 1. docs/report.md has more.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lgmc.arguments import add_machine, add_reading, apply_machine, integer, reader_options

if TYPE_CHECKING:
    from eval.report.embed import Album
    from eval.report.folder import Measured


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of the results")
    parser.add_argument(
        "-o", "--out", type=Path, default=Path("report.html"), metavar="FILE", help="the page"
    )
    group = parser.add_argument_group("pictures")
    group.add_argument(
        "--sequences", metavar="PATH", help="the measured clips; without them no pictures"
    )
    group.add_argument(
        "--frames-at",
        type=integer(0),
        default=8,
        metavar="N",
        help="the frame to show of each clip, from 0 (default 8)",
    )
    group.add_argument(
        "--quality",
        type=integer(0, 63),
        metavar="0..63",
        help="the model's point that the others are matched to (default: its middle one)",
    )
    group.add_argument(
        "--model",
        action="append",
        default=[],
        metavar="FILE",
        help="the weights of a measured model that does not ship; may be given several times",
    )
    group = parser.add_argument_group("for papers")
    group.add_argument("--latex", type=Path, metavar="FILE", help="the BD-rates as LaTeX tables")
    group.add_argument("--csv", type=Path, metavar="FILE", help="the BD-rates as CSV")
    group.add_argument(
        "--plots", type=Path, metavar="FOLDER", help="the curves as rd_METRIC.png and .svg"
    )
    add_reading(parser)
    add_machine(parser)


def run(args: argparse.Namespace) -> int:
    from eval.report.folder import read_folder
    from eval.report.page import save_page

    measured = read_folder(args.folder)
    album = None
    if args.sequences is not None:
        apply_machine(args)
        album = _album(args, measured)
    written = [args.out, *_papers(args, measured)]
    size = save_page(measured, args.out, album=album)
    for note in measured.notes:
        print(f"report: note: {note}", file=sys.stderr)
    for problem in measured.problems:
        print(f"report: {problem}", file=sys.stderr)
    print(f"written: {', '.join(map(str, written))}; the page has {size / 2**20:.1f} MiB")
    return 1 if measured.problems else 0


def _album(args: argparse.Namespace, measured: Measured) -> Album | None:
    """The viewer's pictures, or None where there are none; problems go to ``measured``."""
    from codec.errors import LgmcError
    from eval.report.embed import WINDOWS, make_album, middle
    from eval.report.folder import is_outside
    from eval.report.pictures import Codecs, find_clips, make_pictures

    try:
        clips, missing = find_clips(measured.results, args.sequences, reader_options(args))
    except LgmcError as exc:
        measured.problems.append(f"no pictures: {exc}")
        return None
    shown = [one for one in measured.results if not is_outside(one)]
    for one in measured.results:
        if is_outside(one):
            measured.notes.append(f"of {one.codec}, from outside, the page has figures alone")
    sets, unmade = make_pictures(
        shown,
        clips,
        Codecs(args.model, args.device),
        cache=args.folder / "frames",
        frame=args.frames_at,
        quality=args.quality,
        crop=lambda rgb: middle(rgb, WINDOWS[0]),
        report=lambda line: print(f"report: {line}", file=sys.stderr, flush=True),
    )
    album, left_out = make_album(sets)
    measured.problems += [*missing, *unmade, *left_out]
    return album if album.sets else None


def _papers(args: argparse.Namespace, measured: Measured) -> list[Path]:
    """Write the tables and plots that were asked for."""
    from eval.plot import PLOTTED, plot_rd
    from eval.report.papers import save_bd_csv, save_latex

    written = []
    for path, save in ((args.latex, save_latex), (args.csv, save_bd_csv)):
        if path is not None:
            save(measured.comparisons, path)
            written.append(path)
    if args.plots is not None:
        args.plots.mkdir(parents=True, exist_ok=True)
        for metric in PLOTTED:
            curves = (one.curve(s, metric) for one in measured.results for s in measured.sequences)
            if any(curves):
                written += plot_rd(measured.results, args.plots / f"rd_{metric}", metric=metric)
    return written
