"""Train a codec: python train_codec.py configs/NAME.yaml [key.path=value ...] [--out DIR].

Run again with the same folder, it resumes from the last checkpoint. Under torchrun, several
processes train together.
"""

import argparse
import sys
from pathlib import Path


def step(text: str) -> int:
    """A number of steps, for argparse."""
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError("must be a whole number from 1 on")
    return int(text)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config", help="an experiment of configs/")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--out", type=Path, help="the run's folder (default runs/NAME)")
    parser.add_argument("--stop-at", type=step, metavar="STEP", help="stop there, to go on later")
    options = parser.parse_intermixed_args(arguments)

    from codec.config import load_experiment
    from codec.errors import LgmcError
    from codec.memory import keep_freed_memory

    keep_freed_memory()
    try:
        experiment = load_experiment(options.config, options.overrides)
        from codec.training.distributed import ranks_of_torchrun
        from codec.training.run import TrainingRun

        with ranks_of_torchrun(experiment.training.device) as ranks:
            folder = options.out or Path("runs") / experiment.name
            TrainingRun(experiment, folder, ranks=ranks).train(options.stop_at)
    except LgmcError as error:
        print(f"train_codec: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("train_codec: stopped; run the same command to resume", file=sys.stderr)
        return 130
    if ranks.is_first:
        print(f"done: {folder}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
