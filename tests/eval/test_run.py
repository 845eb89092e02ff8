"""Evaluations as a whole, with real encoders and a real model, at sizes that take seconds."""

import csv
import json
import warnings
from pathlib import Path

import pytest
import torch

from codec.config import load_experiment
from codec.errors import ConfigError, LgmcError, ModelError, VideoError
from codec.models import describe, export
from codec.video.synthetic import write_synthetic
from codec.video_codec import VideoCodec
from eval import conditions
from eval.anchors import Anchor
from eval.plot import average_curve, plot_rd
from eval.point import PointTask, place
from eval.pool import LocalPool
from eval.results import RdResults, ResultsError, load_results, table
from eval.run import evaluate
from eval.sequences import find_sequences

ROOT = Path(__file__).resolve().parents[2]
QPS = (22, 28, 34, 40)
ANCHORS = ["x264-medium", "x265-medium"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_synthetic("pan", folder / "pan.y4m", 64, 48, 4, seed=1)
    write_synthetic("zoom", folder / "zoom.y4m", 64, 48, 3, seed=2)
    return folder


@pytest.fixture(scope="module")
def done(clips, tmp_path_factory):
    """(Evaluation, its folder, the lines reported) of both anchors on both clips."""
    out, lines = tmp_path_factory.mktemp("out") / "deeper", []
    evaluation = evaluate(clips, anchors=ANCHORS, qps=QPS, out=out, report=lines.append)
    return evaluation, out, lines


def test_every_codec_has_every_point_on_every_sequence(done):
    evaluation, _, lines = done
    assert [one.codec for one in evaluation.results] == ANCHORS
    for one in evaluation.results:
        assert [(p.sequence, p.level) for p in one.points] == [
            (name, qp) for name in ("pan", "zoom") for qp in QPS
        ]
        assert [info.frames for info in one.sequences] == [4, 3]
    assert len(lines) == 16
    assert evaluation.failures == []


def test_bits_are_the_bytes_of_the_file(done, clips, tmp_path):
    evaluation, _, _ = done
    sequence = find_sequences(clips / "pan.y4m")[0]
    Anchor("x264-medium").encode(sequence, 28, tmp_path / "again.264")
    point = next(p for p in evaluation.results[0].points if (p.sequence, p.level) == ("pan", 28))
    assert point.bytes == (tmp_path / "again.264").stat().st_size
    assert point.bpp == pytest.approx(point.bytes * 8 / (64 * 48 * 4))
    assert point.kbps == pytest.approx(point.bytes * 8 / (4 / 24) / 1000)
    rows = point.per_frame.metrics["psnr_y"]
    assert point.metrics["psnr_y"] == pytest.approx(sum(rows) / 4)
    assert point.metrics["ms_ssim"] is None  # sides of 160 pixels or less


def test_the_files_and_their_conditions(done):
    evaluation, out, _ = done
    names = {path.name for path in evaluation.files}
    assert {"x264-medium.json", "x265-medium.json", "points.csv", "rd_psnr_rgb.png"} <= names
    assert all(path.stat().st_size > 0 for path in evaluation.files)
    loaded = load_results(out / "x265-medium.json")
    assert loaded == evaluation.results[1]
    assert loaded.conditions.intra_period == 32
    assert loaded.conditions.codec["ffmpeg"] != "unknown"
    assert "keyint=32" in loaded.conditions.codec["options"]
    assert loaded.conditions.machine == conditions.machine()


def test_a_second_run_redoes_nothing_and_force_redoes_all(done, clips, monkeypatch):
    evaluation, out, _ = done
    calls = []
    encode = Anchor.encode

    def counted(self, sequence, level, target):
        calls.append(level)
        return encode(self, sequence, level, target)

    monkeypatch.setattr(Anchor, "encode", counted)
    again = evaluate(clips, anchors=ANCHORS, qps=(*QPS, 46), out=out)
    assert calls == [46] * 4
    assert again.results[0].points[:4] == evaluation.results[0].points[:4]
    calls.clear()
    evaluate(clips / "pan.y4m", anchors=ANCHORS[:1], qps=QPS[:2], out=out, force=True)
    assert sorted(calls) == [22, 28]
    calls.clear()
    evaluate(clips / "pan.y4m", anchors=ANCHORS[:1], qps=QPS[:2], out=out, intra_period=2)
    assert sorted(calls) == [22, 28]


class Elsewhere(LocalPool):
    """Another machine measures what is not alone at an odd qp, as a cluster's workers may."""

    OTHER = {**conditions.machine(), "cpu": "another cpu"}

    def prepare(self, tasks):
        return [*super().prepare(tasks), self.OTHER]

    def run(self, tasks, *, alone):
        for task, point, machine in super().run(tasks, alone=alone):
            yield task, point, self.OTHER if task.level % 2 else machine


def test_a_point_belongs_to_the_machine_that_measured_it(clips, tmp_path):
    common = {"anchors": ANCHORS[:1], "qps": (24, 26, 29), "out": tmp_path}
    (results,) = evaluate(clips / "pan.y4m", pool=Elsewhere(), **common).results
    machines = {point.level: point.machine for point in results.points}
    assert machines == {24: None, 26: None, 29: Elsewhere.OTHER}
    assert results.conditions.machine == conditions.machine()
    assert load_results(tmp_path / "x264-medium.json") == results
    assert [row["cpu"] for row in table([results])].count("another cpu") == 1
    dates = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "points").glob("*.json")}

    (again,) = evaluate(clips / "pan.y4m", pool=Elsewhere(), **common).results
    assert again.points == results.points
    assert dates == {p.name: p.stat().st_mtime_ns for p in (tmp_path / "points").glob("*.json")}
    (here,) = evaluate(clips / "pan.y4m", **common).results  # takes nothing of the other machine's
    assert [point.machine for point in here.points] == [None] * 3
    assert len(list((tmp_path / "points").glob("*.json"))) == 4


