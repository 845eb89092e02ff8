"""Training: steps a second of lite's longest stages, and where the time of a step goes.

On clips made here, so that it is the same work everywhere; data costs next to nothing then, and
is measured apart. A share is self time by torch's profiler, of all the time that operators take.
"""

import itertools
import math
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.registry import Benchmark, Figure
from codec.errors import LgmcError

STAGES = ("intra", "cascade")
WARM_UP, STEPS, PROFILED = 3, 8, 3
SIDE = 256  # of the clips
CONFIG = Path(__file__).parents[1] / "configs" / "lite.yaml"

# The first of these that a name holds decides.
_KINDS = {
    "convolutions": ("conv",),
    "kernels": ("lgmc::", "lgmc_", "grid_sampler"),
}


def gate(options: dict) -> None:
    """A step is finite, and taken again from the same weights it gives the same loss."""
    losses = []
    for _ in range(2):
        with tempfile.TemporaryDirectory() as folder:
            run = _run("cascade", Path(folder), options)
            losses.append(float(run.learner.learn(run.batch(0), 0, 1e-4).loss))
            if run.learner.skipped or not math.isfinite(losses[-1]):
                raise LgmcError("bench: a training step is not finite; nothing is timed")
    if losses[0] != losses[1]:
        raise LgmcError(f"bench: the same step gave {losses[0]} and {losses[1]}; nothing is timed")


def measure(options: dict) -> list[Figure]:
    figures = []
    for name in STAGES:
        with tempfile.TemporaryDirectory() as folder:
            run = _run(name, Path(folder), options)
            numbers = itertools.count()

            def step(run=run, numbers=numbers) -> None:
                number = next(numbers)
                run.learner.learn(run.batch(number), number, 1e-5)

            for _ in range(WARM_UP):
                step()
            seconds = [_seconds(step) for _ in range(STEPS)]
            shares = _shares(step)
        stage = run.config.stages[0]
        what = f"{name}, {stage.frames} frames"
        rates = [1 / each for each in seconds]
        median = statistics.median(rates)
        figures.append(Figure(f"train {what}", median, "steps/s", min(rates), max(rates)))
        busy = sum(shares.values())
        limit = ">= 60" if name == "cascade" else ""
        figures.append(Figure(f"of {what}: convolutions and kernels", 100 * busy, "%", limit=limit))
        for kind, share in shares.items():
            figures.append(Figure(f"of {what}: {kind}", 100 * share, "%"))
    return figures


BENCHMARK = Benchmark(gate, measure)


def _run(stage: str, folder: Path, options: dict):
    """A run of one stage of lite on synthetic clips."""
    from codec.config import load_experiment
    from codec.models import available
    from codec.training.run import TrainingRun
    from codec.training.schedule import set_trained_parts
    from codec.video.synthetic import write_synthetic

    clips = folder / "clips"
    clips.mkdir()
    for seed, kind in enumerate(("pan", "occluder", "layers")):
        write_synthetic(kind, clips / f"{kind}.y4m", width=SIDE, height=SIDE, frames=34, seed=seed)
    overrides = [
        f"training.data.paths=[{clips}]",
        f"training.init={available().get(options['model'], options['model'])}",
        f"training.device={options.get('device') or 'cpu'}",
        f"training.threads={options.get('threads') or 'null'}",
    ]
    experiment = load_experiment(CONFIG, overrides)
    chosen = tuple(s for s in experiment.training.stages if s.name == stage)
    training = experiment.training.model_copy(update={"stages": chosen})
    run = TrainingRun(experiment.model_copy(update={"training": training}), folder / "run")
    run.learner.begin(chosen[0], set_trained_parts(run.codec, chosen[0]))
    return run


def _seconds(step) -> float:
    started = time.perf_counter()
    step()
    return time.perf_counter() - started


def _shares(step) -> dict[str, float]:
    """Shares of the operators' time by kind."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as found:
        for _ in range(PROFILED):
            step()
    spent = dict.fromkeys(_KINDS, 0.0)
    total = 0.0
    for event in found.key_averages():
        total += event.self_cpu_time_total
        for kind, texts in _KINDS.items():
            if any(text in event.key.lower() for text in texts):
                spent[kind] += event.self_cpu_time_total
                break
    return {kind: seconds / total for kind, seconds in spent.items()}
