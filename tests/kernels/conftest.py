"""What the tests of the operators share."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def triton_process():
    """Runs a file of Triton cases in a process of its own: ``triton_process(path, interpret)``.

    Whether Triton interprets or compiles is settled when it is first imported, so a process that
    other tests share cannot do both.
    """

    def run(path: Path, interpret: bool) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
        environment.pop("TRITON_INTERPRET", None)
        if interpret:
            environment["TRITON_INTERPRET"] = "1"
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", path]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]

    return run
