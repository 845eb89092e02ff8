"""Variants of a model against one another: the same parent, data order, seeds, schedule and clips.

A job is one variant with one seed: trained for the budget, then measured on clips that no variant
was trained on. Jobs are shared out among the processes of a torchrun; a job that was finished is
not done again, one that was stopped goes on from its last checkpoint, and one that was begun under
other conditions is refused.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from codec.errors import ConfigError, LgmcError
from eval.results import RdPoint, load_results, save_results, write_text
from eval.sequences import clip_paths

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

    @property
    def conditions(self) -> Path:
        return self.folder / "conditions.json"


@dataclass
class Row:
    """A variant against the first one.

    Attributes:
        anchor: whether it is the first, to which the others are held.
        rates: BD-rate in % by seed, PSNR of RGB, mean over the clips, None where not every clip has
            one; empty for the first.
        encoder, decoder: kMAC a pixel of a P frame.
        encode_fps, decode_fps: median over points, as measured; the machine's load decides too;
            None where no point has one.
        parameters: millions.
    """

    variant: str
    stages: tuple[str, ...]
    encoder: float
    decoder: float
    parameters: float
    anchor: bool = False
    encode_fps: float | None = None
    decode_fps: float | None = None
    rates: dict[int, float | None] = field(default_factory=dict)

    @property
    def mean(self) -> float | None:
        """Over the seeds; None where one has no figure."""
        return statistics.fmean(self.rates.values()) if self._whole else None

    @property
    def spread(self) -> float | None:
        """Half of the distance between the best and the worst seed."""
        if len(self.rates) < 2 or not self._whole:
            return None
        return (max(self.rates.values()) - min(self.rates.values())) / 2

    @property
    def _whole(self) -> bool:
        return bool(self.rates) and None not in self.rates.values()

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


def take_device(job: Job, overrides: list[str], local_rank: int) -> None:
    """Let this process compute on a GPU of its own where the jobs are for GPUs.

    Raises:
        ConfigError: the machine has fewer GPUs than processes.
    """
    from codec.config import load_experiment
    from codec.training.distributed import take_gpu

    if load_experiment(job.config, overrides).training.device == "cuda":
        take_gpu(local_rank)


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
    """Train and measure, or do what is left of it.

    Raises:
        ConfigError: the job was begun under other conditions, or would be measured on a file that
            it is trained on.
    """
    from codec.training.run import TrainingRun
    from eval.run import evaluate

    experiment = _experiment(job, budget, overrides)
    clips = clip_paths(Path(sequences).resolve())
    _check_apart(experiment.training.data.paths, clips)
    _agree_on_conditions(
        job,
        {
            "experiment": experiment.model_dump(mode="json", exclude={"training": {"device"}}),
            "sequences": [str(clip) for clip in clips],
            "frames": frames,
            "intra_period": intra_period,
            "qualities": list(qualities),
        },
    )
    if job.results.exists():
        report(f"{job.folder.name}: done before")
        return
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


def _check_apart(data: Iterable[str], clips: list[Path]) -> None:
    """Raise ConfigError where a clip to measure on is among the files that are trained on."""
    trained = {file for path in data for file in _files(Path(path).expanduser())}
    for clip in clips:
        if not trained.isdisjoint(_files(clip)):
            raise ConfigError(f"{clip} is trained on and would be measured on: give other clips")


def _files(path: Path) -> set[Path]:
    files = (file for file in path.rglob("*") if file.is_file()) if path.is_dir() else (path,)
    return {file.resolve() for file in files}


def _agree_on_conditions(job: Job, conditions: dict[str, Any]) -> None:
    """Write down what a job is begun under. Raises ConfigError where that was something else."""
    from codec.training.history import changes

    if job.conditions.exists():
        try:
            before = json.loads(job.conditions.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise ConfigError(
                f"{job.conditions} cannot be read ({exc}): choose another --out"
            ) from None
        differing = next(iter(changes(before, conditions)), None)
        if differing is not None:
            raise ConfigError(
                f"{job.folder} was begun with another {differing}: choose another --out"
            )
    elif job.results.exists():
        raise ConfigError(
            f"{job.results} does not say under what it was made, for want of "
            f"{job.conditions.name}: choose another --out"
        )
    else:
        job.folder.mkdir(parents=True, exist_ok=True)
        write_text(job.conditions, json.dumps(conditions, indent=1) + "\n")


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
        row.anchor = variant == anchor
        points = [point for one in own.values() for point in one.points]
        row.encode_fps, row.decode_fps = (_median(points, f"{way}code_fps") for way in ("en", "de"))
        for seed, one in own.items():
            other = results.get((anchor, seed))
            if variant != anchor and other is not None:
                mean = compare(other, one, "psnr_rgb").over_sequences
                row.rates[seed] = None if mean.partial else mean.rate_percent
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
    return Row(job.variant, stages, encoder, decoder, parameters)


def _median(points: list[RdPoint], name: str) -> float | None:
    known = [value for point in points if (value := getattr(point, name)) is not None]
    return statistics.median(known) if known else None


def table(rows: list[Row]) -> list[str]:
    """The rows as text."""
    from eval.tables import align

    head = ("variant", "stages", "BD-rate", "spread", "encoder", "decoder", "fps", "fps", "M par")
    cells = [
        (
            row.variant,
            "+".join(row.stages),
            "anchor" if row.anchor else "none" if row.mean is None else f"{row.mean:+.2f} %",
            _number(row.spread, 2),
            f"{row.encoder:.1f}",
            f"{row.decoder:.1f}",
            _number(row.encode_fps, 1),
            _number(row.decode_fps, 1),
            f"{row.parameters:.2f}",
        )
        for row in rows
    ]
    return align([head, *cells])


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
