"""CompressAI's and DCVC's result files: round trips, what stays unknown, and refusals.

The shapes are those of CompressAI 1.2.8 (compressai.utils.video) and of DCVC's test_video.py; the
figures of VTM are CompressAI's results/video/UVG-1080p/VTM-v15.0-lowdelay.json, four of its points.
"""

import json
import math
from fractions import Fraction
from importlib import import_module

import pytest

from eval.compare import compare
from eval.exchange import export_results, import_results
from eval.exchange.foreign import linear_ms_ssim, number
from eval.metrics import ms_ssim_db
from eval.plot import plot_rd
from eval.results import ResultsError, load_results, save_csv, save_results

VTM = {
    "name": "VTM-v15.0-lowdelay",
    "description": "VTM reference software, version 15.0",
    "results": {
        "qp": [22, 27, 32, 37],
        "ms-ssim-rgb": [0.9758027, 0.9670762, 0.9535022, 0.9340459],
        "bitrate": [17790.914057142854, 6960.893714285715, 3032.3604571428573, 1379.0738285714287],
        "psnr-rgb": [38.93261292790453, 37.01041424934117, 35.05793025472098, 33.19583619300572],
        "psnr-yuv": [43.15320197336494, 41.10217239551365, 39.07128865186421, 37.12765563477836],
    },
}


def _leaf(bpp, psnr, *, frames=(1, 3), **more):
    leaf = {"frame_pixel_num": 1920 * 1080, "i_frame_num": frames[0], "p_frame_num": frames[1]}
    return {**leaf, "ave_all_frame_bpp": bpp, "ave_all_frame_psnr": psnr, **more}


BEAUTY = "Beauty_1920x1080_120fps_420_8bit_YUV"
RGB = {
    "UVG": {
        f"{BEAUTY}.yuv": {
            f"{index:03d}": _leaf(bpp, psnr, ave_all_frame_msssim=ssim)
            for index, (bpp, psnr, ssim) in enumerate(
                [(0.01, 32.0, 0.93), (0.02, 33.5, 0.95), (0.04, 35.0, 0.965), (0.08, 36.2, 0.975)]
            )
        }
    }
}


@pytest.fixture
def place(tmp_path):
    def write(content, name="file.json"):
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def _edited(content, change):
    copy = json.loads(json.dumps(content))
    change(copy)
    return copy


def test_compressai_mean_over_a_set(place):
    found = import_results([place(VTM)], sequences=["UVG"])
    assert (found.codec, found.parameter) == ("VTM-v15.0-lowdelay", "qp")
    (info,) = found.sequences
    assert (info.name, info.width, info.height, info.fps) == ("UVG", 1920, 1080, "120")
    assert info.digest is info.frames is info.chroma is info.matrix is found.conditions is None
    point = next(one for one in found.points if one.level == 32)
    assert point.kbps == VTM["results"]["bitrate"][2]
    assert point.bpp == pytest.approx(point.kbps * 1000 / (1920 * 1080 * 120), rel=1e-12)
    assert point.metrics == {
        "psnr_rgb": 35.05793025472098,
        "psnr_yuv411": 39.07128865186421,
        "ms_ssim": 0.9535022,
    }
    assert point.bytes is point.arguments is point.per_frame is point.encode_seconds is None
    assert found.imported.description == VTM["description"]
    assert len(found.imported.files["file.json"]) == 64
    assert any("mean MSE" in note for note in found.imported.notes)


def test_an_integer_beyond_any_float_is_one_line():
    for value in (10**400, -(10**400), "1", None, True, math.inf):
        with pytest.raises(ResultsError, match="rate is .*, not a finite number") as caught:
            number(value, "rate")
        assert len(str(caught.value)) < 90
    assert number(3, "rate") == 3.0


