"""The benchmark of training on a tiny model; no test here asserts a time."""

import json

import pytest
import torch

from benchmarks import training
from lgmc.main import main


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(training, "SIDE", 64)
    monkeypatch.setattr(training, "WARM_UP", 1)
    monkeypatch.setattr(training, "STEPS", 2)
    monkeypatch.setattr(training, "PROFILED", 1)
    monkeypatch.setattr(training, "CONFIG", training.CONFIG.with_name("debug.yaml"))


def test_report_of_the_training_suite(model, tmp_path):
    path = tmp_path / "bench.json"
    threads = str(torch.get_num_threads())  # a run sets them for the whole process
    words = ["bench", "training", "--model", model, "--threads", threads, "--json", str(path)]
    assert main(words) == 0
    rows = {one["name"]: one for one in json.loads(path.read_text())["figures"]["training"]}
    assert rows["train intra, 1 frames"]["value"] > rows["train cascade, 3 frames"]["value"] > 0
    whole = rows["of cascade, 3 frames: convolutions and kernels"]
    parts = [rows[f"of cascade, 3 frames: {kind}"]["value"] for kind in ("convolutions", "kernels")]
    assert whole["value"] == pytest.approx(sum(parts)) and whole["limit"] == ">= 60"
    assert min(parts) > 0 and sum(parts) < 100


def test_a_step_that_is_not_the_same_twice_is_not_timed(model, monkeypatch, capsys):
    monkeypatch.setattr(torch, "manual_seed", lambda seed: None)
    assert main(["bench", "training", "--model", model]) == 1
    assert "nothing is timed" in capsys.readouterr().err
