"""Train for a given time on a GPU, unattended: the schedule of a config, fitted to that time.

python scripts/gpu_train.py configs/lite_gpu.yaml --seconds 1500 --data clips --out runs/gpu
    [--variants configs/a.yaml configs/b.yaml --variant-seconds 120] [--keep FOLDER] [key=value ...]

The clips lie on the GPU, steps are CUDA graphs; where they cannot be captured, the script begins
anew and takes steps one by one. A stage that diverges is taken again at half its learning rate. A
variant that fails at its first steps is left out. After every stage the codec is exported as
FOLDER/NAME.safetensors, so that a run that is cut off leaves the last stage's model, and the stages
that are left are fitted to the time that is left. Variants go on from the trained codec, each for
the same number of steps on the same data.

The last stage is the one whose learning rate ends near zero: a run that is cut off in it has lost
what the stage is for. So --seconds has to be less than the limit that a process is killed at, and
--since says when that limit began to count, if it was before this process did.
"""

import argparse
import json
import os
import shutil
import sys
import time
import traceback
from pathlib import Path

from codec.config import Experiment, load_experiment
from codec.errors import Diverged
from codec.training.calibrate import fit_schedule, share_time, slower, step_seconds
from codec.training.checkpoint import list_checkpoints
from codec.training.run import TrainingRun
from codec.training.schedule import total_steps

# What the end of a stage takes beside its steps, capture and validation included (11 on an H200);
# if one takes longer, that is what is reserved for the next ones.
END_SECONDS = 12.0
TRIES = 4  # of a stage