def test_compressai_older_file_of_bits_per_pixel(place):
    older = {"qp": [37, 32], "bpp": [0.01, 0.02], "rgb_psnr": [31.0, 33.0], "y_psnr": [35.0, 37.0]}
    found = import_results([place(older)], sequences=["a set"], codec="x265")
    assert found.codec == "x265"
    assert found.curve("a set", "psnr_rgb") == [(0.01, 31.0), (0.02, 33.0)]
    assert found.points[0].kbps is None and found.sequences[0].width is None


def test_compressai_files_of_one_point_each_are_put_together(place):
    def one(bitrate, psnr):
        results = {"bitrate": bitrate, "psnr-rgb": psnr, "mse-rgb": 3.0}
        return {"source": BEAUTY, "name": "ssf2020", "description": "", "results": results}

    paths = [place(one(900.0, 34.0), "a.json"), place(one(300.0, 30.0), "b.json")]
    found = import_results(paths)
    assert found.parameter == "index"
    assert [(p.level, p.kbps) for p in found.points_of(BEAUTY)] == [(0, 300.0), (1, 900.0)]
    assert any("left out: mse-rgb" in note for note in found.imported.notes)
    assert not any("mean MSE" in note for note in found.imported.notes)


def test_dcvc_of_pictures(place):
    found = import_results([place(RGB)], codec="DCVC-X")
    (info,) = found.sequences
    assert (info.name, info.frames, info.width, info.fps) == (BEAUTY, 4, 1920, "120")
    point = found.points_of(BEAUTY)[1]
    assert (point.bpp, point.level, found.parameter) == (0.02, 1, "index")
    assert point.metrics == {"psnr_rgb": 33.5, "ms_ssim": 0.95}
    assert point.bytes is None  # a rounded rate times pixels is no size


def test_dcvc_of_video_keeps_the_planes_and_no_ms_ssim(place):
    planes = {"ave_all_frame_psnr_y": 39.919552, "ave_all_frame_psnr_u": 39.437203}
    planes |= {"ave_all_frame_psnr_v": 41.739133, "ave_all_frame_msssim": 0.982}
    leaf = _leaf(0.057281, 40.086706, frames=(600, 0), qp=22, **planes)  # VTM-17 on Beauty, theirs
    found = import_results([place({"UVG": {f"{BEAUTY}.yuv": {"022": leaf}}})], codec="VTM")
    (point,) = found.points
    assert (found.parameter, point.level, point.frames) == ("qp", 22, 600)
    assert point.metrics["psnr_yuv611"] == 40.086706 and point.metrics["psnr_y"] == 39.919552
    assert not {"ms_ssim", "psnr_rgb"} & set(point.metrics)
    assert any("MS-SSIM, which is of Y, U and V" in note for note in found.imported.notes)
    leaf["ave_all_frame_psnr"] = (4 * 39.919552 + 39.437203 + 41.739133) / 6
    found = import_results([place({"UVG": {BEAUTY: {"022": leaf}}})], codec="VTM")
    assert "psnr_yuv411" in found.points[0].metrics
    leaf["ave_all_frame_psnr"] = 38.0  # of RGB, say
    found = import_results([place({"UVG": {BEAUTY: {"022": leaf}}})], codec="VTM")
    assert set(found.points[0].metrics) == {"psnr_y", "psnr_u", "psnr_v"}
    assert any("no known weighting" in note for note in found.imported.notes)


def test_dcvc_frames_and_what_was_not_computed(place):
    lists = {"frame_psnr": [35.0, 33.0, 33.0, 33.0], "frame_type": [0, 1, 1, 1]}
    leaf = _leaf(0.02, 33.5, ave_all_frame_msssim=0.0, frame_bpp=[0.05, 0.01, 0.01, 0.01], **lists)
    found = import_results([place({"X": {"clip": {"000": leaf}}})], codec="C", size=(1920, 1080))
    (point,) = found.points
    assert point.per_frame.types == ["I", "P", "P", "P"] and point.per_frame.bytes is None
    assert point.by_type()["P"]["psnr_rgb"] == 33.0
    assert "ms_ssim" not in point.metrics and point.kbps is None


