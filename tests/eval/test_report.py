"""The report without a browser: what is read, matched, made into pictures and written."""

import csv
import json
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from codec.effort import Effort
from codec.errors import VideoError
from codec.video.synthetic import write_synthetic
from eval.anchors import ReferenceAnchor
from eval.bdrate import BdDelta
from eval.compare import Comparison, compare
from eval.pool import LocalPool
from eval.report import embed, pictures
from eval.report.content import page_content
from eval.report.embed import make_album, middle, webp
from eval.report.folder import read_folder
from eval.report.match import matched, middle_point, nearest, reference_of
from eval.report.page import TEMPLATES, page, save_page
from eval.report.papers import escape, latex, save_bd_csv
from eval.report.pictures import Codecs, FrameSet, Picture, find_clips, make_pictures
from eval.results import ResultsError, save_results
from eval.run import evaluate


def test_a_folder_is_read_models_first_and_compared_as_compare_does(folder, results):
    measured = read_folder(folder)
    assert measured.results == results
    assert (measured.notes, measured.problems) == ([], [])
    assert {(one.test, one.anchor) for one in measured.comparisons} == {
        ("model-a", "x264-medium"),
        ("model-a", "x265-medium"),
    }
    first = next(one for one in measured.comparisons if one.metric == "psnr_rgb")
    assert first == compare(results[1], results[0])
    assert first.mean_rate_percent > 0


