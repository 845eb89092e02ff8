"""The benchmark of rate control: its table, its memory, its fit."""

import json

import pytest

from benchmarks import rate_control
from codec.video.synthetic import write_synthetic


@pytest.fixture
def clip(tmp_path):
    path = tmp_path / "pan_96x64.y4m"
    write_synthetic("pan", path, 96, 64, 10)
    return path


def test_a_table_is_measured_once(clip, tmp_path, capsys, monkeypatch):
    store = tmp_path / "done.json"
    words = [str(clip), "--rates", "25k", "--json", str(store)]
    assert rate_control.main(words) == 0
    first = capsys.readouterr().out
    assert [line.split(" | ")[:3] for line in first.splitlines()[2:]] == [
        ["| pan", "25", "one"],
        ["| pan", "25", "two"],
    ]
    done = json.loads(store.read_text())
    assert any('"two_pass": true' in key for key in done)
    monkeypatch.setattr("codec.session.encode", None)  # nothing is left to encode
    page = tmp_path / "page.md"
    page.write_text(f"before\n{rate_control.BEGIN}\nold\n{rate_control.END}\nafter\n")
    monkeypatch.setattr(rate_control, "PAGE", page)
    assert rate_control.main([*words, "--document"]) == 0
    assert capsys.readouterr().out == first
    assert first.strip() in page.read_text() and "old" not in page.read_text()


def test_spread_compares_frames_of_one_kind():
    # Periods of 3 frames, 2 phases: I, P1, P2.
    assert rate_control.spread([40, 30, 34, 40, 30, 34], 3, 2) == (0, 0)
    deviation, reach = rate_control.spread([40, 30, 34, 44, 30, 34], 3, 2)
    assert reach == 4 and deviation == pytest.approx((8 / 6) ** 0.5)


def test_curves_are_of_both_types(clip, capsys, monkeypatch):
    monkeypatch.setattr(rate_control, "CURVE_QUALITIES", (15, 30, 45, 60))
    assert rate_control.main([str(clip), "--curves"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["I", "P"]
    for line in lines:
        slope, bend = (float(line.split(f"{name} ")[1].split(",")[0]) for name in ("slope", "bend"))
        assert 0.02 < slope - 35 * bend < 0.3  # in the middle of the indices