def test_dcvc_frames_of_another_size_than_the_test_set_has(place):
    """Early tests cut 1080 lines to 1024."""
    content = _edited(
        RGB, lambda c: c["UVG"][f"{BEAUTY}.yuv"]["000"].update(frame_pixel_num=1920 * 1024)
    )
    with pytest.raises(ResultsError, match="not of the same frames"):
        import_results([place(content)], codec="C")
    for leaf in content["UVG"][f"{BEAUTY}.yuv"].values():
        leaf["frame_pixel_num"] = 1920 * 1024
    found = import_results([place(content)], codec="C")
    assert found.sequences[0].width is found.sequences[0].fps is None
    assert any("is not what the test set has" in note for note in found.imported.notes)


@pytest.mark.parametrize("index", [0, 1])
def test_round_trip_by_compressai(index, results, place):
    ours = results[index]
    content, notes = export_results(ours, "compressai", sequence="first_clip")
    assert content["source"] == "first_clip" and content["name"] == ours.codec
    path = place(json.dumps(content, allow_nan=False))
    info = ours.sequence("first_clip")
    back = import_results([path], size=(info.width, info.height), fps=Fraction(info.fps))
    assert back.codec == ours.codec
    before, after = ours.points_of("first_clip"), back.points_of("first_clip")
    assert [p.level for p in after] == [p.level for p in before]
    for one, other in zip(before, after, strict=True):
        assert (other.bpp, other.kbps) == (one.bpp, one.kbps)
        known = {name: value for name, value in one.metrics.items() if value is not None}
        assert other.metrics == known
    assert any("metrics left out: ms_ssim" in note for note in notes)


@pytest.mark.parametrize("kind", ["utils", "utils.video"])
def test_compressai_reads_what_is_written_for_it(kind, results, place):
    """Its two plotting tools, of pictures by bits per pixel and of video by kbit/s."""
    module = import_module(f"compressai.{kind}.plot.__main__")
    content, _ = export_results(results[1], "compressai")
    read = module.parse_json_file(place(content), "psnr-rgb")
    rate = "bpp" if kind == "utils" else "bitrate"
    assert (read["name"], read["xs"]) == (results[1].codec, content["results"][rate])
    assert read["ys"] == content["results"]["psnr-rgb"]


def test_compressai_gets_means_of_the_levels_that_all_sequences_have(results):
    ours = results[1]
    gone = next(p for p in ours.points if p.sequence == "first_clip" and p.level == 22)
    ours = ours.model_copy(update={"points": [p for p in ours.points if p is not gone]})
    content, notes = export_results(ours, "compressai")
    figures = content["results"]
    assert figures["qp"] == [37, 32, 27] and "source" not in content
    both = [p for p in ours.points if p.level == 32]
    assert len(both) == 2
    assert figures["bpp"][1] == pytest.approx(sum(p.bpp for p in both) / 2)
    assert figures["psnr-rgb"][1] == pytest.approx(sum(p.metrics["psnr_rgb"] for p in both) / 2)
    assert any("qp 22" in note for note in notes)


@pytest.mark.parametrize("index", [0, 1])
def test_round_trip_by_dcvc(index, results, place):
    ours = results[index]
    content, _ = export_results(ours, "dcvc")
    assert list(content) == ["other"]
    back = import_results([place(json.dumps(content, allow_nan=False))], codec=ours.codec)
    assert back.parameter == ("index" if index == 0 else "qp")
    for info in ours.sequences:
        assert back.sequence(info.name).frames == info.frames
        for one, other in zip(ours.points_of(info.name), back.points_of(info.name), strict=True):
            assert other.bpp == one.bpp
            assert other.metrics == {"psnr_rgb": one.metrics["psnr_rgb"]}
            assert other.per_frame.types == one.per_frame.types
            rows = one.per_frame.metrics["psnr_rgb"]
            assert other.per_frame.metrics == {"psnr_rgb": rows}
            leaf = content["other"][info.name][f"{ours.points_of(info.name).index(one):03d}"]
            assert leaf["ave_i_frame_psnr"] == rows[0]
            assert leaf["ave_p_frame_psnr"] == pytest.approx(sum(rows[1:]) / len(rows[1:]))
            parts = leaf["ave_i_frame_bpp"] + leaf["ave_p_frame_bpp"] * (info.frames - 1)
            pixels = info.width * info.height
            assert parts * pixels / 8 == pytest.approx(sum(one.per_frame.bytes))


