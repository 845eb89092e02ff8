"""One step of learning: forward, backward, clipped gradients, optimiser.

A batch may be learned from in parts: by several processes, which add up their gradients, and by
each of them in micro-batches. The draws and the step are those of the whole batch either way.

On a GPU the steps of a stage can be captured as one CUDA graph and replayed: lite's layers are so
small that launching them one by one takes several times as long as they run.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from codec.config import Stage, TrainingConfig
from codec.inter import ReferenceState
from codec.training.data import Batch
from codec.training.distributed import Ranks
from codec.training.loss import ClipLoss, clip_loss, draw_quality, flow_loss
from codec.training.rows import Rows
from codec.video_codec import VideoCodec

# Steps of a stage before its graph is captured: libraries choose their algorithms in these, and
# the optimiser makes its state.
_EAGER_STEPS = 3


def make_optimizer(codec: nn.Module, config: TrainingConfig) -> torch.optim.AdamW:
    """AdamW over all parameters; those that a stage does not train have no gradient."""
    graph = config.cuda_graph
    device = next(codec.parameters()).device
    return torch.optim.AdamW(
        codec.parameters(),
        lr=torch.tensor(1e-4, device=device) if graph else 1e-4,
        weight_decay=config.weight_decay,
        fused=True,
        capturable=graph,
    )


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take over a checkpoint's state, whichever device and way of stepping it was written under."""
    keys = ("lr", "capturable", "weight_decay")  # as configured now
    own = [{key: group[key] for key in keys} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, values in zip(optimizer.param_groups, own, strict=True):
        group.update(values)
    for parameter, values in optimizer.state.items():  # load_state_dict leaves `step` on its device
        values["step"] = values["step"].to(parameter.device)


class Learner:
    """Takes steps. A step is a function of the weights, the batch and (seed, step) alone.

    Steps whose loss or gradient is not finite change nothing and are counted in :attr:`skipped`.

    Args:
        codec: whose trained parts are set by :func:`codec.training.schedule.set_trained_parts`.
        optimizer: of :func:`make_optimizer`.
        config: of the run.
        ranks: the processes that take the step together.
    """

    def __init__(
        self,
        codec: VideoCodec,
        optimizer: torch.optim.Optimizer,
        config: TrainingConfig,
        ranks: Ranks | None = None,
    ):
        self.codec = codec
        self.optimizer = optimizer
        self.config = config
        self.ranks = ranks or Ranks()
        self.device = next(codec.parameters()).device
        self._skipped = torch.zeros((), device=self.device)
        self._carried: ReferenceState | None = None
        self._rows = Rows.all(0)
        self._stage: Stage | None = None
        self._trained: list[nn.Parameter] = []
        self._graph: _Replay | None = None
        self._taken = 0

    @property
    def skipped(self) -> int:
        return int(self._skipped)

    @skipped.setter
    def skipped(self, count: int) -> None:
        self._skipped.fill_(count)

    @property
    def carried(self) -> dict[str, Tensor] | None:
        """Of a stage with chains: the state that its last step left, of the whole batch.

        Every process has to ask for it, and is given its rows of what is set.
        """
        if self._carried is None:
            return None
        return {k: self.ranks.gathered(v, self._rows) for k, v in self._carried.tensors()}

    @carried.setter
    def carried(self, tensors: dict[str, Tensor] | None) -> None:
        placed = {}
        for name, value in (tensors or {}).items():
            self._rows = self.ranks.rows(len(value))
            placed[name] = value[self._rows.slice].to(self.device)
        self._carried = ReferenceState(**placed) if placed else None

    def begin(self, stage: Stage, trained: list[nn.Parameter], goes_on: bool = False) -> None:
        """Start on a stage, whose parameters are ``trained``, or go on in the middle of it."""
        if not goes_on:
            self._carried = None
        self._stage, self._trained = stage, trained
        self._graph, self._taken = None, 0
        self.optimizer.zero_grad(set_to_none=True)

    def learn(self, batch: Batch, step: int, lr: float) -> ClipLoss:
        """Take the step of this number on this process's rows of a batch (on any device)."""
        batch = Batch(*(t if t is None else t.to(self.device) for t in batch))
        self._rows = self._rows_of(batch)
        quality = self._draw(batch, step)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._taken += 1
        if not self.config.cuda_graph:
            return self._step(batch, quality, step)
        if self._taken <= _EAGER_STEPS:
            return _on_side_stream(lambda: self._step(batch, quality, step))
        if self._graph is None:
            # Of one part, which draws nothing of its own: any step's number will do.
            take = partial(self._step, step=step)
            self._graph = _Replay(take, batch, quality, self.optimizer)
        return self._graph(batch, quality)

    def _rows_of(self, batch: Batch) -> Rows:
        if self.ranks.size == 1:
            return Rows.all(len(batch.clip))
        return self.ranks.rows(self._stage.batch or self.config.data.batch)

    def _draw(self, batch: Batch, step: int) -> Tensor:
        """Seed the draws of a step, which begin with the samples' qualities; returns those."""
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        if batch.quality is not None:
            return batch.quality
        return draw_quality(self._rows.whole)[self._rows.slice].to(self.device)

    def _step(self, batch: Batch, quality: Tensor, step: int) -> ClipLoss:
        self.codec.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = []
        for number, rows in enumerate(self._rows.split(self.config.accumulate)):
            if number:
                self._draw(batch, step)  # every part keeps its own rows of the same draws
            parts.append(self._backward(batch, quality, rows))
        self.ranks.add_gradients(self._trained)
        outcome = self._together(parts)
        norm = torch.nn.utils.clip_grad_norm_(self._trained, self.config.clip_norm)
        broken = ~(torch.isfinite(outcome.loss.detach()) & torch.isfinite(norm))
        # The fused optimiser leaves everything as it was where this is 1, without asking the host.
        self.optimizer.found_inf = broken.float()
        self.optimizer.step()
        self._skipped += broken
        if self._stage.chain is not None:
            self._carry([part.state for part in parts])
        return outcome

    def _backward(self, batch: Batch, quality: Tensor, rows: Rows) -> ClipLoss:
        """Add the gradients of some rows to those there are; what is returned has none."""
        own = rows.within(self._rows)
        batch, quality = batch.take(own), quality[own]
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            if self._stage.loss == "flow":
                outcome = flow_loss(self.codec, batch, rows)
            else:
                carried = self._carried and self._carried.take(own)
                stage, config = self._stage, self.config
                outcome = clip_loss(self.codec, batch, quality, stage, config, carried, rows)
        outcome.loss.backward()
        state = outcome.state and outcome.state.detach()
        return replace(outcome, loss=outcome.loss.detach(), state=state)

    def _together(self, parts: list[ClipLoss]) -> ClipLoss:
        """What is logged of the whole batch."""
        totals = [sum(values[1:], values[0]) for values in zip(*map(_figures, parts), strict=True)]
        loss, *others = self.ranks.add_up(totals)
        bpp = dict(zip(parts[0].bpp, others, strict=False))
        psnr = dict(zip(parts[0].psnr, others[len(bpp) :], strict=True))
        return ClipLoss(loss, bpp, psnr)

    def _carry(self, states: list[ReferenceState]) -> None:
        """Keep what a step decoded for the next one, in the place where a graph looks for it."""
        names = [name for name, _ in states[0].tensors()]
        left = {name: torch.cat([getattr(state, name) for state in states]) for name in names}
        if self._carried is None:
            self._carried = ReferenceState(**{k: v.clone() for k, v in left.items()})
        for name, own in self._carried.tensors():
            # What is not finite would break the steps after this one too.
            own.copy_(torch.nan_to_num(left[name], 0.0, 0.0, 0.0))


def _figures(outcome: ClipLoss) -> list[Tensor]:
    return [outcome.loss, *outcome.bpp.values(), *outcome.psnr.values()]


class _Replay:
    """A step captured as a CUDA graph on inputs that keep their place."""

    def __init__(
        self,
        step: Callable[[Batch, Tensor], ClipLoss],
        batch: Batch,
        quality: Tensor,
        optimizer: torch.optim.Optimizer,
    ):
        self._batch = Batch(*(t if t is None else t.clone() for t in batch))
        self._quality = quality.clone()
        self._graph = torch.cuda.CUDAGraph()
        optimizer.zero_grad(set_to_none=True)  # gradients come to lie in the graph's own memory
        with torch.cuda.graph(self._graph):
            self._outcome = step(self._batch, self._quality)

    def __call__(self, batch: Batch, quality: Tensor) -> ClipLoss:
        for own, value in zip(self._batch, batch, strict=True):
            if own is not None:
                own.copy_(value)
        self._quality.copy_(quality)
        self._graph.replay()
        return self._outcome


def _on_side_stream(work: Callable[[], ClipLoss]) -> ClipLoss:
    """Run on another stream, as what is to be captured later has to be."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        outcome = work()
    torch.cuda.current_stream().wait_stream(stream)
    return outcome
