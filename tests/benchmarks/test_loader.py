"""The loader's benchmark on clips of a few frames; no test here asserts a time."""

import json

import pytest
import torch

from benchmarks import loader
from lgmc.main import main


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    monkeypatch.setattr(loader, "SIZE", (96, 80))
    monkeypatch.setattr(loader, "KINDS", ("pan", "layers"))
    monkeypatch.setattr(loader, "FRAMES", 8)
    monkeypatch.setattr(loader, "RUNS", 1)
    monkeypatch.setattr(loader, "SECONDS", 0.01)
    monkeypatch.setattr(loader, "STEPS", 1)
    monkeypatch.setattr(loader, "WARM_UP", 1)
    monkeypatch.setattr(loader, "RECIPES", {"cpu": loader._Recipe(64, 1, 1)})
    monkeypatch.setattr(loader, "_workers", lambda: 1)


def test_report_of_the_loader_suite(model, tmp_path, capsys):
    threads = str(torch.get_num_threads())  # the suite sets them for the whole process
    path = tmp_path / "bench.json"
    words = ["bench", "loader", "--model", model, "--threads", threads, "--json", str(path)]
    assert main(words) == 0
    rows = {one["name"]: one for one in json.loads(path.read_text())["figures"]["loader"]}
    for stage in ("intra", "cascade"):
        taken = rows[f"training, {stage}"]["value"]
        for source in ("files", "shards", "augmented"):
            delivered = rows[f"loader, 1 worker(s), {source}, {stage}"]["value"]
            ratio = rows[f"loader / training, {source}, {stage}"]
            assert taken > 0 and delivered > 0
            assert ratio["value"] == pytest.approx(delivered / taken)
            assert ratio["limit"] == ("" if source == "augmented" else ">= 2")


def test_other_pixels_are_not_timed(model, monkeypatch, capsys):
    from codec.training.data import CachedClip

    read = CachedClip.read

    def wrong(self, *place, **options):
        mapped = "shards" in str(self.planes.filename)
        return read(self, *place, **options).flip(-1 if mapped else 0)

    monkeypatch.setattr(CachedClip, "read", wrong)
    assert main(["bench", "loader", "--model", model]) == 1
    assert "other pixels from shards; nothing is timed" in capsys.readouterr().err
