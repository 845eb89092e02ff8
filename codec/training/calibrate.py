"""Fitting a schedule to the time there is: how long steps take, and how many of them fit."""

import time
from itertools import pairwise

import torch

from codec.config import Experiment, Stage
from codec.errors import ConfigError
from codec.training.run import TrainingRun
from codec.training.schedule import set_trained_parts


def step_seconds(run: TrainingRun, warm_up: int = 5, steps: int = 15) -> list[float]:
    """Seconds that a step of each stage takes, data included.

    Takes real steps: the run's weights are of no use afterwards.
    """
    seconds = []
    first = 0
    for stage in run.config.stages:
        run.learner.begin(stage, set_trained_parts(run.codec, stage))
        for number in range(warm_up + steps):
            if number == warm_up:
                _wait(run.device)
                started = time.perf_counter()
            run.learner.learn(run.batch(first), first, 0.0)
        _wait(run.device)
        seconds.append((time.perf_counter() - started) / steps)
        first += stage.steps
    return seconds


def share_time(experiment: Experiment, seconds: list[float], shares: list[float]) -> Experiment:
    """The experiment with stages in these proportions of time, whatever steps it planned.

    Raises:
        ConfigError: not one share a stage.
    """
    stages = experiment.training.stages
    if len(shares) != len(stages):
        raise ConfigError(f"{len(shares)} shares of time do not fit {len(stages)} stages")
    # Long enough for the rounding not to matter; fit_schedule brings them to the time there is.
    steps = [round(1e6 * share / each) for share, each in zip(shares, seconds, strict=True)]
    stages = tuple(
        stage.model_copy(update={"steps": count})
        for stage, count in zip(stages, steps, strict=True)
    )
    return with_stages(experiment, stages)


def fit_schedule(
    experiment: Experiment, seconds: list[float], budget: float, first: int = 0
) -> Experiment:
    """The experiment with its stages lengthened or shortened alike to take ``budget`` seconds.

    first: the stage from which on that is done and the budget counts; those before stay.

    Raises:
        ConfigError: the budget is too small for a step of every stage.
    """
    kept, stages = experiment.training.stages[:first], experiment.training.stages[first:]
    planned = sum(stage.steps * each for stage, each in zip(stages, seconds[first:], strict=True))
    ends = [0]
    for stage in stages:
        ends.append(ends[-1] + stage.steps)
    # Rounded where stages end, so that what one loses the next one gets.
    ends = [round(end * budget / planned) for end in ends]
    lengths = [after - before for before, after in pairwise(ends)]
    if min(lengths) < 1:
        raise ConfigError(f"a budget of {budget:.0f} leaves no step for a stage of this schedule")
    scaled = tuple(
        stage.model_copy(update={"steps": steps})
        for stage, steps in zip(stages, lengths, strict=True)
    )
    return with_stages(experiment, (*kept, *scaled))


def slower(experiment: Experiment, first: int, factor: float = 0.5) -> Experiment:
    """The experiment with lower learning rates from the stage ``first`` on."""
    stages = tuple(
        stage
        if number < first
        else stage.model_copy(
            update={
                "lr": factor * stage.lr,
                "lr_end": None if stage.lr_end is None else factor * stage.lr_end,
            }
        )
        for number, stage in enumerate(experiment.training.stages)
    )
    return with_stages(experiment, stages)


def with_stages(experiment: Experiment, stages: tuple[Stage, ...]) -> Experiment:
    """The experiment with another schedule."""
    training = experiment.training.model_copy(update={"stages": stages})
    return experiment.model_copy(update={"training": training})


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
