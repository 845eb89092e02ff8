"""Fitting a schedule to the time there is: how long steps take, and how many of them fit."""

import time

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


def fit_schedule(experiment: Experiment, seconds: list[float], budget: float) -> Experiment:
    """The experiment with all stages lengthened or shortened alike to take ``budget`` seconds.

    Raises:
        ConfigError: the budget is too small for a step of every stage.
    """
    stages = experiment.training.stages
    planned = sum(stage.steps * each for stage, each in zip(stages, seconds, strict=True))
    scaled = tuple(_scaled(stage, budget / planned) for stage in stages)
    if any(stage.steps < 1 for stage in scaled):
        raise ConfigError(f"{budget:.0f} s is too little time for this schedule")
    training = experiment.training.model_copy(update={"stages": scaled})
    return experiment.model_copy(update={"training": training})


def _scaled(stage: Stage, factor: float) -> Stage:
    return stage.model_copy(update={"steps": int(stage.steps * factor)})


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
