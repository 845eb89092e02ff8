"""A debug run that nothing interrupted, for the tests of what it leaves in its folder."""

from pathlib import Path

import pytest

from codec.training.run import TrainingRun

from ..conftest import CONFIGS


@pytest.fixture(scope="package")
def watched_run(tmp_path_factory) -> Path:
    from codec.config import load_experiment

    root = tmp_path_factory.mktemp("watched")
    overrides = [f"training.data.cache={root / 'cache'}", "name=watched"]
    TrainingRun(load_experiment(CONFIGS / "debug.yaml", overrides), root / "watched").train()
    return root / "watched"
