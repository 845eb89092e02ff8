"""One step of learning: forward, backward, clipped gradients, optimiser.

On a GPU the steps of a stage can be captured as one CUDA graph and replayed: lite's layers are so
small that launching them one by one takes several times as long as they run.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from codec.config import Stage, TrainingConfig
from codec.inter import ReferenceState
from codec.training.data import Batch
from codec.training.loss import ClipLoss, clip_loss, draw_quality, flow_loss
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
    own = [{key: group[key] for key in ("lr", "capturable")} for group in optimizer.param_groups]
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
    """

    def __init__(self, codec: VideoCodec, optimizer: torch.optim.Optimizer, config: TrainingConfig):
        self.codec = codec
        self.optimizer = optimizer
        self.config = config
        self.device = next(codec.parameters()).device
        self._skipped = torch.zeros((), device=self.device)
        self._carried: ReferenceState | None = None
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
        """Of a stage with chains: the state that its last step left."""
        return None if self._carried is None else dict(self._carried.tensors())

    @carried.setter
    def carried(self, tensors: dict[str, Tensor] | None) -> None:
        placed = {name: value.to(self.device) for name, value in (tensors or {}).items()}
        self._carried = ReferenceState(**placed) if placed else None

    def begin(self, stage: Stage, trained: list[nn.Parameter], goes_on: bool = False) -> None:
        """Start on a stage, whose parameters are ``trained``, or go on in the middle of it."""
        if not goes_on:
            self._carried = None
        self._stage, self._trained = stage, trained
        self._graph, self._taken = None, 0
        self.optimizer.zero_grad(set_to_none=True)

    def learn(self, batch: Batch, step: int, lr: float) -> ClipLoss:
        """Take the step of this number on a batch (on any device)."""
        batch = Batch(*(t if t is None else t.to(self.device) for t in batch))
        torch.manual_seed(self.config.seed * 1_000_003 + step)
        quality = batch.quality
        if quality is None:
            quality = draw_quality(batch.clip.shape[0]).to(self.device)
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(lr)
            else:
                group["lr"] = lr
        self._taken += 1
        if not self.config.cuda_graph:
            return self._step(batch, quality)
        if self._taken <= _EAGER_STEPS:
            return _on_side_stream(lambda: self._step(batch, quality))
        if self._graph is None:
            self._graph = _Replay(self._step, batch, quality, self.optimizer)
        return self._graph(batch, quality)

    def _step(self, batch: Batch, quality: Tensor) -> ClipLoss:
        self.codec.train()
        self.optimizer.zero_grad(set_to_none=True)
        half = self.config.precision == "bfloat16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=half):
            if self._stage.loss == "flow":
                outcome = flow_loss(self.codec, batch)
            else:
                outcome = clip_loss(
                    self.codec, batch, quality, self._stage, self.config, self._carried
                )
        outcome.loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._trained, self.config.clip_norm)
        broken = ~(torch.isfinite(outcome.loss.detach()) & torch.isfinite(norm))
        # The fused optimiser leaves everything as it was where this is 1, without asking the host.
        self.optimizer.found_inf = broken.float()
        self.optimizer.step()
        self._skipped += broken
        if self._stage.chain is not None:
            self._carry(outcome.state)
        outcome.state = None  # all that its gradients hold goes with it
        outcome.loss = outcome.loss.detach()
        return outcome

    def _carry(self, state: ReferenceState) -> None:
        """Keep what a step decoded for the next one, in the place where a graph looks for it."""
        state = state.detach()
        if self._carried is None:
            self._carried = ReferenceState(**{k: v.clone() for k, v in state.tensors()})
        for name, own in self._carried.tensors():
            # What is not finite would break the steps after this one too.
            own.copy_(torch.nan_to_num(getattr(state, name), 0.0, 0.0, 0.0))


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
