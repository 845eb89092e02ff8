"""A training run: its folder, its loop, its resume.

    runs/NAME/config.yaml          the resolved configuration
              environment.json     git revision, versions, machine
              metrics.jsonl        a line per logged step, validation and event
              tensorboard/
              checkpoints/step_*/  weights.safetensors, trainer.pt
              model.safetensors    the exported codec, written at the end
              summary.json, .md    what came of it, likewise

Every random choice of a step is drawn from generators seeded by (seed, step); with the optimiser's
state in the checkpoint, a resumed run computes exactly what an uninterrupted one would have.
"""

import json
import platform
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml

from codec.config import Experiment, TrainingConfig
from codec.errors import ConfigError, TrainingError
from codec.models import export
from codec.training.checkpoint import (
    list_checkpoints,
    load_trainer,
    load_weights,
    save_checkpoint,
)
from codec.training.data import Batch, ClipSampler, load_clips
from codec.training.known_motion import move_frames, move_photographs
from codec.training.log import Log
from codec.training.look import look
from codec.training.resident import ResidentSampler
from codec.training.schedule import position, set_trained_parts, total_steps
from codec.training.step import Learner, load_optimizer, make_optimizer
from codec.training.summary import write_summary
from codec.training.validate import validate
from codec.training.warm_start import inter_from_intra
from codec.video_codec import VideoCodec


