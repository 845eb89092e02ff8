"""What every test gets: fixed seeds, one thread of torch, and real clips where a path is given."""

import os

# Before torch is imported: several test processes that each take every core only wait for one
# another, and sums over threads depend on their number.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
from pathlib import Path

import numpy as np
import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeds():
    """The same random numbers in every test, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_clips() -> Path:
    """The folder that LGMC_VIDEO names, with real clips in it; skips the test if unset."""
    folder = os.environ.get("LGMC_VIDEO")
    if not folder:
        pytest.skip("LGMC_VIDEO names no folder of real clips")
    path = Path(folder)
    assert path.is_dir(), f"LGMC_VIDEO={folder} is not a folder"
    return path