def test_what_cannot_be_used_is_said_and_the_rest_is_read(folder, results):
    whole = (folder / "x264-medium.json").read_text()
    (folder / "half.json").write_text(whole[: len(whole) // 2])
    (folder / "other.json").write_text("{}")
    save_results(results[0], folder / "same.json")
    save_results(results[2].model_copy(update={"codec": "empty", "points": []}), folder / "e.json")
    moved = results[1].sequences[0].model_copy(update={"digest": "another"})
    others = {"codec": "other", "sequences": [moved, results[1].sequences[1]]}
    save_results(results[1].model_copy(update=others), folder / "z.json")
    measured = read_folder(folder)
    assert [one.codec for one in measured.results] == ["model-a", "other", "x264-medium"] + [
        "x265-medium"
    ]
    assert len(measured.problems) == 4
    half, empty, other = (
        next(one for one in measured.problems if start in one)
        for start in ("half.json", "e.json has no points", "other.json")
    )
    assert half.startswith("half.json is not JSON") and "measure empty again" in empty
    assert "format" in other
    assert "first_clip is not the same video in both files" in measured.problems[-1]
    assert measured.notes == ["same.json holds the same as model-a.json and is left out"]
    for sentence in measured.problems:
        assert sentence in page(measured).replace("&#x27;", "'")


def test_two_codecs_of_one_name_go_by_their_files(folder, results):
    changed = results[0].model_copy(update={"failures": []})
    save_results(changed, folder / "later.json")
    names = [one.codec for one in read_folder(folder).results]
    assert names == ["later", "model-a", "x264-medium", "x265-medium"]


def test_anchors_alone_are_held_against_each_other(folder):
    (folder / "model-a.json").unlink()
    pairs = {(one.test, one.anchor) for one in read_folder(folder).comparisons}
    assert pairs == {("x264-medium", "x265-medium"), ("x265-medium", "x264-medium")}


@pytest.mark.parametrize(("content", "says"), [(None, "holds no results"), ("{", "is not JSON")])
def test_a_folder_without_results_is_an_error(content, says, tmp_path):
    if content is not None:
        (tmp_path / "a.json").write_text(content)
    with pytest.raises(ResultsError, match=says):
        read_folder(tmp_path)
    with pytest.raises(ResultsError, match="is not a folder"):
        read_folder(tmp_path / "none")


def test_points_are_matched_by_the_ratio_of_their_rates(results):
    ours, theirs, few = results
    points = ours.points_of("first_clip")
    assert reference_of(results, "first_clip") is ours
    assert reference_of(results[1:], "first_clip") is theirs
    assert reference_of(results, "no_clip") is None
    assert middle_point(points).level == 42
    assert nearest(points, points[1].bpp * 1.4).level == 21
    assert nearest(points, points[1].bpp * 1.5).level == 42
    found = matched(results, "first_clip", ours, points[0])
    levels = {codec: point.level for codec, point in found.items()}
    assert levels == {"model-a": 0, "x264-medium": 37, "x265-medium": 32}


def test_the_data_of_the_page_are_those_of_the_results(folder, results):
    content = page_content(read_folder(folder))
    json.dumps(content, allow_nan=False)
    first = content["sequences"][0]
    point = first["points"]["x264-medium"][0]
    assert (point["level"], point["bytes"]) == (37, 1500)
    assert point["bpp"] == results[1].points_of("first_clip")[0].bpp
    assert point["values"]["psnr_rgb"] == 30.5 and point["values"]["ms_ssim"] is None
    assert len(point["frame_values"]["psnr_rgb"]) == len(point["frame_bytes"]) == 12
    assert point["frame_types"] == "I" + 11 * "P"
    assert [one["id"] for one in content["metrics"]] == ["psnr_y", "psnr_rgb"]
    assert first["matches"]["reference"] == "model-a"
    assert first["matches"]["rows"][2] == {"model-a": 2, "x264-medium": 2, "x265-medium": 1}
    refused = [one for one in content["comparisons"] if one["anchor"] == "x265-medium"]
    assert "2 point(s)" in refused[0]["sequences"]["first_clip"]["error"]
    assert any("intra periods differ" in text for text in refused[0]["warnings"])


def test_metrics_that_were_asked_for_are_on_the_page_in_their_units(folder, results):
    points = [
        point.model_copy(update={"metrics": {**point.metrics, "vmaf": 80.0, "xpsnr_y": 41.0}})
        for point in results[1].points
    ]
    save_results(results[1].model_copy(update={"points": points}), folder / "x264-medium.json")
    content = page_content(read_folder(folder))
    units = {one["id"]: one["unit"] for one in content["metrics"]}
    assert units == {"psnr_y": "dB", "psnr_rgb": "dB", "vmaf": "", "xpsnr_y": "dB"}
    first = content["sequences"][0]["points"]
    assert first["x264-medium"][0]["values"]["vmaf"] == 80.0
    assert first["model-a"][0]["values"]["vmaf"] is None
    assert content["average"]["model-a"]["vmaf"] == []


class Outside(HTMLParser):
    """Collects what a page would fetch, and its text outside scripts."""

    def __init__(self):
        super().__init__()
        self.addresses, self.words, self.tags, self.code = [], [], [], False

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.code = tag in ("script", "style")
        self.addresses += [value for name, value in attrs if name in ("src", "href")]

    def handle_endtag(self, tag):
        self.code = False

    def handle_data(self, data):
        if not self.code:
            self.words.append(data)


def test_the_page_is_one_file_that_asks_for_nothing(folder, tmp_path):
    measured = read_folder(folder)
    size = save_page(measured, tmp_path / "r.html")
    text = (tmp_path / "r.html").read_text()
    assert size == (tmp_path / "r.html").stat().st_size
    parser = Outside()
    parser.feed(text)
    assert parser.addresses == ["data:,"]
    assert "link" in parser.tags and "@@" not in text and "url(" not in text
    words = " ".join(parser.words)
    for wanted in ("<b>&", "python: 3.11", "gpu: none", "as a test wants", "there is no viewer"):
        assert wanted in words
    assert re.search(r"3 codecs, 2 sequences of 9 to 12 frames, 20 points", words)


def test_names_that_look_like_markup_stay_text(folder, results):
    name = "</script><script>alert(1)</script>"
    save_results(results[0].model_copy(update={"codec": name}), folder / "model-a.json")
    text = page(read_folder(folder))
    assert name not in text and "<script>alert" not in text


def test_machines_that_measured_some_points_are_on_the_page(folder, results):
    other = {"cpu": "another cpu", "cores": 8, "gpu": None}
    first, *rest = results[1].points
    marked = [first.model_copy(update={"machine": other}), *rest]
    save_results(results[1].model_copy(update={"points": marked}), folder / "x264-medium.json")
    text = page(read_folder(folder))
    assert text.count("<dt>some points on</dt><dd>cpu: another cpu; cores: 8; gpu: none</dd>") == 1


def test_the_average_is_of_codecs_that_have_every_sequence(folder, results):
    first = [point for point in results[1].points if point.sequence == "first_clip"]
    update = {"points": first, "sequences": results[1].sequences[:1]}
    save_results(results[1].model_copy(update=update), folder / "x264-medium.json")
    average = page_content(read_folder(folder))["average"]
    assert average["x264-medium"]["psnr_rgb"] == []
    assert [value for _, value in average["model-a"]["psnr_rgb"]] == [30, 33, 36, 39]


def luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb" as WCAG 2 defines it."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


@pytest.mark.parametrize("theme", [0, 1], ids=["light", "dark"])
def test_colours_stand_out_from_the_ground(theme):
    style = (TEMPLATES / "page.css").read_text().split(":root {")[theme + 1]
    colours = dict(re.findall(r"--(\w+): (#[0-9a-f]{6});", style))
    assert len(colours) == 14
    ground = luminance(colours["ground"])
    for name, colour in colours.items():
        high, low = sorted((luminance(colour), ground), reverse=True)
        least = {"text": 4.5, "quiet": 4.5, "warn": 4.5, "accent": 4.5}.get(name, 3)
        if name not in ("ground", "raised", "line"):
            assert (high + 0.05) / (low + 0.05) >= least, name


def test_latex_has_figures_marks_and_reasons(folder):
    comparisons = read_folder(folder).comparisons
    text = latex(comparisons)
    delta = comparisons[0].deltas["first_clip"]
    assert text.count(r"\begin{tabular}{lrr}") == text.count(r"\end{tabular}") == 4
    assert rf"first\_clip & ${delta.rate_percent:+.2f}$ & -- \\" in text
    assert "% x265-medium, first_clip: x265-medium has 2 point(s)" in text
    assert "% x265-medium: the intra periods differ: 16 and 32" in text
    assert escape(r"a_b%c\d") == r"a\_b\%c\textbackslash{}d"
    doubted = BdDelta(-1.5, None, -1.4, 0.5, (30.0, 33.0), ("a doubt",))
    one = latex([Comparison("x", "y", "psnr_rgb", {"s": doubted})])
    assert "s & $-1.50^{*}$" in one and "% x, s: a doubt" in one


def test_the_csv_has_a_row_for_every_figure_and_refusal(folder, tmp_path):
    comparisons = read_folder(folder).comparisons
    save_bd_csv(comparisons, tmp_path / "bd.csv")
    with open(tmp_path / "bd.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(one.deltas) for one in comparisons)
    delta = comparisons[0].deltas["first_clip"]
    assert float(rows[0]["bd_rate_percent"]) == delta.rate_percent
    refused = next(row for row in rows if row["anchor"] == "x265-medium")
    assert refused["bd_rate_percent"] == "" and "2 point(s)" in refused["remarks"]


def frame_set(name: str, size: tuple[int, int] = (64, 48)) -> FrameSet:
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return FrameSet(name, 3, "m", [Picture(None, None, noise), Picture("m", 1, 255 - noise, 0.1)])


def test_pictures_are_embedded_without_loss_and_cut_around_the_middle():
    one = frame_set("a", (70, 50))
    rgb = one.pictures[0].rgb
    assert (np.array(Image.open(BytesIO(webp(rgb)))) == rgb).all()
    assert (middle(rgb, (20, 10)) == rgb[20:30, 25:45]).all()
    album, problems = make_album([one])
    assert problems == [] and album.size == sum(len(data) for data in album.data[0])
    assert album.to_json()[0]["pictures"][1]["key"] in album.uris()


def test_pictures_are_cut_and_then_left_out_to_keep_to_the_budget(monkeypatch):
    monkeypatch.setattr(embed, "WINDOWS", ((64, 48), (32, 24), (16, 12)))
    sets = [frame_set("a"), frame_set("b")]
    whole = make_album(sets)[0].size
    cut, problems = make_album(sets, budget=whole // 2)
    assert (cut.window, problems) == ((32, 24), []) and cut.size <= whole // 2
    fewer, problems = make_album(sets, budget=whole // 20)
    assert [one.sequence for one in fewer.sets] == ["a"] and "no pictures of b" in problems[0]
    none, _ = make_album(sets, budget=10)
    assert none.sets == [] and none.size == 0


QPS = (24, 34)


@pytest.fixture(scope="module")
def coded(tmp_path_factory):
    """(folder of clips, the results of an anchor on them) by a real evaluation."""
    clips = tmp_path_factory.mktemp("clips")
    write_synthetic("pan", clips / "pan.y4m", 64, 48, 4, seed=1)
    write_synthetic("zoom", clips / "zoom.y4m", 64, 48, 3, seed=2)
    out = tmp_path_factory.mktemp("out")
    return clips, evaluate(
        clips, anchors=["x264-medium"], qps=QPS, out=out, pool=LocalPool(1)
    ).results


def test_a_frame_made_again_is_the_measured_one_and_is_kept(coded, tmp_path, monkeypatch):
    clips, results = coded
    found, problems = find_clips(results, clips)
    assert list(found) == ["pan", "zoom"] and problems == []
    made = []
    options = {"cache": tmp_path / "frames", "frame": 2, "report": made.append}
    sets, problems = make_pictures(results, found, Codecs(), **options)
    assert problems == [] and len(made) == 2
    for one in sets:
        original, decoded = one.pictures
        point = next(
            p for p in results[0].points if (p.sequence, p.level) == (one.sequence, decoded.level)
        )
        assert one.frame == 2 and decoded.level == QPS[0] and decoded.remark is None
        assert decoded.figures["psnr_rgb"] == pytest.approx(point.per_frame.metrics["psnr_rgb"][2])
        assert decoded.figures["type"] == "P"
        assert decoded.figures["bytes"] == point.per_frame.bytes[2]
        error = np.mean((original.rgb.astype(float) - decoded.rgb) ** 2)
        assert 10 * np.log10(255**2 / error) == pytest.approx(decoded.figures["psnr_rgb"])
    monkeypatch.setattr(pictures, "_decode", None)  # nothing is made a second time
    again, _ = make_pictures(results, found, Codecs(), **options)
    assert len(made) == 2
    assert (again[0].pictures[1].rgb == sets[0].pictures[1].rgb).all()
    assert again[0].pictures[1].figures == sets[0].pictures[1].figures


def test_a_damaged_picture_is_made_again_and_a_changed_codec_is_said(coded, tmp_path):
    clips, results = coded
    found, _ = find_clips(results, clips / "pan.y4m")
    make_pictures(results, found, Codecs(), cache=tmp_path)
    (kept,) = tmp_path.glob("*.png")
    kept.write_bytes(kept.read_bytes()[:50])
    point = next(p for p in results[0].points_of("pan") if p.level == QPS[0])
    shifted = [value + 0.5 for value in point.per_frame.metrics["psnr_rgb"]]
    metrics = {**point.per_frame.metrics, "psnr_rgb": shifted}
    frames = point.per_frame.model_copy(update={"metrics": metrics})
    old = results[0].model_copy(update={"points": [point.model_copy(update={"per_frame": frames})]})
    sets, problems = make_pictures([old], found, Codecs(), cache=tmp_path)
    assert problems == [] and "in the results" in sets[0].pictures[1].remark
    assert sets[0].frame == 3  # the last of a clip that is shorter than the default asks for


def test_clips_that_are_not_there_or_not_the_same_are_said(coded, tmp_path):
    clips, results = coded
    write_synthetic("pan", tmp_path / "pan.y4m", 64, 48, 4, seed=9)
    (tmp_path / "broken.mkv").write_bytes(b"no video")
    found, problems = find_clips(results, tmp_path)
    assert found == {}
    assert len(problems) == 3 and "broken.mkv" in problems[0]
    assert problems[1] == "no pictures of pan: no clip that was given has the measured frames"
    with pytest.raises(VideoError, match="does not exist"):
        find_clips(results, tmp_path / "none")


def test_a_model_is_made_with_the_effort_that_was_measured(coded):
    from codec.models import load

    _, results = coded
    shipped = {"model": "lite", "weights": load("lite").digest.hex()}
    for effort in ({}, {"effort": "7"}, {"effort": "7+3"}):
        codec = {**shipped, **effort}
        conditions = results[0].conditions.model_copy(update={"codec": codec})
        name = f"lite-effort{effort['effort']}" if effort else "lite"
        update = {"codec": name, "parameter": "quality", "conditions": conditions}
        made = Codecs().of(results[0].model_copy(update=update))
        assert (made.name, made.effort) == (name, Effort.of(effort.get("effort", 0)))


def test_reference_encoders_can_be_shown(coded):
    conditions = coded[1][0].conditions.model_copy(update={"codec": {"anchor": "hm-ld"}})
    hm = coded[1][0].model_copy(update={"codec": "hm-ld", "conditions": conditions})
    assert isinstance(Codecs().of(hm), ReferenceAnchor)


def test_frames_with_a_video_beside_them_are_found(tmp_path):
    (tmp_path / "clips").mkdir()
    write_synthetic("pan", f"{tmp_path}/clips/pan/", 64, 48, 2, chroma="rgb")
    write_synthetic("zoom", tmp_path / "clips" / "pan" / "look.y4m", 64, 48, 2)
    options = {"anchors": ["x264-medium"], "qps": QPS[:1], "pool": LocalPool(1)}
    results = evaluate(tmp_path / "clips", out=tmp_path / "out", **options).results
    found, problems = find_clips(results, tmp_path / "clips")
    assert list(found) == ["pan"] and problems == []


def test_a_codec_that_is_not_here_is_said_and_the_others_shown(coded, tmp_path):
    clips, results = coded
    found, _ = find_clips(results, clips / "pan.y4m")
    conditions = results[0].conditions.model_copy(update={"codec": {"model": "nn", "weights": "0"}})
    gone = results[0].model_copy(
        update={"codec": "nn", "parameter": "quality", "conditions": conditions}
    )
    sets, problems = make_pictures([gone, *results], found, Codecs(), cache=tmp_path, quality=34)
    assert [one.codec for one in sets[0].pictures] == [None, "x264-medium"]
    assert sets[0].reference == "nn" and len(problems) == 1
    assert problems[0].startswith("no picture of nn on pan: ")
    sets, problems = make_pictures(results, found, Codecs(), cache=tmp_path, quality=7)
    assert sets == []
    assert problems == ["no pictures of pan: x264-medium was measured at 24, 34, not at 7"]
