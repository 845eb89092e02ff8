"""Runs the tests of the Triton back end, each file in a process of its own."""

from pathlib import Path

import pytest
import torch

pytest.importorskip("triton", reason="Triton is not published for this system")

HERE = Path(__file__).parent


def test_results(triton_process):
    triton_process(HERE / "triton_cases.py", interpret=not torch.cuda.is_available())


def test_compilation(triton_process):
    triton_process(HERE / "triton_compilation.py", interpret=False)
