"""The batch of each step, by the step's number: what the schedule and the data make of it."""

from collections.abc import Iterable

import torch

from codec.config import TrainingConfig
from codec.training.data import Batch, ClipSampler
from codec.training.known_motion import move_frames, move_photographs
from codec.training.rows import Rows
from codec.training.schedule import position, total_steps


class StepBatches(torch.utils.data.Dataset):
    """What the steps of a schedule learn from.

    Args:
        sampler: of the training clips.
        config: of the run.
        rank, size: of the processes that share each batch; this one's rows alone are read. Pairs
            of known motion are made for all and then taken from.
    """

    def __init__(self, sampler: ClipSampler, config: TrainingConfig, rank: int = 0, size: int = 1):
        self.sampler = sampler
        self.config = config
        self.rank, self.size = rank, size

    def __len__(self) -> int:
        return total_steps(self.config.stages)

    def __getitem__(self, step: int) -> Batch:
        where = position(self.config.stages, step)
        stage = where.stage
        data = self.config.data
        batch, crop = stage.batch or data.batch, stage.crop or data.crop
        rows = Rows.all(batch).split(self.size)[self.rank].slice
        if stage.loss == "flow" and data.known_motion == "photographs":
            return move_photographs(self.config.seed, step, batch, crop).take(rows)
        if stage.loss == "flow":
            frames = self.sampler.batch(step, batch, 1, crop)[:, 0]
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
            return move_frames(frames, generator).take(rows)
        if stage.chain is not None:
            first, chain = step - where.done, stage.chain
            return self.sampler.link(first, where.done, batch, stage.frames, crop, chain, rows)
        return Batch(self.sampler.batch(step, batch, stage.frames, crop, rows))

    def load(self, first: int, end: int, pin: bool) -> Iterable[Batch]:
        """Batches of the steps from ``first`` on; worker processes do not change what they hold."""
        if self.config.data.resident:
            return (self[number] for number in range(first, end))
        workers = self.config.data.workers
        return torch.utils.data.DataLoader(
            self,
            batch_size=None,
            sampler=range(first, end),
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=pin,
        )
