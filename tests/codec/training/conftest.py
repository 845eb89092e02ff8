"""Debug runs that nothing interrupted: what they leave, and what gives the same as they."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from codec.config import Experiment, load_experiment
from codec.training.run import TrainingRun

from ..conftest import CONFIGS

# All kinds of steps: of single frames, with known motion, with a search, with a chain.
STAGES = """[
 {name: intra, train: [intra], frames: 1, loss: all, steps: 2, lr: 1e-3},
 {name: flow, train: [flow], frames: 2, loss: flow, steps: 2, lr: 1e-3},
 {name: motion, train: [flow, motion], frames: 2, loss: motion_rd, steps: 2, lr: 1e-3, searched: 0.5},
 {name: chain, train: [all], frames: 3, loss: all, steps: 8, lr: 1e-3, chain: 8, searched: 0.5},
]"""  # noqa: E501
# How far sums in another order may lead, against how far the run moves its weights: Adam divides
# gradients by their own size, rounding and all. It is below 1e-6 of the weights themselves.
ROUNDING = 1e-4
ALL_KINDS = (
    f"training.stages={STAGES}",
    "training.data.batch=3",
    "training.checkpoint_every=10",
    "training.validate_every=1000",
    "model.inter.motion.refine={}",
)


@pytest.fixture(scope="package")
def watched_run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("watched")
    overrides = [f"training.data.cache={root / 'cache'}", "name=watched"]
    TrainingRun(load_experiment(CONFIGS / "debug.yaml", overrides), root / "watched").train()
    return root / "watched"


class Whole:
    """A run with all kinds of steps by one process that takes each batch whole.

    Attributes:
        cache: of the clips it made.
        weights: at its end.
        moved: how far it has moved them.
    """

    def __init__(self, root: Path):
        self.cache = root / "cache"
        run = TrainingRun(self.experiment(), root / "whole")
        begin = {name: value.clone() for name, value in run.codec.state_dict().items()}
        run.train()
        self.weights = last_weights(run.folder)
        self.moved = distance(begin, self.weights)

    def experiment(self, *more: str) -> Experiment:
        return load_experiment(CONFIGS / "debug.yaml", self.overrides(*more))

    def overrides(self, *more: str) -> list[str]:
        return [f"training.data.cache={self.cache}", *ALL_KINDS, *more]

    def differs_from(self, folder: Path) -> float:
        """How far another run's weights are from this one's, against how far those have moved."""
        return distance(self.weights, last_weights(folder)) / self.moved


@pytest.fixture(scope="package")
def whole(tmp_path_factory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


def last_weights(folder: Path) -> dict[str, torch.Tensor]:
    last = sorted((folder / "checkpoints").glob("step_*"))[-1]
    return load_file(last / "weights.safetensors")


def distance(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return sum(float((one[k].double() - other[k].double()).square().sum()) for k in one) ** 0.5