def test_dcvc_gets_the_test_set_and_either_psnr(results):
    one = results[1]
    info = one.sequence("first_clip").model_copy(update={"name": BEAUTY})
    points = [
        p.model_copy(
            update={
                "sequence": BEAUTY,
                "metrics": {"psnr_y": 36.0, "psnr_u": 40.0, "psnr_v": 44.0, "psnr_yuv611": 37.5},
            }
        )
        for p in one.points_of("first_clip")
    ]
    one = one.model_copy(update={"sequences": [info], "points": points})
    content, _ = export_results(one, "dcvc", psnr="yuv")
    leaf = content["UVG"][BEAUTY]["000"]
    assert (leaf["ave_all_frame_psnr"], leaf["ave_all_frame_psnr_v"]) == (37.5, 44.0)
    content, _ = export_results(one, "dcvc", psnr="yuv", dataset="mine")
    assert list(content) == ["mine"]
    with pytest.raises(ResultsError, match="no psnr_rgb: choose the other with --psnr"):
        export_results(one, "dcvc")
    with pytest.raises(ResultsError, match="no sequence 'x' in it: choose from Beauty"):
        export_results(one, "dcvc", sequence="x")


@pytest.mark.parametrize("to", ["dcvc", "compressai"])
def test_what_is_not_known_is_left_out_of_an_export_too(to, place):
    leaf = {"ave_all_frame_bpp": 0.02, "ave_all_frame_psnr": 33.5}
    imported = import_results([place({"X": {"clip": {"000": leaf}}})], codec="C")
    assert imported.sequences[0].frames is imported.sequences[0].width is None
    content, _ = export_results(imported, to, dataset="X")
    if to == "dcvc":
        assert content == {"X": {"clip": {"000": leaf}}}
    else:
        assert content["results"] == {"q": [0], "bpp": [0.02], "psnr-rgb": [33.5]}


def test_imported_results_are_saved_loaded_compared_drawn_and_tabled(results, place, tmp_path):
    content, _ = export_results(results[1], "dcvc")
    imported = import_results([place(content)], codec="theirs")
    save_results(imported, tmp_path / "theirs.json")
    assert load_results(tmp_path / "theirs.json") == imported
    itself, ours = compare(results[1], imported), compare(imported, results[0])
    assert itself.mean_rate_percent == pytest.approx(0.0, abs=1e-9)
    assert ours.mean_rate_percent == pytest.approx(
        compare(results[1], results[0]).mean_rate_percent
    )
    assert any("is not known for 2 of 2 sequences" in note for note in ours.warnings)
    assert any("intra period is not known of theirs" in note for note in ours.warnings)
    assert "imported without psnr_y" in compare(results[1], imported, "psnr_y").deltas["first_clip"]
    for path in plot_rd([results[0], imported], tmp_path / "rd"):
        assert path.stat().st_size > 0
    plot_rd([imported], tmp_path / "alone")
    save_csv([*results, imported], tmp_path / "points.csv")
    assert "theirs" in (tmp_path / "points.csv").read_text()


def test_imported_results_are_in_the_report(results, folder, place):
    from eval.report.folder import read_folder
    from eval.report.page import save_page

    content, _ = export_results(results[1], "dcvc")
    imported = import_results([place(content)], codec="theirs")
    save_results(imported, folder / "theirs.json")
    measured = read_folder(folder)
    assert "theirs" in [one.codec for one in measured.results]
    assert any(one.anchor == "theirs" for one in measured.comparisons)
    save_page(measured, folder / "report.html")
    text = (folder / "report.html").read_text()
    assert "imported from a file of dcvc" in text and "16, 32, unknown" in text


