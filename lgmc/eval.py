"""Rate-distortion points and BD-rates of models and of conventional encoders on the same frames.

Every point is a real file, decoded from that file. DIR gets a JSON file per codec (for lgmc
bdrate), points.csv, bdrate.json and RD plots. What was measured there before is not measured again.
A point that fails is reported, the others go on, and the exit code is then 1. docs/protocol.md has
the conditions.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from codec.effort import NO_EFFORT
from codec.errors import ConfigError
from eval import QPS, QUALITIES
from lgmc.arguments import (
    add_machine,
    add_reading,
    apply_machine,
    effort,
    integer,
    reader_options,
)

if TYPE_CHECKING:
    from eval.pool import Pool
    from eval.results import Failure

T = TypeVar("T")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        action="append",
        metavar="NAME|FILE",
        help="a model; may be given several times (default lite), none: anchors alone",
    )
    parser.add_argument(
        "--codec",
        action="append",
        default=[],
        metavar="FILE.py:CLASS",
        help="a codec of your own, see docs/protocol.md; may be given several times",
    )
    parser.add_argument(
        "--sequences",
        required=True,
        metavar="PATH",
        help="a video file, a folder of pictures, or a folder of those",
    )
    parser.add_argument(
        "--anchors",
        default="x264,x265",
        metavar="A,B",
        help="{x264,x265}-{medium,veryslow,ra}, {svtav1,libaom,vvenc,hm,vtm}-{ld,ra}, where ld, "
        "medium and veryslow are of low delay and ra is random access; x264, x265: medium and "
        "veryslow; svtav1, libaom, vvenc, hm, vtm: both; ld, ra: all of that order; all; none "
        "(default x264,x265). hm and vtm: docs/protocol.md",
    )
    parser.add_argument(
        "--qualities",
        type=_levels(63),
        default=QUALITIES,
        metavar="Q,Q",
        help=f"quality indices of the models (default {_joined(QUALITIES)})",
    )
    parser.add_argument(
        "--efforts",
        type=_several(effort),
        default=(NO_EFFORT,),
        metavar="EFFORT,EFFORT",
        help="efforts of the models' encoders (lgmc encode --effort), each a codec of its own in "
        "the results (default 0)",
    )
    parser.add_argument(
        "--qps",
        type=_levels(51),
        default=QPS,
        metavar="QP,QP",
        help=f"qps of the anchors (default {_joined(QPS)})",
    )
    parser.add_argument(
        "--av1-qps",
        type=_levels(63),
        default=None,
        metavar="QP,QP",
        help="quantizers 0..63 of svtav1 and libaom, whose scale is another (default 22,32,42,52)",
    )
    parser.add_argument(
        "--frames", type=integer(1), metavar="N", help="only the first N frames of each sequence"
    )
    parser.add_argument(
        "--intra-period",
        type=integer(0, 65535),
        default=32,
        metavar="N",
        help="an I frame every N frames, for every codec; 0: only the first (default 32)",
    )
    parser.add_argument(
        "--published",
        action="append",
        default=[],
        metavar="NAME",
        help="published figures to print and draw beside ours, marked as quoted, such as "
        "dcvc-tcm-curves or ecvc-table1; may be given several times",
    )
    parser.add_argument(
        "--metrics",
        default="",
        metavar="A,B",
        help="besides what is always measured: vmaf, xpsnr (both through FFmpeg, slow)",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder for the results")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="measure on the workers of a Ray cluster: HOST:PORT, auto for the one that this "
        "machine is in, local:N for N workers here; needs the extra cluster (docs/install.md)",
    )
    parser.add_argument(
        "--force", action="store_true", help="measure again what was measured before"
    )
    parser.add_argument("--json", action="store_true", help="everything as JSON on standard output")
    add_reading(parser)
    add_machine(parser)


def run(args: argparse.Namespace) -> int:
    from eval.anchors import AV1_QPS, anchor_names

    anchors = anchor_names(args.anchors)
    models = [name for name in args.model or ["lite"] if name != "none"]
    if not anchors and not models and not args.codec:
        raise ConfigError("nothing to evaluate: --model none and --anchors none leave no codec")
    if models or args.codec:
        apply_machine(args, here=args.cluster is None)
    from eval.published import load_published
    from eval.run import evaluate
    from eval.tables import comparison_lines, points_table, published_lines

    with _pool(args) as pool:
        evaluation = evaluate(
            args.sequences,
            models=models,
            anchors=anchors,
            codecs=args.codec,
            qualities=args.qualities,
            efforts=args.efforts,
            qps=args.qps,
            av1_qps=args.av1_qps or AV1_QPS,
            frames=args.frames,
            intra_period=args.intra_period,
            out=Path(args.out),
            published=tuple(args.published),
            metrics=tuple(dict.fromkeys(args.metrics.replace(",", " ").split())),
            force=args.force,
            device=args.device,
            reader_options=reader_options(args),
            pool=pool,
            report=lambda line: print(f"eval: {line}", file=sys.stderr, flush=True),
        )
    failures = evaluation.failures
    if args.json:
        content = {
            "results": [one.model_dump(mode="json") for one in evaluation.results],
            "comparisons": [one.to_json() for one in evaluation.comparisons],
            "files": [str(path) for path in evaluation.files],
        }
        print(json.dumps(content, indent=1, allow_nan=False))
    else:
        print("\n".join(points_table(evaluation.results)))
        for comparison in evaluation.comparisons:
            print("", *comparison_lines(comparison), sep="\n")
        for name in args.published:
            print("", *published_lines(load_published(name)), sep="\n")
        print(f"\nwritten to {args.out}: {', '.join(path.name for path in evaluation.files)}")
    for line in _failure_lines(failures):
        print(f"eval: {line}", file=sys.stderr)
    return 1 if failures else 0


def _pool(args: argparse.Namespace) -> AbstractContextManager[Pool | None]:
    """Who measures; None: this process."""
    if args.cluster is None:
        return nullcontext()
    from eval.cluster import open_cluster

    return open_cluster(args.cluster, args.threads)


def _failure_lines(failures: list[tuple[str, Failure]]) -> list[str]:
    """A line per codec and reason, however many points it cost."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for codec, failure in failures:
        where = f"{failure.level} on {failure.sequence}"
        reasons.setdefault((codec, failure.error), []).append(where)
    return [
        f"no point of {codec} at {places[0]}"
        + (f" (and {len(places) - 1} more)" if len(places) > 1 else "")
        + f": {error}"
        for (codec, error), places in reasons.items()
    ]


def _levels(top: int):
    """An argparse type: "22,27" -> (22, 27), each 0..top."""
    return _several(integer(0, top))


def _several(one: Callable[[str], T]) -> Callable[[str], tuple[T, ...]]:
    """An argparse type: different values of a type, with commas between them."""

    def parse(text: str) -> tuple[T, ...]:
        values = tuple(one(part.strip()) for part in text.split(",") if part.strip())
        if not values:
            raise argparse.ArgumentTypeError(f"{text!r} holds no number; give them as 22,27,32")
        if len(set(values)) != len(values):
            raise argparse.ArgumentTypeError(f"{text!r} holds a number twice")
        return values

    return parse


def _joined(levels: tuple[int, ...]) -> str:
    return ",".join(map(str, levels))
