"""Train for a given time on a GPU, unattended: the schedule of a config, fitted to that time.

python scripts/gpu_train.py configs/lite_gpu.yaml --seconds 1500 --data clips --out runs/gpu
    [--variants configs/a.yaml configs/b.yaml --variant-seconds 120] [--keep FOLDER] [key=value ...]

The clips lie on the GPU, steps are CUDA graphs. Where graphs cannot be captured the steps are taken
one by one. After every stage the codec is exported as FOLDER/NAME.safetensors, so that a run that
is cut off leaves the last stage's model. Variants go on from the trained codec, each for the same
number of steps on the same data.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import torch

from codec.config import Experiment, load_experiment
from codec.training.calibrate import fit_schedule, step_seconds
from codec.training.checkpoint import list_checkpoints
from codec.training.run import TrainingRun

EXPORT_SECONDS = 6.0


class Session:
    """Runs one after the other on the same clips, until the time is used up."""

    def __init__(self, options: argparse.Namespace):
        self.options = options
        self.started = time.perf_counter()
        self.shared: TrainingRun | None = None
        self.keep = options.keep or options.out
        self.keep.mkdir(parents=True, exist_ok=True)

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started

    def probe(self, config: str, init: Path | None = None) -> tuple[Experiment, list[float]]:
        """The experiment and how long its steps take; as CUDA graphs where that works."""
        try:
            return self._probe(config, init, graph=True)
        except RuntimeError as error:
            print(f"no CUDA graphs ({' '.join(str(error).split())[:600]}): steps one by one")
            return self._probe(config, init, graph=False)

    def _probe(self, config: str, init: Path | None, graph: bool) -> tuple[Experiment, list[float]]:
        overrides = [
            f"training.data.paths=[{self.options.data}]",
            "training.device=cuda",
            "training.data.resident=true",
            f"training.cuda_graph={str(graph).lower()}",
            *([f"training.init={init}"] if init else []),
            *self.options.overrides,
        ]
        experiment = load_experiment(config, overrides)
        run = TrainingRun(experiment, self.options.out / "probe", self.shared)
        self.shared = run
        seconds = step_seconds(run)
        shutil.rmtree(self.options.out / "probe")
        for stage, each in zip(experiment.training.stages, seconds, strict=True):
            print(f"{experiment.name} {stage.name}: {1e3 * each:.1f} ms a step", flush=True)
        return experiment, seconds

    def train(self, experiment: Experiment) -> TrainingRun:
        run = TrainingRun(experiment, self.options.out / experiment.name, self.shared)
        stages = [stage.model_dump(mode="json") for stage in experiment.training.stages]
        (self.keep / f"{experiment.name}.schedule.json").write_text(json.dumps(stages, indent=1))
        end = 0
        for stage in experiment.training.stages:
            end += stage.steps
            result = run.train(stop_at=end)
            run.export(self.keep / f"{experiment.name}.safetensors", result)
            shutil.copy(run.folder / "metrics.jsonl", self.keep / f"{experiment.name}.jsonl")
            print(f"{experiment.name} {stage.name} done, {self.elapsed:.0f} s", flush=True)
        return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--seconds", type=float, required=True, help="for everything")
    parser.add_argument("--data", required=True, help="folder of video clips")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--keep", type=Path, help="where models and logs are copied to")
    parser.add_argument("--variants", nargs="*", default=[], metavar="CONFIG")
    parser.add_argument("--variant-seconds", type=float, default=60.0, help="for each of them")
    options = parser.parse_intermixed_args()
    torch.backends.cudnn.benchmark = True
    session = Session(options)

    experiment, seconds = session.probe(options.config)
    reserved = len(options.variants) * (options.variant_seconds + 4 * EXPORT_SECONDS)
    exports = EXPORT_SECONDS * (len(experiment.training.stages) + 1)
    left = options.seconds - session.elapsed - exports - reserved
    run = session.train(fit_schedule(experiment, seconds, left))

    parent = list_checkpoints(run.folder / "checkpoints")[-1].folder
    probed = [session.probe(config, parent) for config in options.variants]
    if probed:
        left = options.seconds - session.elapsed - 2 * EXPORT_SECONDS * len(probed)
        together = [sum(times) for times in zip(*(seconds for _, seconds in probed), strict=True)]
        for experiment, _ in probed:
            session.train(fit_schedule(experiment, together, left))
    print(f"all done after {session.elapsed:.0f} s")


if __name__ == "__main__":
    main()
