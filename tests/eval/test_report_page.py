"""The report in a headless Chromium, at the width of a desk and of a telephone.

Skipped where there is no Chromium; test_report.py then still holds the page to what it contains.
"""

import json

import numpy as np
import pytest

from eval.report.embed import make_album
from eval.report.folder import read_folder
from eval.report.page import save_page
from eval.report.pictures import FrameSet, Picture

WIDTHS = (1280, 390)
SIZE = (64, 96)  # height, width


def picture_sets() -> list[FrameSet]:
    """Of first_clip: a ramp, the model 3 values off, an anchor exact; none of second_clip."""
    height, width = SIZE
    ramp = np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None], (height, width, 3))
    figures = {"type": "P", "bytes": 123, "psnr_rgb": 38.6, "psnr_y": 39.0}
    ours = Picture("model-a", 42, ramp + np.uint8(3), 0.9, 36.0, figures, "a doubt of a test")
    theirs = Picture("x264-medium", 27, ramp, 0.7, 36.5, figures)
    return [FrameSet("first_clip", 8, "model-a", [Picture(None, None, ramp), ours, theirs])]


@pytest.fixture
def report(folder, tmp_path):
    path = tmp_path / "report.html"
    save_page(read_folder(folder), path, album=make_album(picture_sets())[0])
    return path


@pytest.fixture(params=WIDTHS)
def tab(request, browser, report):
    """The report, open; afterwards nothing has complained and nothing else was fetched."""
    browser.open(report, request.param)
    browser.until("document.getElementById('viewer-line').style.left !== ''")
    yield browser
    assert browser.complaints == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


def text(tab, element: str) -> str:
    return tab.js(f"document.getElementById('{element}').innerText")


def column(tab, index: int) -> list[str]:
    cells = f"#deltas tbody tr > :nth-child({index + 1})"
    return tab.js(f"[...document.querySelectorAll({json.dumps(cells)})].map(e => e.innerText)")


def test_the_chart_draws_and_tells_its_points(tab):
    assert tab.js("document.querySelectorAll('#curves path.curve').length") == 3
    assert tab.js("document.querySelectorAll('#curves .marker').length") == 10
    bounds = tab.js("document.querySelector('#curves svg').getBBox().width")
    area = tab.area("#curves svg")
    assert 0 < bounds <= area["width"] + 1
    assert tab.js("document.documentElement.scrollWidth <= window.innerWidth")
    shape = tab.area("#curves .marker")
    tab.mouse("mouseMoved", shape["x"] + shape["width"] / 2, shape["y"] + shape["height"] / 2)
    assert text(tab, "curves-said").startswith("model-a quality 0: ")
    tab.js("document.querySelector('#curves svg').focus()")
    tab.key("ArrowRight")
    assert text(tab, "curves-said").startswith("model-a quality 21: ")
    assert "33.000 dB" in text(tab, "curves-said")


def test_a_sequence_a_metric_and_a_codec_switch(tab):
    def drawn(chart):
        return tab.js(f"document.querySelector('#{chart} path.curve').getAttribute('d')")

    before = drawn("curves"), drawn("frames-quality")
    tab.choose("sequence", "1")
    assert drawn("curves") != before[0] and drawn("frames-quality") != before[1]
    assert tab.js("document.getElementById('viewer').hidden")
    assert text(tab, "viewer-none") == "There are no pictures of this sequence."
    tab.choose("sequence", "average")
    assert "Choose one sequence" in text(tab, "frames-points")
    tab.choose("sequence", "0")
    assert (drawn("curves"), drawn("frames-quality")) == before
    tab.choose("metric", "psnr_y")
    assert "PSNR Y" in text(tab, "curves") and drawn("curves") == before[0]  # 2 dB up, all of it
    tab.js("document.querySelector('#legend [data-codec=\"x264-medium\"]').click()")
    shown = "[...document.querySelectorAll('#curves path.curve')].map(e => e.dataset.codec)"
    assert tab.js(shown) == ["model-a", "x265-medium"]
    tab.js("document.getElementById('log-rate').click()")
    assert "(log)" not in text(tab, "curves") and drawn("curves") != before[0]


def test_the_table_sorts_and_says_why_a_figure_is_missing(tab, folder):
    comparison = read_folder(folder).comparisons[0]
    wanted = [f"{delta.rate_percent:+.2f}" for delta in comparison.deltas.values()]
    assert column(tab, 0) == ["first_clip", "second_clip"]
    assert column(tab, 1) == wanted
    assert column(tab, 2) == ["none *", "none *"]
    for title, falling in ((1, False), (1, True), (2, False), (2, True)):
        tab.js(f"document.querySelector('#deltas th:nth-child({title}) button').focus()")
        tab.key("Enter")
        state = tab.js(f"document.querySelector('#deltas th:nth-child({title})').ariaSort")
        assert state == ("descending" if falling else "ascending")
        cells = column(tab, title - 1)
        key = float if title == 2 else str
        assert cells == sorted(cells, key=key, reverse=falling)
    assert len(set(column(tab, 1))) == 2
    tab.js("document.querySelector('#deltas tbody a').click()")
    assert "2 point(s)" in text(tab, "deltas-doubts")
    assert "the intra periods differ" in text(tab, "deltas-remarks")
    tab.choose("deltas-field", "overlap")
    assert all(0 < float(cell) <= 100 for cell in column(tab, 1))
    tab.choose("metric", "psnr_y")
    assert len(column(tab, 0)) == 2


