"""Train variants of a model alike and compare them on clips that none was trained on.

lgmc ablate configs/ablation/lite_local.yaml configs/ablation/lite_*.yaml --budget 1000
    --data clips --sequences other-clips --out runs/ablation

The first config is what the others are compared with. Run again, it goes on where it stopped.
Under torchrun the jobs are shared out among its processes, each with a GPU of its own where
training.device is cuda, and the first prints the table.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from eval import QUALITIES
from lgmc.arguments import integer


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("configs", nargs="+", type=Path, metavar="CONFIG")
    parser.add_argument(
        "--budget", type=integer(1), required=True, metavar="STEPS", help="of every variant"
    )
    parser.add_argument("--seeds", type=integer(1), default=1, metavar="N", help="default 1")
    parser.add_argument("--data", required=True, metavar="PATH", help="clips to train on")
    parser.add_argument("--sequences", required=True, metavar="PATH", help="clips to measure on")
    parser.add_argument("--frames", type=integer(1), metavar="N", help="of each, the first N")
    parser.add_argument("--intra-period", type=integer(0, 65535), default=32, metavar="N")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the runs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="override of every config"
    )
    parser.add_argument("--json", action="store_true", help="the table as JSON")


def run(args: argparse.Namespace) -> int:
    from eval.ablation import check_fair, jobs_of, run_job, summarise, table, take_device

    configs = list(dict.fromkeys(args.configs))
    jobs = jobs_of(configs, list(range(args.seeds)), args.out)
    overrides = [f"training.data.paths={json.dumps([args.data])}", *args.set]
    check_fair(jobs, args.budget, overrides)
    rank, world, local = (int(os.environ.get(name, default)) for name, default in _RANKS)
    if world > 1:
        take_device(jobs[0], overrides, local)
    for job in jobs[rank::world]:
        run_job(
            job,
            budget=args.budget,
            overrides=overrides,
            sequences=args.sequences,
            frames=args.frames,
            intra_period=args.intra_period,
            qualities=QUALITIES,
            report=lambda line: print(f"ablate: {line}", file=sys.stderr, flush=True),
        )
    if rank:
        return 0
    rows = summarise(jobs)
    if args.json:
        print(json.dumps([row.to_json() for row in rows], indent=1))
    else:
        print("\n".join(table(rows)))
    missing = sum(not job.results.exists() for job in jobs)
    if missing:
        print(f"ablate: {missing} jobs are still being done elsewhere", file=sys.stderr)
    return 0


_RANKS = (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
