"""Draw what happened in a P frame: flow, matches, attention, bits and errors.

Writes DIR/explain.png and one PNG a panel. With --original the errors are to the video that was
encoded, else to the decoded frame.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from lgmc.arguments import add_machine, add_reading, apply_machine, integer, reader_options


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="IN.lgmc", help="the stream")
    parser.add_argument(
        "--frame", type=integer(1), default=1, metavar="N", help="a P frame, from 0 (default 1)"
    )
    parser.add_argument("--original", metavar="VIDEO", help="the video that was encoded")
    parser.add_argument("--out", type=Path, default=Path("explained"), metavar="DIR")
    parser.add_argument("--model", metavar="FILE", help="the model, where it is not one that ships")
    parser.add_argument("--json", action="store_true", help="the figures as JSON")
    add_reading(parser)
    add_machine(parser)


def run(args: argparse.Namespace) -> int:
    apply_machine(args)
    from eval.explain import explain
    from eval.explain_plot import draw

    explanation = explain(
        args.source,
        args.frame,
        model=args.model,
        original=args.original,
        device=args.device,
        reader_options=reader_options(args),
    )
    files = draw(explanation, args.out)
    if args.json:
        content = {**explanation.figures(), "files": [str(path) for path in files]}
        print(json.dumps(content, indent=1))
    else:
        for stage, decibels in explanation.figures()["psnr"].items():
            print(f"{stage:<10} {decibels:6.2f} dB")
        print(f"written: {files[0]} and {len(files) - 1} panels beside it")
    return 0
