"""Runs the tests of the Triton back end, each file in a process of its own.

Whether Triton interprets or compiles is settled when it is first imported, so a process that other
tests share cannot do both.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not published for this system")

HERE = Path(__file__).parent


def run(name: str, interpret: bool) -> None:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")}
    environment.pop("TRITON_INTERPRET", None)
    if interpret:
        environment["TRITON_INTERPRET"] = "1"
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", HERE / name]
    done = subprocess.run(
        command, cwd=HERE.parents[2], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_results():
    run("triton_cases.py", interpret=not torch.cuda.is_available())


def test_compilation():
    run("triton_compilation.py", interpret=False)