def test_frames_are_told_at_matched_rate(tab):
    assert "x264-medium qp 27" in text(tab, "frames-points")
    # of first_clip: 1000 bits of its I frame, 40 of each of 11 P frames
    assert text(tab, "frames-points").count("; of its bits intra 69.4 %, motion hyper 30.6 %") == 1
    assert tab.js("document.querySelectorAll('#frames-rate path.curve').length") == 3
    tab.choose("frames-point", "0")
    assert "x264-medium qp 37" in text(tab, "frames-points")
    tab.js("document.querySelector('#frames-rate svg').focus()")
    tab.key("ArrowRight")
    said = "frame 0: model-a I 29.45 dB, 166 bytes (bits: intra 1000); "
    assert text(tab, "frames-said").startswith(said)
    area = tab.area("#frames-quality svg")
    tab.mouse("mouseMoved", area["x"] + area["width"] - 13, area["y"] + 50)
    said = text(tab, "frames-said")
    assert said.startswith("frame 11: model-a P 30.55 dB")
    assert "(bits: motion hyper 40)" in said


def pixel(tab, side: str, x: int, y: int) -> list[int]:
    canvas = f"document.getElementById('viewer-{side}-canvas').getContext('2d')"
    return tab.js(f"[...{canvas}.getImageData({x}, {y}, 1, 1).data]")


def test_the_slider_moves_by_key_and_by_pointer(tab):
    def border():
        return tab.js("parseFloat(document.getElementById('viewer-line').style.left)")

    assert border() == 50
    tab.js("document.getElementById('viewer-slider').focus()")
    tab.key("ArrowLeft")
    assert border() == 49.5
    tab.key("End")
    assert border() == 100
    area = tab.area("#viewer-stage")
    y = area["y"] + area["height"] / 2
    tab.mouse("mousePressed", area["x"] + area["width"] * 0.25, y, pressed=True)
    assert border() == pytest.approx(25, abs=0.6)
    tab.mouse("mouseMoved", area["x"] + area["width"] * 0.75, y, pressed=True)
    assert border() == pytest.approx(75, abs=0.6)
    tab.mouse("mouseReleased", area["x"] + area["width"] * 0.75, y)
    clip = tab.js("document.getElementById('viewer-right-canvas').style.clipPath")
    assert float(clip.split()[-1].rstrip("%)")) == pytest.approx(75, abs=0.6)


def test_pictures_are_exact_and_errors_have_their_scale(tab):
    assert pixel(tab, "left", 40, 5) == [40, 40, 40, 255]
    assert pixel(tab, "right", 40, 5) == [43, 43, 43, 255]
    tab.choose("viewer-show", "8")
    tab.until("document.getElementById('viewer-scale').innerText.includes('times 8')")
    assert pixel(tab, "left", 40, 5) == [0, 0, 0, 255]
    assert pixel(tab, "right", 40, 5) == [24, 24, 24, 255]
    assert "32 of 255 or more" in text(tab, "viewer-scale")
    tab.choose("viewer-right", "x264-medium")
    label = "document.getElementById('viewer-right-canvas').ariaLabel"
    tab.until(f"{label} === 'error of x264-medium, frame 8 of first_clip'")
    assert pixel(tab, "right", 40, 5) == [0, 0, 0, 255]
    wanted = "Right: x264-medium at 27, 0.7000 bpp (rate -22 %), 36.50 dB PSNR RGB."
    tab.until(f"document.getElementById('viewer-scale').innerText.endsWith('{wanted}')")
    rows = text(tab, "viewer-table")
    assert "0.7000" in rows and "-22 %" in rows
    assert text(tab, "viewer-remarks") == "model-a: a doubt of a test"


def test_a_page_of_anchors_alone_without_pictures_works_in_the_dark(browser, folder, tmp_path):
    (folder / "model-a.json").unlink()
    save_page(read_folder(folder), tmp_path / "r.html")
    browser.open(tmp_path / "r.html", 390, dark=True)
    browser.until("document.querySelectorAll('#curves path.curve').length === 2")
    ground = browser.js("getComputedStyle(document.body).backgroundColor")
    assert ground == "rgb(20, 23, 27)"
    assert browser.js("document.getElementById('viewer').hidden")
    assert browser.js("document.querySelectorAll('#deltas tbody tr').length") == 2
    assert browser.complaints == []