class TrainingRun:
    """One experiment in its folder; :meth:`train` starts or goes on.

    Args:
        experiment: the resolved configuration.
        folder: the run's; made if missing.
        share: a run whose clips are to be used, where they were read for it already.

    Raises:
        ConfigError: an empty schedule, no data, or a folder that holds another model's run.
    """

    def __init__(self, experiment: Experiment, folder: Path, share: "TrainingRun | None" = None):
        self.experiment = experiment
        self.config = experiment.training
        self.folder = folder
        if not self.config.stages:
            raise ConfigError("training.stages is empty: a schedule needs at least one row")
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        self.device = torch.device(self.config.device)
        folder.mkdir(parents=True, exist_ok=True)
        self._check_same_model()
        if share is None:
            cache = self.config.data.cache or folder.parent / "cache"
            self.clips, self.held_out, self.filtered = load_clips(self.config.data, Path(cache))
            self.sampler = self._sampler()
        else:
            self.clips, self.held_out, self.sampler = share.clips, share.held_out, share.sampler
            self.filtered = share.filtered

        torch.manual_seed(self.config.seed)
        self.codec = VideoCodec(experiment.model).to(self.device)
        self.codec.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.codec, self.config)
        self.learner = Learner(self.codec, self.optimizer, self.config)
        self.step = 0
        self._restore()
        self._looked = self.step, self.learner.skipped
        self._describe()

    def train(self, stop_at: int | None = None) -> dict[str, float]:
        """Run to the end of the schedule (or to ``stop_at``); returns the last validation."""
        end = min(total_steps(self.config.stages), stop_at or sys.maxsize)
        result: dict[str, float] = {}
        with Log(self.folder, self.step) as log:
            log.event(
                "start",
                step=self.step,
                clips=len(self.clips),
                held_out=len(self.held_out),
                config=self.experiment.model_dump(mode="json"),
            )
            print(f"data: {len(self.clips)} clips, {self.filtered.line()}")
            log.event("data", step=self.step, **self.filtered.record())
            batches = iter(self._loader(end))
            row = -1
            while self.step < end:
                where = position(self.config.stages, self.step)
                if where.number != row:
                    row = where.number
                    trained = set_trained_parts(self.codec, where.stage)
                    if where.stage.inter_from_intra and where.done == 0:
                        copied = inter_from_intra(self.codec)
                        log.event("inter_from_intra", step=self.step, tensors=len(copied))
                    log.event("stage", step=self.step, name=where.stage.name)
                    self.learner.begin(where.stage, trained, goes_on=where.done > 0)
                started = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - started
                outcome = self.learner.learn(batch, self.step, where.lr)
                self.step += 1
                log.count(time.perf_counter() - started, waited, len(batch.clip))
                if self.step % self.config.log_every == 0 or self.step == end:
                    skipped = self.learner.skipped
                    log.step(self.step, end, where.stage.name, where.lr, outcome, skipped)
                    self._check_learning(skipped)
                if self.step % self.config.validate_every == 0 or self.step == end:
                    if self.held_out:
                        result = validate(self.codec, self.held_out)
                        log.validation(self.step, result)
                        log.look(self.step, look(self.codec, self.held_out))
                stage_over = where.done + 1 == where.stage.steps
                due = self.step % self.config.checkpoint_every == 0
                if due or stage_over or self.step == end:
                    self._save()
            if self.step == total_steps(self.config.stages):
                digest = self.export(self.folder / "model.safetensors", result)
                log.event("exported", step=self.step, digest=digest.hex())
                print(write_summary(self.folder))
        return result

    def export(self, path: Path, results: dict[str, float]) -> bytes:
        """Write the codec as it stands as a model file with a card; returns its digest."""
        card = {
            "trained": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
            "steps": self.step,
            "data": {
                "clips": len(self.clips),
                "held_out": sorted(c.name for c in self.held_out),
                "names": sorted(c.name for c in self.clips),
            },
            "schedule": [s.model_dump() for s in self.config.stages],
            "distortion": self.config.distortion,
            "seed": self.config.seed,
            "validation": results,
            "environment": _environment(),
        }
        return export(self.codec, path, card)

    def batch(self, step: int) -> Batch:
        """What the step of this number learns from."""
        return _Steps(self.sampler, self.experiment.training)[step]

    def batches(self, end: int) -> Iterator[Batch]:
        """What the steps from the run's on, up to ``end``, learn from, made ahead by workers."""
        return iter(self._loader(end))

    def _sampler(self) -> ClipSampler:
        data = self.config.data
        drawn = {"augment": data.augment, "order": data.order}
        if data.resident:
            return ResidentSampler(self.clips, self.config.seed, self.device, **drawn)
        return ClipSampler(self.clips, self.config.seed, **drawn)

    def _check_learning(self, skipped: int) -> None:
        """Stop a run whose steps are nearly all skipped: it would go on to its end unchanged.

        Raises:
            TrainingError: since the last look most of at least ten steps were not finite.
        """
        before, skipped_before = self._looked
        taken, lost = self.step - before, skipped - skipped_before
        if taken < 10:
            return
        self._looked = self.step, skipped
        if lost > 0.8 * taken:
            raise TrainingError(
                f"{lost} of the last {taken} steps had a loss or gradient that is not finite and "
                f"changed nothing; the last checkpoint is good: lower the learning rate of the "
                "stage or shorten the one before it"
            )

    def _loader(self, end: int) -> Iterable[Batch]:
        """Batches of the steps from here on; worker processes do not change what they hold."""
        steps = _Steps(self.sampler, self.experiment.training)
        if self.config.data.resident:
            return (steps[number] for number in range(self.step, end))
        workers = self.config.data.workers
        return torch.utils.data.DataLoader(
            steps,
            batch_size=None,
            sampler=range(self.step, end),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=self.device.type == "cuda",
        )

    def _save(self) -> None:
        trainer = {
            "step": self.step,
            "skipped": self.learner.skipped,
            "optimizer": self.optimizer.state_dict(),
            "carried": self.learner.carried,
        }
        save_checkpoint(self.folder / "checkpoints", self.codec, trainer, self.step)

    def _restore(self) -> None:
        checkpoints = list_checkpoints(self.folder / "checkpoints")
        if checkpoints:
            trainer = load_trainer(checkpoints[-1], self.codec)
            self.step, self.learner.skipped = trainer["step"], trainer["skipped"]
            load_optimizer(self.optimizer, trainer["optimizer"])
            self.learner.carried = trainer.get("carried")
        elif self.config.init:
            missing = load_weights(Path(self.config.init), self.codec, self.config.fresh)
            print(f"initial weights from {self.config.init}; {len(missing)} tensors are new")

    def _check_same_model(self) -> None:
        """Schedule and lambdas may be changed between sessions of a run, the network may not."""
        path = self.folder / "config.yaml"
        if path.exists():
            before = yaml.safe_load(path.read_text()).get("model") or {}
            now = self.experiment.model.model_dump(mode="json")
            if any(before.get(part) != now[part] for part in ("intra", "inter")):
                raise ConfigError(
                    f"{self.folder}: holds a run of another model; choose another --out"
                )

    def _describe(self) -> None:
        values = self.experiment.model_dump(mode="json")
        (self.folder / "config.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
        (self.folder / "environment.json").write_text(json.dumps(_environment(), indent=1))


class _Steps(torch.utils.data.Dataset):
    """The batch of each step, by the step's number."""

    def __init__(self, sampler: ClipSampler, config: TrainingConfig):
        self.sampler = sampler
        self.config = config

    def __len__(self) -> int:
        return total_steps(self.config.stages)

    def __getitem__(self, step: int) -> Batch:
        where = position(self.config.stages, step)
        stage = where.stage
        data = self.config.data
        batch, crop = stage.batch or data.batch, stage.crop or data.crop
        if stage.loss == "flow" and data.known_motion == "photographs":
            return move_photographs(self.config.seed, step, batch, crop)
        if stage.loss == "flow":
            frames = self.sampler.batch(step, batch, 1, crop)[:, 0]
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
            return move_frames(frames, generator)
        if stage.chain is not None:
            first = step - where.done
            return self.sampler.link(first, where.done, batch, stage.frames, crop, stage.chain)
        return Batch(self.sampler.batch(step, batch, stage.frames, crop))


def _environment() -> dict[str, Any]:
    versions = {}
    for name in ("torch", "compressai", "numpy"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "not installed"
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "revision": git.stdout.strip() or "unknown",
        "python": platform.python_version(),
        "versions": versions,
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
    }
