"""Result files: round trips, curves, and one-line refusals."""

import json
import os
import shlex
from fractions import Fraction

import pandas
import pytest

from eval import conditions
from eval.compare import compare
from eval.metrics import bits_per_pixel, kilobits_per_second
from eval.results import (
    Conditions,
    Failure,
    PerFrame,
    RdPoint,
    RdResults,
    ResultsError,
    SequenceInfo,
    load_results,
    save_csv,
    save_results,
    table,
    write_bytes,
    write_text,
)

FRAMES = 4
ANCHOR = [(2000, 31.0), (4000, 33.4), (8000, 35.6), (16000, 37.5)]


def _info(name="pan", **fields):
    values = {"width": 64, "height": 48, "fps": "24", "frames": FRAMES, "chroma": "420"}
    values |= {"bit_depth": 8, "matrix": "bt709", "range": "limited", "digest": f"digest of {name}"}
    return SequenceInfo(name=name, **(values | fields))


def _point(size, quality, level, sequence="pan", ms_ssim=None):
    return RdPoint(
        sequence=sequence,
        level=level,
        frames=FRAMES,
        bytes=size,
        bpp=bits_per_pixel(size, 64, 48, FRAMES),
        kbps=kilobits_per_second(size, FRAMES, Fraction(24)),
        metrics={"psnr_rgb": quality, "psnr_y": quality + 1, "ms_ssim": ms_ssim},
        encode_seconds=0.5,
        decode_seconds=0.25,
        encode_fps=8.0,
        measured="2026-01-02T03:04:05+00:00",
        arguments=["ffmpeg", "-qp", str(level)],
        per_frame=PerFrame(metrics={"psnr_rgb": [quality] * FRAMES}, bytes=[size // 4] * FRAMES),
    )


def _results(curve=ANCHOR, codec="x265-medium", sequences=("pan",), **fields):
    values = {
        "codec": codec,
        "parameter": "qp",
        "conditions": Conditions(
            date=conditions.now(),
            command=["lgmc", "eval"],
            machine=conditions.machine(),
            versions=conditions.versions(),
            frames=None,
            intra_period=32,
            device="cpu",
            codec={"anchor": codec},
        ),
        "sequences": [_info(name) for name in sequences],
        "points": [
            _point(size, quality, 40 - level, name)
            for name in sequences
            for level, (size, quality) in enumerate(curve)
        ],
    }
    return RdResults(**(values | fields))


def test_rates_by_hand():
    assert bits_per_pixel(1000, 10, 20, 4) == 10.0
    assert kilobits_per_second(1000, 4, Fraction(24)) == 48.0


def test_json_round_trip(tmp_path):
    results = _results(failures=[Failure(sequence="pan", level=12, error="why")])
    save_results(results, tmp_path / "r.json")
    assert load_results(tmp_path / "r.json") == results
    assert os.listdir(tmp_path) == ["r.json"]


def test_csv_has_a_row_per_point_with_its_conditions(tmp_path):
    both = [_results(sequences=("pan", "zoom")), _results(codec="x264-medium")]
    save_csv(both, tmp_path / "points.csv")
    table = pandas.read_csv(tmp_path / "points.csv")
    assert len(table) == 12
    row = table[(table.codec == "x264-medium") & (table.bytes == 4000)].iloc[0]
    point = next(p for p in both[1].points if p.bytes == 4000)
    assert (row.bpp, row.psnr_rgb, row.level) == (point.bpp, 33.4, point.level)
    assert (row.sequence, row.intra_period, row.matrix, row.frames) == ("pan", 32, "bt709", 4)
    assert row.arguments == " ".join(point.arguments)
    assert "torch=" in row.versions and row.command == "lgmc eval"
    assert table.psnr_u.isna().all()


def test_a_curve_is_sorted_by_rate_and_ms_ssim_is_in_db():
    points = [_point(4000, 33.0, 30, ms_ssim=0.99), _point(2000, 31.0, 35, ms_ssim=0.9)]
    results = _results(points=points)
    assert [value for _, value in results.curve("pan", "psnr_rgb")] == [31.0, 33.0]
    assert [v for _, v in results.curve("pan", "ms_ssim")] == pytest.approx([10.0, 20.0])
    assert results.curve("pan", "psnr_u") == []
    with pytest.raises(ResultsError, match="no metric 'lpips'"):
        results.curve("pan", "lpips")


def _broken(change):
    content = _results().model_dump(mode="json")
    change(content)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is not JSON"),
        ("[]", "not a result file of format lgmc-rd/1"),
        ('{"format": "lgmc-rd/9"}', "not a result file of format lgmc-rd/1"),
        ('{"format": "lgmc-rd/1"}', "codec: Field required .and 4 more"),
        (_broken(lambda c: c["points"][0].update(bytes="many")), "points.0.bytes"),
        (_broken(lambda c: c["points"][0].update(bytes=7)), "states .* bpp but its bytes are"),
        (_broken(lambda c: c["points"][0].update(extra=1)), "points.0.extra"),
        (_broken(lambda c: c["points"][0].update(sequence="zoom")), "'zoom' .* does not list"),
        (_broken(lambda c: c["points"][0]["metrics"].update(lpips=9.0)), "unknown metric 'lpips'"),
        (_broken(lambda c: c["points"][0].update(level=39)), "qp 39 stands there twice"),
        (_broken(lambda c: c["points"][0].update(frames=3)), "does not have 3 entries"),
        (_broken(lambda c: c["sequences"].append(c["sequences"][0])), "same name"),
        (_broken(lambda c: c["sequences"][0].update(fps="0")), "not a positive fraction"),
        (_broken(lambda c: c["points"][0].update(bpp=float("nan"))), "points.0.bpp"),
    ],
)
def test_malformed_files_are_refused_in_one_line(tmp_path, text, words):
    path = tmp_path / "bad.json"
    path.write_text(text)
    with pytest.raises(ResultsError, match=words) as caught:
        load_results(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_or_written_are_said(tmp_path):
    with pytest.raises(ResultsError, match="cannot be read"):
        load_results(tmp_path / "none.json")
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ResultsError, match="not a text file"):
        load_results(tmp_path / "bytes")
    with pytest.raises(ResultsError, match="cannot be written"):
        save_results(_results(), tmp_path / "none" / "r.json")
    with pytest.raises(ResultsError, match="cannot be written"):
        save_results(_results(), tmp_path)


