"""Result files: the schema of ours, and exchange with CompressAI's and DCVC's.

lgmc results schema              JSON Schema of what lgmc eval writes
lgmc results export FILE ...     as a file of CompressAI or DCVC
lgmc results import FILE ...     one of ours from theirs; what they do not say stays unknown
lgmc results state FILE|DIR ...  what a paper must state beside figures from them, as Markdown
docs/results_format.md has every field, and which becomes which.
"""

from __future__ import annotations

import argparse
import json
import sys

from lgmc.arguments import rate, size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    schema = actions.add_parser("schema", help="JSON Schema of our result files")
    schema.add_argument(
        "--tables", action="store_true", help="the fields as Markdown tables instead"
    )
    schema.set_defaults(action=_schema)
    export = actions.add_parser("export", help="write one as CompressAI or DCVC would")
    export.add_argument("file", metavar="FILE", help="a result file that lgmc eval wrote")
    export.add_argument("--to", required=True, choices=("compressai", "dcvc"), help="whose format")
    export.add_argument(
        "--sequence",
        metavar="NAME",
        help="this one alone (default: CompressAI the mean over all, DCVC every one)",
    )
    export.add_argument(
        "--dataset", metavar="NAME", help="DCVC's data set (default: each one's test set)"
    )
    export.add_argument(
        "--psnr",
        choices=("rgb", "yuv"),
        default="rgb",
        help="what DCVC's one PSNR is: rgb, with MS-SSIM (default), or 6:1:1 with the planes'",
    )
    export.add_argument("-o", "--out", required=True, metavar="OUT", help="the file to write")
    export.set_defaults(action=_export)
    imports = actions.add_parser("import", help="make one of ours of CompressAI's or DCVC's")
    imports.add_argument("files", metavar="FILE", nargs="+", help="their files, of one codec")
    imports.add_argument(
        "--sequence",
        action="append",
        default=[],
        metavar="NAME",
        help="CompressAI: of what the figures are; DCVC: the sequences to take (default: all)",
    )
    imports.add_argument("--dataset", metavar="NAME", help="DCVC: the data set to take")
    imports.add_argument("--codec", metavar="NAME", help="a name; DCVC's files have none")
    imports.add_argument("--size", type=size, metavar="WxH", help="of the frames, if not known")
    imports.add_argument("--fps", type=rate, metavar="F", help="frames a second, if not known")
    imports.add_argument(
        "--ms-ssim",
        choices=("auto", "linear", "db"),
        default="auto",
        help="how MS-SSIM is stated: 0..1, dB, or told by its values (default)",
    )
    imports.add_argument("-o", "--out", required=True, metavar="OUT.json", help="the file to write")
    imports.set_defaults(action=_import)
    state = actions.add_parser("state", help="what a paper must state beside the figures")
    state.add_argument(
        "paths", metavar="FILE|DIR", nargs="+", help="result files, or folders of lgmc eval"
    )
    state.set_defaults(action=_state)


def run(args: argparse.Namespace) -> int:
    return args.action(args)


def _schema(args: argparse.Namespace) -> int:
    from eval.results_schema import field_tables, results_schema

    print(field_tables() if args.tables else json.dumps(results_schema(), indent=1))
    return 0


def _export(args: argparse.Namespace) -> int:
    from codec.video.target import check_not_itself
    from eval.exchange import export_results
    from eval.results import load_results, write_text

    check_not_itself(args.file, args.out, "-o")
    results = load_results(args.file)
    content, notes = export_results(
        results, args.to, sequence=args.sequence, dataset=args.dataset, psnr=args.psnr
    )
    write_text(args.out, json.dumps(content, indent=1, allow_nan=False) + "\n")
    _say(notes)
    print(f"{args.out}: {results.codec} as a file of {args.to}")
    return 0


def _import(args: argparse.Namespace) -> int:
    from codec.video.target import check_not_itself
    from eval.exchange import import_results
    from eval.results import save_results

    for file in args.files:
        check_not_itself(file, args.out, "-o")
    results = import_results(
        args.files,
        sequences=args.sequence,
        dataset=args.dataset,
        codec=args.codec,
        size=args.size,
        fps=args.fps,
        ms_ssim=args.ms_ssim,
    )
    save_results(results, args.out)
    _say(results.imported.notes)
    counts = f"{len(results.points)} point(s) of {len(results.sequences)} sequence(s)"
    print(f"{args.out}: {results.codec}, {counts}, imported from {results.imported.format}")
    return 0


def _state(args: argparse.Namespace) -> int:
    from pathlib import Path

    from eval.report.folder import read_folder
    from eval.results import load_results
    from eval.statement import statement

    results, problems = [], []
    for path in map(Path, args.paths):
        if path.is_dir():
            measured = read_folder(path)
            results += measured.results
            problems += measured.problems
        else:
            results.append(load_results(path))
    print("\n".join(statement(results)))
    for problem in problems:
        print(f"results: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _say(notes: list[str]) -> None:
    for note in notes:
        print(f"results: note: {note}", file=sys.stderr)
