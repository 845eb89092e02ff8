"""Variants of a model against one another: the same parent, data order, seeds, schedule and clips.

A job is one variant with one seed: trained for the budget, then measured on clips that no variant
was trained on. Jobs are shared out among the processes of a torchrun; a job that was finished is
not done again, one that was stopped goes on from its last checkpoint.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import ConfigError, LgmcError
from eval.results import load_results, save_results

if TYPE_CHECKING:
    from codec.config import Experiment


@dataclass(frozen=True)
class Job:
    """One variant with one seed, in its folder."""

    variant: str
    seed: int
    config: Path
    folder: Path

    @property
    def results(self) -> Path:
        return self.folder / "results.json"


@dataclass
class Row:
    """A variant against the first one.

    Attributes:
        rates: BD-rate in % by seed, PSNR of RGB, mean over the clips; empty for the first.
        encoder, decoder: kMAC a pixel of a P frame.
        encode_fps, decode_fps: median over points, as measured; the machine's load decides too.
        parameters: millions.
    """

    variant: str
    stages: tuple[str, ...]
    encoder: float
    decoder: float
    encode_fps: float
    decode_fps: float
    parameters: float
    rates: dict[int, float] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        return statistics.fmean(self.rates.values()) if self.rates else None

    @property
    def spread(self) -> float | None:
        """Half of the distance between the best and the worst seed."""
        if len(self.rates) < 2:
            return None
        return (max(self.rates.values()) - min(self.rates.values())) / 2

    def to_json(self) -> dict[str, Any]:
        values = {**vars(self), "mean": self.mean, "spread": self.spread}
        values["rates"] = {str(seed): rate for seed, rate in self.rates.items()}
        return values


def jobs_of(configs: list[Path], seeds: list[int], out: Path) -> list[Job]:
    """Seed by seed, so that a first answer is there as early as it can be.

    Raises:
        ConfigError: fewer than two configs, or two of the same name.
    """
    names = [path.stem for path in configs]
    if len(configs) < 2:
        raise ConfigError("an ablation needs at least two configs, the first is what others are to")
    for name in names:
        if names.count(name) > 1:
            raise ConfigError(f"two configs are named {name}: their runs would be one")
    return [
        Job(path.stem, seed, path, out / f"{path.stem}-{seed}")
        for seed in seeds
        for path in configs
    ]


def check_fair(jobs: list[Job], budget: int, overrides: list[str]) -> None:
    """Raise ConfigError where variants differ in more than the model."""
    first: dict[str, Any] | None = None
    for job in jobs:
        training = _experiment(job, budget, overrides).training.model_dump(exclude={"seed"})
        if first is None:
            first = training
        differing = [key for key in training if training[key] != first[key]]
        if differing:
            raise ConfigError(
                f"{job.config}: training.{differing[0]} is not that of {jobs[0].config}: variants "
                "have to share data, schedule and parent"
            )


def run_job(
    job: Job,
    *,
    budget: int,
    overrides: list[str],
    sequences: str | Path,
    frames: int | None,
    intra_period: int,
    qualities: tuple[int, ...],
    report: Callable[[str], None],
) -> None:
    """Train and measure, or do what is left of it."""
    from codec.training.run import TrainingRun
    from eval.run import evaluate

    if job.results.exists():
        report(f"{job.folder.name}: done before")
        return
    experiment = _experiment(job, budget, overrides)
    with redirect_stdout(sys.stderr):  # standard output is the table's
        TrainingRun(experiment, job.folder).train()
    evaluation = evaluate(
        sequences,
        models=[str(job.folder / "model.safetensors")],
        qualities=qualities,
        frames=frames,
        intra_period=intra_period,
        out=job.folder / "eval",
        device=experiment.training.device,
        report=report,
    )
    if evaluation.failures:
        _, failure = evaluation.failures[0]
        raise LgmcError(f"{job.folder.name}: {failure.sequence}: {failure.error}")
    save_results(evaluation.results[0], job.results)


def summarise(jobs: list[Job]) -> list[Row]:
    """A row per variant, of the jobs that are finished; the first variant is the anchor."""
    from eval.compare import compare

    results = {(j.variant, j.seed): load_results(j.results) for j in jobs if j.results.exists()}
    anchor = jobs[0].variant
    rows = []
    for variant in dict.fromkeys(job.variant for job in jobs):
        own = {seed: one for (name, seed), one in results.items() if name == variant}
        if not own:
            continue
        row = _row(next(j for j in jobs if (j.variant, j.seed) in results and j.variant == variant))
        row.encode_fps, row.decode_fps = _speeds(own.values())
        for seed, one in own.items():
            other = results.get((anchor, seed))
            if variant != anchor and other is not None:
                rate = compare(other, one, "psnr_rgb").mean_rate_percent
                if rate is not None:
                    row.rates[seed] = rate
        rows.append(row)
    return rows


def _experiment(job: Job, budget: int, overrides: list[str]) -> Experiment:
    from codec.config import load_experiment
    from codec.training.calibrate import fit_schedule

    named = [f"model.name={job.variant}", f"training.seed={job.seed}"]
    experiment = load_experiment(job.config, [*overrides, *named])
    return fit_schedule(experiment, [1.0] * len(experiment.training.stages), budget)


def _row(job: Job) -> Row:
    from codec import models
    from eval.complexity import operations_per_pixel

    codec = models.load(job.folder / "model.safetensors").codec
    encoder, decoder = operations_per_pixel(codec)
    parameters = sum(p.numel() for p in codec.parameters()) / 1e6
    stages = codec.config.inter.compensation
    return Row(job.variant, stages, encoder, decoder, 0.0, 0.0, parameters)


def _speeds(results) -> tuple[float, float]:
    points = [point for one in results for point in one.points]
    return tuple(
        statistics.median(v for p in points if (v := getattr(p, name)) is not None)
        for name in ("encode_fps", "decode_fps")
    )


def table(rows: list[Row]) -> list[str]:
    """The rows as text."""
    from eval.tables import align

    head = ("variant", "stages", "BD-rate", "spread", "encoder", "decoder", "fps", "fps", "M par")
    cells = [
        (
            row.variant,
            "+".join(row.stages),
            "anchor" if row.mean is None else f"{row.mean:+.2f} %",
            "-" if row.spread is None else f"{row.spread:.2f}",
            f"{row.encoder:.1f}",
            f"{row.decoder:.1f}",
            f"{row.encode_fps:.1f}",
            f"{row.decode_fps:.1f}",
            f"{row.parameters:.2f}",
        )
        for row in rows
    ]
    return align([head, *cells])