def test_frames_that_differ_are_refused(results, place):
    content, _ = export_results(results[1], "dcvc")
    for leaf in content["other"]["first_clip"].values():
        for key in [key for key in leaf if key.startswith("frame_") and key != "frame_pixel_num"]:
            del leaf[key]
        leaf["p_frame_num"] += 1
    imported = import_results([place(content)], codec="theirs")
    with pytest.raises(ResultsError, match="first_clip is not the same video"):
        compare(results[1], imported)


def test_ms_ssim_conventions():
    linear = [0.93, 0.95, 0.97]
    in_db = [ms_ssim_db(value) for value in linear]
    assert linear_ms_ssim(linear, "x") == (linear, False)
    values, stated_db = linear_ms_ssim(in_db, "x")
    assert stated_db and values == pytest.approx(linear, abs=1e-12)
    assert linear_ms_ssim([0.5, 1.5], "x", "db")[1]
    assert linear_ms_ssim([0.1, 0.2], "x", "linear") == ([0.1, 0.2], False)


@pytest.mark.parametrize(
    ("values", "convention", "words"),
    [
        ([0.9, 11.0], "auto", "may be 0..1 or dB"),
        ([0.1, 0.9], "auto", "may be 0..1 or dB"),
        ([0.9, 1.0, 1.2], "auto", "may be 0..1 or dB"),
        ([93.0, 98.0], "auto", "may be 0..1 or dB"),
        ([-3.0, 11.0], "auto", "may be 0..1 or dB"),
        ([11.0, 12.0], "linear", "is not 0..1: say --ms-ssim db"),
        ([-1.0, 12.0], "db", "no MS-SSIM in dB"),
        ([93.0, 98.0], "db", "no MS-SSIM in dB"),
    ],
)
def test_ms_ssim_that_is_ambiguous_or_wrong_is_refused(values, convention, words):
    with pytest.raises(ResultsError, match=words):
        linear_ms_ssim(values, "ms-ssim-rgb", convention)


def test_ms_ssim_in_db_is_brought_to_linear_and_said(place):
    in_db = _edited(
        VTM,
        lambda c: c["results"].update(
            {"ms-ssim-rgb": [ms_ssim_db(value) for value in c["results"]["ms-ssim-rgb"]]}
        ),
    )
    found = import_results([place(in_db)], sequences=["UVG"])
    plain = import_results([place(VTM, "plain.json")], sequences=["UVG"])
    for one, other in zip(found.points, plain.points, strict=True):
        assert one.metrics["ms_ssim"] == pytest.approx(other.metrics["ms_ssim"], abs=1e-12)
    assert any("stated in dB" in note for note in found.imported.notes)
    assert not any("stated in dB" in note for note in plain.imported.notes)


def _vtm(**changes):
    return _edited(VTM, lambda c: c["results"].update(changes))


def _rgb(**changes):
    return _edited(RGB, lambda c: c["UVG"][f"{BEAUTY}.yuv"]["000"].update(changes))


