"""List training runs, compare them, or draw their curves.

lgmc runs [FOLDER]                     those in a folder and below it (default runs)
lgmc runs compare RUN RUN ...          where configurations differ, validations, final figures
lgmc runs plot RUN RUN ... -o FILE.png loss and validation over the steps

A RUN is a run's folder. Whether a run is running is told by the lock on its log; a "?" marks one
whose lock is not this machine's to ask for, of which only the log's age is known.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

from codec.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.usage = "lgmc runs [FOLDER | compare RUN RUN ... | plot RUN ... -o FILE] [--json]"
    parser.add_argument("words", nargs="*", metavar="FOLDER|compare|plot", help="see above")
    parser.add_argument("-o", "--out", type=Path, metavar="FILE", help="the picture of plot")
    parser.add_argument("--json", action="store_true", help="the answer as JSON")


def run(args: argparse.Namespace) -> int:
    action, *folders = args.words or ["runs"]
    if action == "compare":
        _compare([Path(one) for one in folders], args.json)
    elif action == "plot":
        _plot([Path(one) for one in folders], args.out, args.json)
    elif folders:
        raise ConfigError(
            f"{action!r} is neither compare nor plot, and only one folder can be listed at a time"
        )
    else:
        _list(Path(action), args.json)
    return 0


def _list(root: Path, as_json: bool) -> None:
    from codec.training.history import find_runs
    from eval.runs import list_lines, row_of

    rows = [row_of(history, root) for history in find_runs(root)]
    if as_json:
        print(_json(rows))
    elif rows:
        print("\n".join(list_lines(rows)))
    else:
        print(f"no training run in {root}; start one with train_codec.py")


def _compare(folders: list[Path], as_json: bool) -> None:
    from codec.training.history import read_history
    from eval.runs import compare_lines, compare_runs

    if len(folders) < 2:
        raise ConfigError("compare needs the folders of two runs or more")
    comparison = compare_runs([read_history(folder) for folder in folders])
    print(_json(comparison) if as_json else "\n".join(compare_lines(comparison)))


def _plot(folders: list[Path], target: Path | None, as_json: bool) -> None:
    if not folders or target is None:
        raise ConfigError("plot needs the folder of a run or more, and -o FILE.png")
    from codec.training.history import read_history
    from eval.runs_plot import plot_runs

    plot_runs([read_history(folder) for folder in folders], target)
    print(_json({"file": str(target)}) if as_json else f"written: {target}")


def _json(value: Any) -> str:
    return json.dumps(_without_nan(value), indent=1, allow_nan=False)


def _without_nan(value: Any) -> Any:
    """JSON has no word for a loss that is not a number: null."""
    if isinstance(value, dict):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
