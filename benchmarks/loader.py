"""Whether clips come fast enough: what the loader delivers beside what training takes.

Clips are made, decoded into a run's cache and packed into shards; then frames are counted that a
run's loader delivers from either, with worker processes and nothing else running, and the frames
that training steps of the model take on a batch that lies ready. Both stages are measured that
stand at the ends of lite's schedule: of single frames, which takes most of them, and of cascades.
"""

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks.registry import Benchmark, Figure
from codec.config import AugmentConfig, DataConfig, Experiment, ModelConfig, Stage, TrainingConfig
from codec.errors import LgmcError
from codec.training.run import TrainingRun

KINDS = ("pan", "zoom", "rotation", "layers")
SIZE = (512, 288)  # of most clips that lite was trained on
FRAMES = 48
RUNS = 3
SECONDS = 2.0  # of a loader's run
STEPS = 3  # of a run of training
# Steps before the clock starts: libraries choose their algorithms, a GPU's graph is captured.
WARM_UP = 5
LIMIT = ">= 2"
AUGMENTED = AugmentConfig(scale=0.5, rate=0.5)

_ENDLESS = 10**9


class _Recipe(NamedTuple):
    """A device's crop, and the batches of single frames and of cascades; as in configs/."""

    crop: int
    intra: int
    cascade: int


RECIPES = {"cpu": _Recipe(192, 4, 2), "cuda": _Recipe(256, 32, 8)}


def gate(options: dict) -> None:
    """Worker processes and shards give the batches that are made without them."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        sources = _sources(Path(folder), options)
        (stage,) = (one for one in _stages(options) if one.name == "cascade")
        model = _model(options)
        plain = _run(Path(folder) / "plain", sources["files"], stage, model, options, workers=0)
        for name in ("files", "shards"):
            run = _run(Path(folder) / name, sources[name], stage, model, options, workers=1)
            expected, got = (
                [next(batches).clip for _ in range(3)]
                for batches in (plain.batches(_ENDLESS), run.batches(_ENDLESS))
            )
            if not all(torch.equal(a, b) for a, b in zip(expected, got, strict=True)):
                raise LgmcError(
                    f"bench: the loader gives other pixels from {name}; nothing is timed"
                )


def measure(options: dict) -> list[Figure]:
    workers = _workers()
    model = _model(options)
    figures = []
    with tempfile.TemporaryDirectory() as folder:
        sources = _sources(Path(folder), options)
        for stage in _stages(options):
            runs = {
                name: _run(Path(folder) / f"{stage.name}-{name}", data, stage, model, options)
                for name, data in sources.items()
            }
            taken: list[float] = []
            delivered: dict[str, list[float]] = {name: [] for name in runs}
            step = _training(runs["files"], stage)
            for _ in range(RUNS):
                taken.append(step())
                for name, run in runs.items():
                    delivered[name].append(_delivered(run))
            figures.append(_figure(f"training, {stage.name}", taken, "frames/s"))
            for name, rates in delivered.items():
                how = "on the device" if name == "resident" else f"{workers} worker(s)"
                label = f"{name}, {stage.name}"
                figures.append(_figure(f"loader, {how}, {label}", rates, "frames/s"))
                ratios = [a / b for a, b in zip(rates, taken, strict=True)]
                limit = "" if name == "augmented" else LIMIT
                figures.append(_figure(f"loader / training, {label}", ratios, "times", limit))
    return figures


BENCHMARK = Benchmark(gate, measure)


def _workers() -> int:
    """Worker processes: half of the cores, the others are the training's."""
    return max(1, min(16, (os.cpu_count() or 2) // 2))


def _device(options: dict) -> str:
    return options.get("device") or "cpu"


def _model(options: dict) -> ModelConfig:
    from codec import models

    return models.load(options["model"]).codec.config


def _stages(options: dict) -> list[Stage]:
    crop, intra, cascade = RECIPES[_device(options)]
    return [
        Stage(name="intra", steps=_ENDLESS, frames=1, train=("intra",), batch=intra, crop=crop),
        Stage(
            name="cascade",
            steps=_ENDLESS,
            frames=5,
            cascade=True,
            searched=0.5,
            batch=cascade,
            crop=crop,
        ),
    ]


def _sources(folder: Path, options: dict) -> dict[str, DataConfig]:
    """The ways in which the same clips are loaded."""
    from codec.training.data.shards import pack
    from codec.training.data.sources import find_sources
    from codec.video.synthetic import write_synthetic

    clips = folder / "clips"
    clips.mkdir()
    for kind in KINDS:
        write_synthetic(kind, clips / f"{kind}.y4m", *SIZE, FRAMES)
    pack(find_sources(clips), folder / "shards")
    files = DataConfig(paths=(str(clips),), cache=str(folder / "cache"), holdout=0)
    found = {
        "files": files,
        "shards": files.model_copy(update={"paths": (str(folder / "shards"),)}),
        "augmented": files.model_copy(update={"augment": AUGMENTED}),
    }
    if _device(options) == "cuda":
        found["resident"] = files.model_copy(update={"resident": True})
    return found


def _run(
    folder: Path,
    data: DataConfig,
    stage: Stage,
    model: ModelConfig,
    options: dict,
    workers: int | None = None,
) -> TrainingRun:
    device = _device(options)
    training = TrainingConfig(
        device=device,
        cuda_graph=device == "cuda",
        threads=options.get("threads"),
        data=data.model_copy(update={"workers": _workers() if workers is None else workers}),
        stages=(stage,),
    )
    return TrainingRun(Experiment(name="loader", model=model, training=training), folder)


def _training(run: TrainingRun, stage: Stage) -> Callable[[], float]:
    """Frames a second that steps of training take, each time it is called."""
    from codec.training.schedule import set_trained_parts

    batch = run.batch(0)
    run.learner.begin(stage, set_trained_parts(run.codec, stage))
    taken = 0

    def steps(count: int) -> float:
        nonlocal taken
        started = time.perf_counter()
        for _ in range(count):
            outcome = run.learner.learn(batch, taken, stage.lr)
            taken += 1
        float(outcome.loss)  # waits for a GPU
        samples, frames = batch.clip.shape[:2]
        return count * samples * frames / (time.perf_counter() - started)

    steps(WARM_UP)
    return lambda: steps(STEPS)


def _delivered(run: TrainingRun) -> float:
    """Frames a second that the run's loader delivers to one who only takes them."""
    batches = run.batches(_ENDLESS)
    for _ in range(4 * _workers() + 1):  # those that were made ahead before anyone waited
        next(batches)
    frames = 0
    started = time.perf_counter()
    while time.perf_counter() - started < SECONDS:
        clip = next(batches).clip
        frames += clip.shape[0] * clip.shape[1]
    if clip.is_cuda:
        clip.sum().item()  # waits for the GPU
    return frames / (time.perf_counter() - started)


def _figure(name: str, values: list[float], unit: str, limit: str = "") -> Figure:
    return Figure(name, statistics.median(values), unit, min(values), max(values), limit)