def test_what_measures_is_in_the_key(clips, tmp_path, monkeypatch):
    from eval.learned import Model

    (sequence,) = find_sequences(clips / "pan.y4m")
    seen = []

    def digest(*modules, without=()):
        seen.extend(modules)
        return " ".join(modules)

    monkeypatch.setattr(conditions, "code_digest", digest)
    anchor, model = Anchor("x264-medium"), Model("lite")
    keys = [PointTask(codec, sequence, 30, 32).decided_by() for codec in (anchor, model)]
    assert {"eval.point", "eval.metrics", "eval.codec_under_test", "codec.video"} <= set(seen)
    assert "eval.anchors" in keys[0]["measured_by"] and "eval.learned" in keys[1]["measured_by"]


def test_times_of_a_model_belong_to_a_number_of_threads():
    machine = conditions.machine()
    anchor, model = {"anchor": "x264-medium"}, {"model": "lite", "device": "cpu"}
    assert place(machine, model, 1) != place(machine, model, 2)
    assert place(machine, anchor) == [machine["cpu"], machine["cores"]]


def test_a_folder_used_twice_holds_both_runs(clips, tmp_path):
    common = {"qps": QPS, "out": tmp_path}
    evaluate(clips, anchors=["x264-medium"], **common)
    (tmp_path / "bdrate.json").write_text("of some earlier run")
    (tmp_path / "rd_vmaf.png").write_text("of some earlier run")
    lines = []
    evaluation = evaluate(clips, anchors=["x265-medium"], report=lines.append, **common)
    assert [one.codec for one in evaluation.results] == ["x265-medium"]
    with open(tmp_path / "points.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["codec"] for row in rows] == ["x265-medium"] * 8 + ["x264-medium"] * 8
    assert not (tmp_path / "bdrate.json").exists() and not (tmp_path / "rd_vmaf.png").exists()

    lines.clear()
    evaluate(clips, anchors=["x264-medium"], frames=2, report=lines.append, **common)
    assert lines[-1].startswith("x265-medium.json is of other frames of pan")
    assert "x265-medium" not in (tmp_path / "points.csv").read_text()


def test_another_training_of_a_model_leaves_the_results_of_the_first(clips, tmp_path):
    first, second = (tmp_path / f"{seed}.safetensors" for seed in (0, 1))
    for seed, path in enumerate((first, second)):
        torch.manual_seed(seed)
        export(VideoCodec(load_experiment(ROOT / "configs" / "debug.yaml").model), path, card={})
    common = {"qualities": (32,), "frames": 2, "out": tmp_path / "out"}

    def names(model):
        return [one.codec for one in evaluate(clips, models=[model], **common).results]

    assert names(first) == ["debug"]
    kept = load_results(tmp_path / "out" / "debug.json")
    apart = f"debug-{describe(str(second))['digest'][:8]}"
    assert names(second) == names(second) == [apart]
    assert names(first) == ["debug"]
    assert load_results(tmp_path / "out" / "debug.json").points == kept.points
    assert {p.name for p in (tmp_path / "out").glob("*.json")} == {"debug.json", f"{apart}.json"}


def test_one_failing_point_does_not_stop_the_others(clips, tmp_path, monkeypatch):
    encode = Anchor.encode

    def failing(self, sequence, level, target):
        if level == 28:
            raise LgmcError("as a test wants")
        if level == 34:
            raise ZeroDivisionError("a fault of ours")
        return encode(self, sequence, level, target)

    monkeypatch.setattr(Anchor, "encode", failing)
    evaluation = evaluate(clips / "pan.y4m", anchors=ANCHORS[:1], qps=QPS, out=tmp_path)
    assert [point.level for point in evaluation.results[0].points] == [22, 40]
    errors = [failure.error for _, failure in evaluation.failures]
    assert errors == ["as a test wants", "ZeroDivisionError: a fault of ours"]
    assert load_results(tmp_path / "x264-medium.json").failures[0].level == 28
    monkeypatch.setattr(Anchor, "encode", encode)
    again = evaluate(clips / "pan.y4m", anchors=ANCHORS[:1], qps=QPS, out=tmp_path)
    assert [point.level for point in again.results[0].points] == list(QPS)


def test_a_missing_encoder_is_said_once_and_the_rest_goes_on(clips, tmp_path, monkeypatch, capsys):
    from eval.anchors import anchor
    from lgmc.main import main

    has = anchor.ffmpeg_has
    monkeypatch.setattr(
        anchor, "ffmpeg_has", lambda *words: "vvenc" not in words[2] and has(*words)
    )
    words = ["--model", "none", "--anchors", "x264-medium,vvenc-ld,hm-ld,libaom-ra", "--json"]
    places = ["--sequences", str(clips / "pan.y4m"), "--out", str(tmp_path), "--frames", "1"]
    assert main(["eval", *words, *places, "--qps", "30,36", "--av1-qps", "62"]) == 1
    printed = capsys.readouterr()
    results = {one["codec"]: one for one in json.loads(printed.out)["results"]}
    counts = [(len(one["points"]), len(one["failures"])) for one in results.values()]
    assert counts == [(2, 0), (0, 2), (0, 2), (1, 0)]
    assert results["libaom-ra"]["points"][0]["level"] == 62
    said = [line for line in printed.err.splitlines() if line.startswith("eval: no point of")]
    assert len(said) == 2
    assert "vvenc-ld at 30 on pan (and 1 more): this FFmpeg" in said[0]
    assert "set $HM_ENCODER" in said[1]


def test_an_interrupted_evaluation_ends_at_once_and_goes_on_later(clips, tmp_path):
    def interrupt(line):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate(clips, anchors=ANCHORS, qps=QPS, out=tmp_path, report=interrupt)
    kept = len(list((tmp_path / "points").glob("*.json")))
    assert 1 <= kept < 16
    assert not (tmp_path / "points.csv").exists()


def test_what_stops_the_whole(clips, tmp_path):
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        evaluate(clips, out=tmp_path)
    with pytest.raises(ConfigError, match="a qp is 0..51, not 60"):
        evaluate(clips, anchors=ANCHORS, qps=(22, 60), out=tmp_path)
    with pytest.raises(ConfigError, match="same qp is given twice"):
        evaluate(clips, anchors=ANCHORS, qps=(22, 22), out=tmp_path)
    with pytest.raises(ConfigError, match="no anchor 'vvc'"):
        evaluate(clips, anchors=["vvc"], out=tmp_path)
    with pytest.raises(ConfigError, match="the same model is given twice: lite"):
        evaluate(clips, models=["lite", "lite"], out=tmp_path)
    nowhere = tmp_path / "none.y4m"
    with pytest.raises(ModelError):  # before anything is read
        evaluate(nowhere, models=["liet"], out=tmp_path / "new")
    with pytest.raises(VideoError, match="does not exist"):
        evaluate(nowhere, anchors=ANCHORS, out=tmp_path / "new")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(ResultsError, match="cannot be made"):
        evaluate(clips, anchors=ANCHORS, out=tmp_path / "file" / "out")


def test_a_damaged_cache_entry_is_measured_again(clips, tmp_path):
    arguments = {"anchors": ANCHORS[:1], "qps": (30, 36), "out": tmp_path}
    first = evaluate(clips / "pan.y4m", **arguments)
    for path in (tmp_path / "points").glob("*.json"):
        path.write_text(path.read_text()[:100])
    second = evaluate(clips / "pan.y4m", **arguments)
    assert [p.bytes for p in second.results[0].points] == [p.bytes for p in first.results[0].points]


def test_a_name_that_the_font_lacks_is_drawn_without_a_warning(done, tmp_path):
    text = done[0].results[0].model_dump_json().replace('"pan"', '"\u65e5\u672c"')
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for path in plot_rd([RdResults.model_validate_json(text)], tmp_path / "rd.png"):
            assert path.is_file()


def test_the_plot_has_a_panel_per_sequence_and_the_average(done, tmp_path):
    results = done[0].results
    for log_rate in (True, False):
        png, svg = plot_rd(results, tmp_path / "rd.png", log_rate=log_rate)
        assert png.read_bytes().startswith(b"\x89PNG")
        assert svg.read_text().lstrip().startswith("<?xml")
    with pytest.raises(ResultsError, match="nothing to plot"):
        plot_rd(results, tmp_path / "rd.png", metric="ms_ssim")
    with pytest.raises(ResultsError, match="cannot be written"):
        plot_rd(results, tmp_path / "none" / "rd.png")


def test_without_an_average_there_is_no_panel_of_it(done, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    (one, _), counted = done[0].results, []
    points = [
        point.model_copy(update={"metrics": {**point.metrics, "psnr_y": None}})
        if point.sequence == name
        else point
        for name in ("zoom",)
        for point in one.points
    ]
    infos = [*one.sequences, one.sequences[0].model_copy(update={"name": "still"})]
    more = [p.model_copy(update={"sequence": "still"}) for p in points if p.sequence == "pan"]
    lacking = one.model_copy(update={"sequences": infos, "points": [*points, *more]})
    plain = Figure.subplots

    def subplots(self, rows, columns, **options):
        counted.append(rows * columns)
        return plain(self, rows, columns, **options)

    monkeypatch.setattr(Figure, "subplots", subplots)
    plot_rd([lacking], tmp_path / "rd.png", metric="psnr_y")
    assert counted == [2]  # pan and still


def test_a_plot_is_written_whole_or_not_at_all(done, tmp_path, monkeypatch):
    from matplotlib.figure import Figure

    (tmp_path / "rd.png").write_text("before")

    def half(self, target, **options):
        if isinstance(target, Path):
            target.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(Figure, "savefig", half)
    with pytest.raises(KeyboardInterrupt):
        plot_rd(done[0].results, tmp_path / "rd.png")
    assert (tmp_path / "rd.png").read_text() == "before"


def test_the_average_is_level_by_level_over_whole_sets(done):
    results = done[0].results[0]
    average = average_curve(results, "psnr_rgb")
    pairs = [results.curve(name, "psnr_rgb") for name in ("pan", "zoom")]
    lowest = zip(pairs[0][0], pairs[1][0], strict=True)
    assert average[0] == pytest.approx([(a + b) / 2 for a, b in lowest])
    lacking = results.model_copy(update={"points": results.points[1:]})
    assert len(average_curve(lacking, "psnr_rgb")) == 3


def test_the_command_end_to_end(clips, tmp_path, capsys):
    from lgmc.main import main

    common = ["--sequences", str(clips / "pan.y4m"), "--out", str(tmp_path), "--frames", "2"]
    words = ["eval", "--model", "none", "--anchors", "x264-medium", "--qps", "24,30,36,42"]
    assert main([*words, *common]) == 0
    printed = capsys.readouterr()
    assert "x264-medium" in printed.out and "points.csv" in printed.out
    assert main([*words, *common, "--json"]) == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["results"][0]["points"]) == 4
    assert {Path(name).name for name in content["files"]} >= {"x264-medium.json", "points.csv"}
    result = str(tmp_path / "x264-medium.json")
    assert main(["bdrate", result, result]) == 0
    printed = capsys.readouterr().out
    assert "+0.00 %" in printed and "pchip" in printed and "100%" in printed
    assert main(["bdrate", result, result, "--metric", "ms_ssim", "--json"]) == 1
    comparison = json.loads(capsys.readouterr().out)[0]
    assert "does not apply" in comparison["sequences"]["pan"]["error"]
    (tmp_path / "bdrate.json").write_text("[]")  # as an evaluation of two codecs leaves one
    assert main(["bdrate", result, *sorted(map(str, tmp_path.glob("*.json")))]) == 0
    assert main(["bdrate", result, str(clips / "pan.y4m")]) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert main(["eval", "--model", "none", "--anchors", "none", *common]) == 1
    assert "leave no codec" in capsys.readouterr().err


def test_a_clip_that_cannot_be_read_is_reported_and_the_others_measured(tmp_path, capsys):
    from lgmc.main import main

    clips = tmp_path / "clips"
    clips.mkdir()
    write_synthetic("pan", clips / "whole.y4m", 64, 48, 3)
    (clips / "broken.y4m").write_text("no video")
    whole = (clips / "whole.y4m").read_bytes()
    (clips / "cut.y4m").write_bytes(whole[:-100])
    out = tmp_path / "out"
    words = ["eval", "--model", "none", "--anchors", "x264-medium", "--sequences", str(clips)]
    words += ["--qps", "30,40", "--out", str(out)]
    for _ in range(2):  # the second from the cache
        assert main(words) == 1
        said = capsys.readouterr().err
        assert "no point of x264-medium at 30 on broken (and 1 more): " in said
        assert "no point of x264-medium at 30 on cut (and 1 more): " in said
        results = load_results(out / "x264-medium.json")
        assert [point.level for point in results.points_of("whole")] == [40, 30]
        assert [(one.sequence, one.level) for one in results.failures] == [
            *(("broken", 30), ("broken", 40), ("cut", 30), ("cut", 40))
        ]
    (clips / "whole.y4m").unlink()
    assert main(words) == 1
    assert "broken.y4m is not YUV4MPEG2" in capsys.readouterr().err