UVG, NAMED = {"sequences": ["UVG"]}, {"codec": "C"}
WRONG = {
    "not JSON": ("{", {}, "is not JSON"),
    "bytes": ("\x00", {}, "is not JSON"),
    "a list": ([], {}, "is neither a result file of CompressAI .* nor of DCVC"),
    "an empty object": ({}, {}, "is neither"),
    "ours": ({"format": "lgmc-rd/1"}, {}, "is one of our own"),
    "no quality": ({"results": {"bpp": [0.1], "loss": [1.0]}}, {}, "is neither"),
    "a leaf without a rate": ({"UVG": {"a": {"000": {"ave_all_frame_psnr": 3}}}}, {}, "is neither"),
    "no name": (VTM, {}, "give the sequence's or the test set's name with --sequence"),
    "two names": (VTM, {"sequences": ["a", "b"]}, "give --sequence once"),
    "a data set": (VTM, {**UVG, "dataset": "UVG"}, "names no data sets"),
    "no size": (VTM, {"sequences": ["clip"]}, "give --size and --fps, or the name"),
    "no rate": (VTM, {"sequences": ["clip"], "size": (64, 48)}, "give --size and --fps"),
    "a mixed set": (VTM, {"sequences": ["MCL-JCV"]}, "give --size and --fps"),
    "lists": (_vtm(**{"psnr-rgb": [30.0]}), UVG, "psnr-rgb has 1 entries and bitrate 4"),
    "no points": ({"results": {"bpp": [], "psnr-rgb": []}}, UVG, "has no points"),
    "a word": (_vtm(**{"psnr-rgb": ["a", 1, 2, 3]}), UVG, "psnr-rgb is 'a', not a finite number"),
    "true": (_vtm(**{"psnr-rgb": [True, 1, 2, 3]}), UVG, "psnr-rgb is True"),
    "NaN": (_vtm(**{"psnr-rgb": [float("nan"), 1, 2, 3]}), UVG, "psnr-rgb is nan"),
    "infinity": (_vtm(**{"psnr-rgb": [float("inf"), 1, 2, 3]}), UVG, "psnr-rgb is inf"),
    "no bits": (_vtm(bitrate=[0, 1, 2, 3]), UVG, "bitrate is 0, not above 0"),
    "two rates": (_vtm(bpp=[1, 2, 3, 4]), UVG, "1 bit/pixel are .* kbit/s at its size and rate"),
    "a qp twice": (_vtm(qp=[22, 22, 32, 37]), UVG, "qp 22 stands there twice"),
    "no codec": (RGB, {}, "does not name its codec: give a name with --codec"),
    "unknown set": (RGB, {**NAMED, "dataset": "X"}, "has no data set 'X': choose from UVG"),
    "unknown sequence": (RGB, {**NAMED, "sequences": ["X"]}, "has no sequence 'X': it has Beauty"),
    "a wrong size": (RGB, {**NAMED, "size": (64, 48)}, "2073600 pixels a frame, not 64x48"),
    "no frames": (_rgb(i_frame_num=0, p_frame_num=0), NAMED, "i_frame_num 0 and p_frame_num 0"),
    "half a frame": (_rgb(i_frame_num=0.5), NAMED, "i_frame_num 0.5"),
    "other lengths": (_rgb(i_frame_num=9), NAMED, "not of the same frames"),
    "a short list": (_rgb(frame_psnr=[1.0]), NAMED, "list per frame does not have 4 entries"),
    "a rate of 0": (_rgb(ave_all_frame_bpp=0), NAMED, "ave_all_frame_bpp is 0, not above 0"),
    "a PSNR of NaN": (_rgb(ave_all_frame_psnr=float("nan")), NAMED, "ave_all_frame_psnr is nan"),
    "no PSNR": (_rgb(ave_all_frame_psnr=None), NAMED, "has no ave_all_frame_psnr"),
    "MS-SSIM": (_rgb(ave_all_frame_msssim=0.2), NAMED, "--ms-ssim linear or --ms-ssim db"),
    "one name in two sets": ({**RGB, "X": RGB["UVG"]}, NAMED, "choose one with --dataset"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_is_one_clear_sentence(name, place):
    content, options, words = WRONG[name]
    with pytest.raises(ResultsError, match=words) as caught:
        import_results([place(content)], **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_files_that_do_not_belong_together_are_refused(place, tmp_path):
    with pytest.raises(ResultsError, match="different formats .compressai and dcvc."):
        named = {**VTM, "source": "UVG"}
        import_results([place(named, "a.json"), place(RGB, "b.json")], codec="C")
    other = {**VTM, "name": "other"}
    with pytest.raises(ResultsError, match="different codecs .VTM-v15.0-lowdelay and other."):
        import_results([place(VTM, "a.json"), place(other, "b.json")], **UVG)
    with pytest.raises(ResultsError, match="cannot be read"):
        import_results([tmp_path / "none.json"])