class Session:
    """Runs one after the other on the same clips, until the time is used up."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.started = options.since
        self.shared: TrainingRun | None = None
        self.keep = options.keep or options.out
        self.keep.mkdir(parents=True, exist_ok=True)

    @property
    def elapsed(self) -> float:
        return time.time() - self.started

    def probe(self, config: str) -> tuple[Experiment, list[float]]:
        """The experiment and how long a step of each of its stages takes."""
        experiment = self.experiment(config)
        run = TrainingRun(experiment, self.options.out / "probe", self.shared)
        self.shared = run
        seconds = step_seconds(run)
        shutil.rmtree(self.options.out / "probe")
        for stage, each in zip(experiment.training.stages, seconds, strict=True):
            print(f"{experiment.name} {stage.name}: {1e3 * each:.1f} ms a step", flush=True)
        return experiment, seconds

    def experiment(self, config: str) -> Experiment:
        overrides = [
            f"training.data.paths={json.dumps([self.options.data])}",
            "training.device=cuda",
            "training.data.resident=true",
            "training.cuda_graph=true",
            # At the ends of stages alone: there a stage that diverges begins again.
            "training.checkpoint_every=1000000000",
            *self.options.overrides,
        ]
        return load_experiment(config, overrides)

    def train(
        self, experiment: Experiment, seconds: list[float], until: float | None = None
    ) -> TrainingRun:
        """Train by the schedule, or by what fits of it until a time of the session's clock.

        A stage that diverges begins again where the one before it ended, at half the learning rate.
        With ``until`` the stages to come are fitted to the time that is left whenever one ends.
        """
        number, tries, end_seconds = 0, 0, END_SECONDS
        while number < len(experiment.training.stages):
            if until is not None:
                experiment = self.fitted(experiment, seconds, until, number, end_seconds)
            run, began = self.begin(experiment), self.elapsed
            stages = experiment.training.stages
            try:
                result = run.train(stop_at=sum(stage.steps for stage in stages[: number + 1]))
            except Diverged as error:
                tries += 1
                if tries == TRIES:
                    raise
                rate = stages[number].lr / 2
                print(f"{stages[number].name}: {error}; once more from {rate:.1e} on", flush=True)
                experiment = slower(experiment, number)
                continue
            self.keep_model(run, result)
            done = f"{experiment.name} {stages[number].name} done"
            print(f"{done}, {self.elapsed:.0f} s", flush=True)
            spent = self.elapsed - began - stages[number].steps * seconds[number]
            number, tries, end_seconds = number + 1, 0, max(end_seconds, spent)
        return run

    def fitted(
        self,
        experiment: Experiment,
        seconds: list[float],
        until: float,
        number: int,
        end_seconds: float,
    ) -> Experiment:
        """The experiment with its stages from ``number`` on fitted to the time that is left.

        The ends of them all are reserved, and one more: the last end writes a summary too.
        """
        ends = len(experiment.training.stages) - number + 1
        left = until - self.elapsed - ends * end_seconds
        return fit_schedule(experiment, seconds, left, number)

    def keep_model(self, run: TrainingRun, result: dict[str, float]) -> None:
        """Its codec, as it stands or as the end of the schedule exported it, and its log."""
        kept = self.keep / f"{run.experiment.name}.safetensors"
        if run.step == total_steps(run.config.stages):
            shutil.copy(run.folder / "model.safetensors", kept)
        else:
            run.export(kept, result)
        shutil.copy(run.folder / "metrics.jsonl", kept.with_suffix(".jsonl"))

    def begin(self, experiment: Experiment) -> TrainingRun:
        """A run from its last checkpoint on, or from its start where it has none yet."""
        run = TrainingRun(experiment, self.options.out / experiment.name, self.shared)
        stages = [stage.model_dump(mode="json") for stage in experiment.training.stages]
        (self.keep / f"{experiment.name}.schedule.json").write_text(json.dumps(stages, indent=1))
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--seconds", type=float, required=True, help="for everything")
    parser.add_argument("--data", required=True, help="folder of video clips")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--keep", type=Path, help="where models and logs are copied to")
    parser.add_argument(
        "--shares", type=float, nargs="*", help="of the time, a stage each; else the steps decide"
    )
    parser.add_argument(
        "--since",
        type=float,
        default=time.time(),
        help="when --seconds began to count, as time.time() gives it; default: now",
    )
    parser.add_argument("--variants", nargs="*", default=[], metavar="CONFIG")
    parser.add_argument("--variant-seconds", type=float, default=60.0, help="for each of them")
    options = parser.parse_intermixed_args()
    session = Session(options)

    try:
        experiment, seconds = session.probe(options.config)
    except Exception:
        if "training.cuda_graph=false" in options.overrides:
            raise
        _again("steps cannot be captured", session.started, "training.cuda_graph=false")
    probed = []
    for config in options.variants:
        try:
            probed.append(session.probe(config))
        except Exception:  # the GPU may be of no more use to this process: begin anew without it
            _again(f"{config} is left out", session.started, without=config)

    if options.shares:
        experiment = share_time(experiment, seconds, options.shares)
    reserved = len(probed) * (options.variant_seconds + 2 * END_SECONDS)
    run = session.train(experiment, seconds, until=options.seconds - reserved)
    parent = list_checkpoints(run.folder / "checkpoints")[-1].folder
    if probed:
        left = options.seconds - session.elapsed - 2 * END_SECONDS * len(probed)
        together = [sum(times) for times in zip(*(seconds for _, seconds in probed), strict=True)]
        for experiment, seconds in probed:
            training = experiment.training.model_copy(update={"init": str(parent)})
            child = experiment.model_copy(update={"training": training})
            # All of them take as many steps, so none is fitted again.
            session.train(fit_schedule(child, together, left), seconds)
    print(f"all done after {session.elapsed:.0f} s")


def _again(what: str, since: float, *overrides: str, without: str | None = None) -> None:
    """Begin anew with other arguments, after an error that is being handled."""
    traceback.print_exc()
    print(f"{what}: beginning anew", flush=True)
    script, config, *arguments = (text for text in sys.argv if text != without)
    if "--since" not in arguments:
        arguments += ["--since", str(since)]
    os.execv(sys.executable, [sys.executable, script, config, *overrides, *arguments])


if __name__ == "__main__":
    main()
