"""The benchmark's plumbing; no test here asserts a time."""

import json

import pytest

from benchmarks.registry import Figure, load, suites
from codec.errors import LgmcError
from lgmc.main import main


def test_limits_are_judged():
    assert Figure("a", 80.0, "x", limit="<= 80").holds is True
    assert Figure("a", 80.1, "x", limit="<= 80").holds is False
    assert Figure("a", 14.0, "x", limit=">= 15").holds is False
    assert Figure("a", 1.0, "x").holds is None


def test_every_suite_loads():
    for name in suites():
        suite = load(name)
        assert callable(suite.gate) and callable(suite.measure)


def test_report_of_the_codec_suite(model, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("benchmarks.codec_speed.LARGE", (96, 64))
    monkeypatch.setattr("benchmarks.codec_speed.SMALL", (96, 80))
    monkeypatch.setattr("benchmarks.codec_speed.SMALL_FRAMES", 3)
    monkeypatch.setattr("benchmarks.codec_speed.RUNS", 1)
    path = tmp_path / "bench.json"
    assert main(["bench", "codec", "--model", model, "--json", str(path)]) == 0
    report = json.loads(path.read_text())
    assert {"date", "machine", "versions", "command", "figures"} <= set(report)
    rows = {row["name"]: row for row in report["figures"]["codec"]}
    assert rows["P frame, encoder"]["value"] > rows["P frame, decoder"]["value"] > 0
    assert all(row["value"] > 0 for row in rows.values())
    assert "kMAC/pixel" in capsys.readouterr().out


def test_a_wrong_decoder_is_not_timed(model, monkeypatch, capsys):
    def wrong(*_, **__):
        raise LgmcError("bench: decoding does not give the encoder's pictures; nothing is timed")

    monkeypatch.setattr("codec.session.decode_to_file", wrong)
    assert main(["bench", "codec", "--model", model]) == 1
    assert "nothing is timed" in capsys.readouterr().err


def test_threads_are_at_least_one(capsys):
    with pytest.raises(SystemExit):
        main(["bench", "codec", "--threads", "0"])
    assert "0 is not 1 or more" in capsys.readouterr().err


def test_unknown_suite(capsys):
    assert main(["bench", "nothing"]) == 1
    assert "no suite 'nothing'" in capsys.readouterr().err
