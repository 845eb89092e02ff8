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

Under torchrun several processes do this together (:mod:`codec.training.distributed`): each with its
rows of every batch, all with the same weights. The first of them writes the folder.
"""

import json
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
import yaml
from pydantic import ValidationError

from codec.config import Experiment, ModelConfig
from codec.errors import ConfigError, Diverged, TrainingError
from codec.models import export, locate
from codec.training.average import Average
from codec.training.batches import StepBatches
from codec.training.checkpoint import (
    fingerprint,
    list_checkpoints,
    load_average,
    load_trainer,
    load_weights,
    save_checkpoint,
)
from codec.training.compiled import compile_transforms
from codec.training.data import Batch, Clips, ClipSampler, load_clips
from codec.training.distributed import Ranks
from codec.training.history import changes
from codec.training.log import Log, NoLog
from codec.training.look import look
from codec.training.loss import MS_SSIM_SIDE
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
        ranks: the processes that train together, each with a run of its own; None: it is alone.

    Raises:
        ConfigError: an empty schedule, no data, a stage that no clip is long or large enough for, a
            crop that does not suit the model, a folder that holds another model's run or cannot
            be made, or a batch that is too small to be shared out.
        TrainingError: the processes do not see the same clips or the same folder.
    """

    def __init__(
        self,
        experiment: Experiment,
        folder: Path,
        share: "TrainingRun | None" = None,
        ranks: Ranks | None = None,
    ):
        self.experiment = experiment
        self.config = experiment.training
        self.folder = folder
        self.ranks = ranks or Ranks()
        self._check_schedule()
        if self.config.threads:
            torch.set_num_threads(self.config.threads)
        self.device = self.ranks.device(self.config.device)
        self._make_folder()
        self._check_same_model()
        if share is None:
            self.clips, self.held_out, self.filtered = self.ranks.in_turn(self._load_clips)
            self.sampler = self._sampler()
        else:
            self.clips, self.held_out, self.sampler = share.clips, share.held_out, share.sampler
            self.filtered = share.filtered

        torch.manual_seed(self.config.seed)
        self.codec = VideoCodec(experiment.model).to(self.device)
        self.codec.to(memory_format=torch.channels_last)
        self._check_stages()
        self.optimizer = make_optimizer(self.codec, self.config)
        self.learner = Learner(self.codec, self.optimizer, self.config, self.ranks)
        self.average: Average | None = None
        self.step = 0
        self._restore()
        self._looked = self.step, self.learner.skipped
        self._check_alike()
        if self.config.compile:
            compile_transforms(self.codec)

    @property
    def product(self) -> VideoCodec:
        """The codec that is validated and exported: the average over the steps if there is one."""
        return self.average.codec if self.average else self.codec

    def train(self, stop_at: int | None = None) -> dict[str, float]:
        """Run to the end of the schedule (or to ``stop_at``), where the codec is exported.

        Returns the last validation, in the first process. A run that was at its end before keeps
        the model that it exported.
        """
        total = total_steps(self.config.stages)
        end = total if stop_at is None else min(total, stop_at)
        goes_on = self.step < end
        result: dict[str, float] = {}
        with Log(self.folder, self.step) if self.ranks.is_first else NoLog() as log:
            if self.ranks.is_first:  # the folder is this process's alone now
                self._describe()
                print(f"data: {len(self.clips)} clips, {self.filtered.line()}")
            log.event(
                "start",
                step=self.step,
                clips=len(self.clips),
                held_out=len(self.held_out),
                processes=self.ranks.size,
                config=self.experiment.model_dump(mode="json"),
            )
            log.event("data", step=self.step, **self.filtered.record())
            batches = self.batches(end)
            row = -1
            while self.step < end:
                where = position(self.config.stages, self.step)
                if where.number != row:
                    row = where.number
                    trained = set_trained_parts(self.codec, where.stage)
                    if where.stage.inter_from_intra and where.done == 0:
                        copied = inter_from_intra(self.codec)
                        if self.average:
                            inter_from_intra(self.average.codec)
                        log.event("inter_from_intra", step=self.step, tensors=len(copied))
                    log.event("stage", step=self.step, name=where.stage.name)
                    self.learner.begin(where.stage, trained, goes_on=where.done > 0)
                started = time.perf_counter()
                batch = next(batches)
                waited = time.perf_counter() - started
                outcome = self.learner.learn(batch, self.step, where.lr)
                self.step += 1
                if self.average:
                    self.average.follow(self.codec, self.step)
                log.count(time.perf_counter() - started, waited, len(batch.clip))
                if self.step % self.config.log_every == 0 or self.step == end:
                    skipped = self.learner.skipped
                    log.step(self.step, end, where.stage.name, where.lr, outcome, skipped)
                    self._check_learning(skipped)
                if self.step % self.config.validate_every == 0 or self.step == end:
                    result = self._validate(log)
                stage_over = where.done + 1 == where.stage.steps
                due = self.step % self.config.checkpoint_every == 0
                if due or stage_over or self.step == end:
                    self._save()
            if self.step == total and self.ranks.is_first:
                model = self.folder / "model.safetensors"
                if goes_on or not model.exists():
                    if not result:  # killed after its last checkpoint
                        result = self._measured(log)
                    log.event("exported", step=self.step, digest=self.export(model, result).hex())
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
        return export(self.product, path, card)

    def batch(self, step: int) -> Batch:
        """What the step of this number learns from, in this process."""
        return self._batches()[step]

    def _batches(self) -> StepBatches:
        return StepBatches(self.sampler, self.config, self.ranks.rank, self.ranks.size)

    def _load_clips(self) -> Clips:
        cache = self.config.data.cache or self.folder.parent / "cache"
        return load_clips(self.config.data, Path(cache))

    def batches(self, end: int) -> Iterator[Batch]:
        """What the steps from the run's on, up to ``end``, learn from, made ahead by workers."""
        return iter(self._batches().load(self.step, end, self.device.type == "cuda"))

    def _sampler(self) -> ClipSampler:
        data = self.config.data
        drawn = {"augment": data.augment, "order": data.order}
        if data.resident:
            return ResidentSampler(self.clips, self.config.seed, self.device, **drawn)
        return ClipSampler(self.clips, self.config.seed, **drawn)

    def _validate(self, log: Log | NoLog) -> dict[str, float]:
        """By the first process; the others wait for it."""
        result = self._measured(log) if self.ranks.is_first else {}
        self.ranks.wait()
        return result

    def _measured(self, log: Log | NoLog) -> dict[str, float]:
        if not self.held_out:
            return {}
        result = validate(self.product, self.held_out, distortion=self.config.distortion)
        log.validation(self.step, result)
        log.look(self.step, look(self.product, self.held_out))
        return result

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as exc:
            reason = exc.strerror or exc
            raise ConfigError(f"the folder {self.folder} cannot be made ({reason})") from exc

    def _check_schedule(self) -> None:
        if not self.config.stages:
            raise ConfigError("training.stages is empty: a schedule needs at least one row")
        processes, micro_batches = self.ranks.size, self.config.accumulate
        if self.config.cuda_graph and processes > 1:
            raise ConfigError("training.cuda_graph is for one process alone: set it to false")
        for stage in self.config.stages:
            batch = stage.batch or self.config.data.batch
            if batch < processes * micro_batches:
                raise ConfigError(
                    f"stage {stage.name}: a batch of {batch} has no sample for each of {processes} "
                    f"processes with {micro_batches} micro-batches; set training.data.batch to at "
                    f"least {processes * micro_batches} or have fewer of them"
                )

    def _check_stages(self) -> None:
        """Whether this model and these clips serve all stages, before the first begins."""
        data, multiple = self.config.data, self.codec.multiple
        for stage in self.config.stages:
            if not set_trained_parts(self.codec, stage):
                raise ConfigError(
                    f"stage {stage.name}: this model has no {' or '.join(stage.train)}; a second "
                    "pass comes with entropy.passes: 2"
                )
            crop = stage.crop or data.crop
            if crop % multiple:
                raise ConfigError(
                    f"stage {stage.name}: a crop of {crop} is no multiple of {multiple}, which "
                    "frames of this model are padded to"
                )
            if self.config.distortion == "ms-ssim" and crop < MS_SSIM_SIDE:
                raise ConfigError(
                    f"stage {stage.name}: MS-SSIM needs a crop of at least {MS_SSIM_SIDE}, "
                    f"this has {crop}"
                )
            if stage.loss != "flow":
                frames = stage.frames if stage.chain is None else stage.chain + 1
                self.sampler.check(stage.name, frames, crop)
            elif data.known_motion == "frames":
                self.sampler.check(stage.name, 1, crop)
        if self.config.distortion == "ms-ssim":
            for clip in self.held_out:
                if min(clip.height, clip.width) < MS_SSIM_SIDE:
                    raise ConfigError(
                        f"{clip.name} is set aside for validation and smaller than the "
                        f"{MS_SSIM_SIDE} pixels that MS-SSIM needs"
                    )

    def _check_alike(self) -> None:
        """All processes have to take the same steps, from the same weights on."""
        if self.ranks.size > 1:
            self.ranks.check_alike(
                configuration=self.experiment.model_dump_json(),
                clips=[(clip.name, clip.frames, clip.height, clip.width) for clip in self.clips],
                checkpoint=self.step,
                weights=fingerprint(self.codec),
            )

    def _check_learning(self, skipped: int) -> None:
        """Stop a run whose steps are nearly all skipped: it would go on to its end unchanged.

        Raises:
            Diverged: since the last look most of at least ten steps were not finite.
        """
        before, skipped_before = self._looked
        taken, lost = self.step - before, skipped - skipped_before
        if taken < 10:
            return
        self._looked = self.step, skipped
        if lost > 0.8 * taken:
            raise Diverged(
                f"{lost} of the last {taken} steps had a loss or gradient that is not finite and "
                f"changed nothing; the last checkpoint, if there is one, is good: lower the "
                "learning rate of the stage or shorten the one before it"
            )

    def _save(self) -> None:
        trainer = {
            "step": self.step,
            "skipped": self.learner.skipped,
            "optimizer": self.optimizer.state_dict(),
            "carried": self.learner.carried,
        }
        self._check_alike()
        if self.ranks.is_first:
            average = self.average and self.average.codec
            folder = self.folder / "checkpoints"
            save_checkpoint(folder, self.codec, trainer, self.step, average=average)
        self.ranks.wait()

    def _restore(self) -> None:
        checkpoints = list_checkpoints(self.folder / "checkpoints")
        if checkpoints:
            trainer = load_trainer(checkpoints[-1], self.codec)
            self.step, self.learner.skipped = trainer["step"], trainer["skipped"]
            load_optimizer(self.optimizer, trainer["optimizer"])
            self.learner.carried = self._that_fits(trainer.get("carried"))
        elif self.config.init:
            parent = locate(self.config.init)
            missing = load_weights(parent, self.codec, self.config.fresh, self.config.widen)
            if self.ranks.is_first:
                print(f"initial weights from {self.config.init}; {len(missing)} tensors are new")
        if self.config.ema is not None:
            self.average = Average(self.codec, self.config.ema)
            if checkpoints:
                load_average(checkpoints[-1], self.average.codec)

    def _that_fits(self, carried: dict[str, torch.Tensor] | None) -> dict[str, torch.Tensor] | None:
        """What a chain left; None, to begin anew, where the stage has another batch or crop now."""
        if not carried or self.step == total_steps(self.config.stages):
            return None
        stage, data = position(self.config.stages, self.step).stage, self.config.data
        frame, crop = carried["frame"].shape, stage.crop or data.crop
        expected = (stage.batch or data.batch, 3, crop, crop)
        return carried if tuple(frame) == expected else None

    def _check_same_model(self) -> None:
        """Schedule and lambdas may be changed between sessions of a run, the network may not."""
        path = self.folder / "config.yaml"
        if path.exists():
            values = yaml.safe_load(path.read_text(encoding="utf-8")).get("model") or {}
            now = self.experiment.model
            try:
                before = ModelConfig.model_validate(values)  # keys it has not are at their defaults
            except ValidationError:
                before = None
            if before is None or (before.intra, before.inter) != (now.intra, now.inter):
                raise ConfigError(
                    f"{self.folder}: holds a run of another model; choose another --out"
                )

    def _describe(self) -> None:
        values = self.experiment.model_dump(mode="json")
        if self.step:
            for line in _changes(self.folder / "config.yaml", values):
                print(line)
        _write(self.folder / "config.yaml", yaml.safe_dump(values, sort_keys=False))
        _write(self.folder / "environment.json", json.dumps(_environment(), indent=1))


def _changes(path: Path, values: dict[str, Any]) -> list[str]:
    """What a run goes on with that is not as it was at its last start, an entry a line."""
    if not path.exists():
        return []
    before = yaml.safe_load(path.read_text(encoding="utf-8"))
    return [
        f"changed since the run's last start: {key} was {old}, is {new}"
        for key, (old, new) in changes(before, values).items()
    ]


def _write(path: Path, text: str) -> None:
    """Whole or not at all.

    Raises:
        TrainingError: it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, path)
    except OSError as error:
        raise TrainingError(
            f"{path} cannot be written ({error.strerror}): make room on the disk and give the same "
            "command again"
        ) from None
    finally:
        temporary.unlink(missing_ok=True)


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
