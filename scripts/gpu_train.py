"""Train for a given time on a GPU, unattended: the schedule of a config, fitted to that time.

python scripts/gpu_train.py configs/lite.yaml --seconds 500 --data clips --out runs/gpu
    [--keep FOLDER] [key.path=value ...]

The clips lie on the GPU, steps are CUDA graphs. Where graphs cannot be captured the steps are taken
one by one. After every stage the codec is exported as FOLDER/model.safetensors, so that a run that
is cut off leaves the last stage's model.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

FIXED = ("training.device=cuda", "training.data.resident=true")
EXPORT_SECONDS = 12.0


def main() -> None:
    started = time.perf_counter()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("config")
    parser.add_argument("overrides", nargs="*", metavar="key.path=value")
    parser.add_argument("--seconds", type=float, required=True, help="for everything")
    parser.add_argument("--data", required=True, help="folder of video clips")
    parser.add_argument("--out", type=Path, required=True, help="the run's folder")
    parser.add_argument("--keep", type=Path, help="where models and the log are copied to")
    options = parser.parse_intermixed_args()

    import torch

    from codec.config import load_experiment
    from codec.training.calibrate import fit_schedule, step_seconds
    from codec.training.run import TrainingRun

    torch.backends.cudnn.benchmark = True
    overrides = [f"training.data.paths=[{options.data}]", *FIXED, *options.overrides]

    def prepare(graph: bool):
        flags = [*overrides, f"training.cuda_graph={str(graph).lower()}"]
        experiment = load_experiment(options.config, flags)
        probe = TrainingRun(experiment, options.out / "probe")
        return experiment, step_seconds(probe)

    try:
        experiment, seconds = prepare(graph=True)
    except RuntimeError as error:
        print(f"no CUDA graphs ({' '.join(str(error).split())[:300]}): steps one by one")
        experiment, seconds = prepare(graph=False)
    shutil.rmtree(options.out / "probe")
    torch.cuda.empty_cache()
    for stage, each in zip(experiment.training.stages, seconds, strict=True):
        print(f"{stage.name}: {1e3 * each:.1f} ms a step")

    stages = len(experiment.training.stages)
    left = options.seconds - (time.perf_counter() - started) - EXPORT_SECONDS * (stages + 1)
    experiment = fit_schedule(experiment, seconds, left)
    run = TrainingRun(experiment, options.out / "run")
    keep = options.keep or options.out
    keep.mkdir(parents=True, exist_ok=True)
    schedule = [s.model_dump(mode="json") for s in experiment.training.stages]
    (keep / "schedule.json").write_text(json.dumps({"seconds": seconds, "stages": schedule}))
    end = 0
    for stage in experiment.training.stages:
        end += stage.steps
        result = run.train(stop_at=end)
        run.export(keep / "model.safetensors", result)
        shutil.copy(run.folder / "metrics.jsonl", keep / "metrics.jsonl")
        print(f"{stage.name} done after {time.perf_counter() - started:.0f} s", flush=True)


if __name__ == "__main__":
    main()