def _test_curve(factor):
    return [(int(size * factor), quality) for size, quality in ANCHOR]


def test_comparing_two_codecs():
    anchor = _results(sequences=("pan", "zoom"))
    test = _results(_test_curve(0.8), codec="lite", sequences=("zoom", "pan"))
    comparison = compare(anchor, test)
    assert list(comparison.deltas) == ["pan", "zoom"]
    assert comparison.mean_rate_percent == pytest.approx(-20.0, abs=1e-9)
    assert comparison.mean_quality_db > 0
    assert comparison.warnings == []
    content = json.loads(json.dumps(comparison.to_json()))
    assert content["sequences"]["pan"]["rate_percent"] == pytest.approx(-20.0, abs=1e-9)
    assert content["sequences"]["pan"]["overlap"] == 1.0


def test_a_sequence_without_a_figure_says_why_and_the_mean_says_so():
    anchor = _results(sequences=("pan", "zoom"))
    test = _results(_test_curve(0.8), codec="lite", sequences=("pan", "zoom"))
    test = test.model_copy(update={"points": test.points[1:]})
    comparison = compare(anchor, test)
    assert "lite has 3 point(s)" in comparison.deltas["pan"]
    assert comparison.mean_rate_percent == pytest.approx(-20.0, abs=1e-9)
    assert "the mean is over 1 of 2 sequences: the others have none" in comparison.warnings


def test_different_conditions_are_said_or_refused():
    anchor = _results(failures=[Failure(sequence="pan", level=12, error="why")])
    later = anchor.conditions.model_copy(update={"intra_period": 96})
    test = _results(codec="lite", conditions=later)
    notes = " ".join(compare(anchor, test).warnings)
    assert "the intra periods differ: 32 and 96" in notes
    assert "1 point(s) of x265-medium failed" in notes
    other = _results(sequences=("zoom",))
    with pytest.raises(ResultsError, match="no sequence in common"):
        compare(anchor, other)
    other = anchor.model_copy(update={"sequences": [_info(digest="other")]})
    with pytest.raises(ResultsError, match="not the same video"):
        compare(anchor, other)


def test_a_metric_that_does_not_apply_is_said():
    comparison = compare(_results(), _results(codec="lite"), "ms_ssim")
    assert "does not apply" in comparison.deltas["pan"]
    assert comparison.mean_rate_percent is None


def test_a_metric_that_was_not_measured_is_said_to_be_that():
    comparison = compare(_results(), _results(codec="lite"), "xpsnr_y")
    assert "was not measured" in comparison.deltas["pan"]
    assert "`lgmc eval --metrics xpsnr`" in comparison.deltas["pan"]


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    (tmp_path / "kept").write_text("before")

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupted)
    for write, content in ((write_text, "after"), (write_bytes, b"after")):
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "kept", content)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "before"


def test_json_that_is_nested_without_end_is_one_line(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(ResultsError, match="deep.json is not JSON"):
        load_results(tmp_path / "deep.json")


def test_a_number_beyond_any_float_is_one_line(tmp_path):
    content = _results().model_dump(mode="json")
    content["points"][0]["bytes"] = 10**400
    (tmp_path / "huge.json").write_text(json.dumps(content))
    with pytest.raises(ResultsError, match="huge.json is not a valid result file"):
        load_results(tmp_path / "huge.json")


def test_a_command_can_be_copied_from_the_table(tmp_path, monkeypatch):
    words = ["lgmc", "eval", "--sequences", "my clips"]
    one = _results()
    conditions_ = one.conditions.model_copy(update={"command": words})
    row = table([one.model_copy(update={"conditions": conditions_})])[0]
    assert shlex.split(row["command"]) == words
    monkeypatch.setattr("sys.argv", ["/somewhere/lgmc/__main__.py", *words[1:]])
    assert conditions.command_line() == words


def test_conditions_name_no_host():
    import platform

    text = json.dumps([conditions.machine(), conditions.versions()])
    assert platform.node() not in text or len(platform.node()) < 4
    assert conditions.machine()["cores"] >= 1


def test_code_digest_follows_the_sources():
    metrics = conditions.code_digest("eval.metrics")
    assert metrics == conditions.code_digest("eval.metrics")
    assert len({metrics, conditions.code_digest("eval"), conditions.code_digest("codec")}) == 3
    whole, part = (conditions.code_digest("codec", without=w) for w in ((), ("training",)))
    assert whole != part
