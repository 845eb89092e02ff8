"""``lgmc report`` as it is typed, on what ``lgmc eval`` wrote."""

import json

import pytest

from eval.results import load_results
from lgmc.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory, clip, model):
    """Results of the debug model and of x264 on three frames."""
    out = tmp_path_factory.mktemp("measured")
    words = [
        "--model",
        model,
        "--qualities",
        "0,30,63",
        "--anchors",
        "x264-medium",
        "--frames",
        "3",
    ]
    assert main(["eval", *words, "--sequences", clip, "--out", str(out)]) == 0
    return out


def page_data(path, part="data"):
    text = path.read_text()
    start = text.index(">", text.index(f'id="{part}"')) + 1
    return json.loads(text[start : text.index("</script>", start)])


def test_a_report_without_clips(folder, tmp_path, capsys):
    assert main(["report", str(folder), "-o", str(tmp_path / "r.html")]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"written: {tmp_path / 'r.html'}; the page has 0.")
    data = page_data(tmp_path / "r.html")
    assert [one["name"] for one in data["codecs"]] == ["debug", "x264-medium"]
    assert data["viewer"] is None and page_data(tmp_path / "r.html", "pictures") == {}


def test_a_report_with_pictures_and_tables(folder, clip, model, tmp_path, capsys):
    files = {name: tmp_path / name for name in ("r.html", "bd.tex", "bd.csv", "plots")}
    words = ["report", str(folder), "-o", str(files["r.html"]), "--sequences", clip]
    words += ["--model", model, "--frames-at", "1", "--latex", str(files["bd.tex"])]
    words += ["--csv", str(files["bd.csv"]), "--plots", str(files["plots"])]
    assert main(words) == 0
    (shown,) = page_data(files["r.html"])["viewer"]
    assert shown["frame"] == 1 and (shown["width"], shown["height"]) == (70, 50)
    assert [one["codec"] for one in shown["pictures"]] == [None, "debug", "x264-medium"]
    ours = shown["pictures"][1]
    assert (ours["level"], ours["remark"]) == (30, None)
    measured = load_results(folder / "debug.json").points_of("clip")
    point = next(one for one in measured if one.level == 30)
    assert ours["bpp"] == point.bpp
    assert ours["frame"]["psnr_rgb"] == pytest.approx(
        point.per_frame.metrics["psnr_rgb"][1], abs=0.01
    )
    assert set(page_data(files["r.html"], "pictures")) == {"0-0", "0-1", "0-2"}
    assert "tabular" in files["bd.tex"].read_text()
    assert "3 point(s)" in files["bd.csv"].read_text()  # too few for a BD-rate, and said so
    assert {"rd_psnr_rgb.png", "rd_psnr_rgb.svg"} <= {one.name for one in files["plots"].iterdir()}
    assert "frame 1 of clip, debug at 30" in capsys.readouterr().err
    assert main(words) == 0
    assert "frame 1" not in capsys.readouterr().err


def test_what_cannot_be_shown_is_said_and_the_rest_is_made(folder, tmp_path, capsys):
    (folder / "half.json").write_text('{"format": ')
    try:
        words = ["--sequences", str(tmp_path / "gone"), "-o", str(tmp_path / "r.html")]
        assert main(["report", str(folder), *words]) == 1
    finally:
        (folder / "half.json").unlink()
    complaints = capsys.readouterr().err.splitlines()
    assert len(complaints) == 2
    assert complaints[0].startswith("report: half.json is not JSON")
    assert complaints[1].startswith("report: no pictures: ") and "does not exist" in complaints[1]
    assert len(page_data(tmp_path / "r.html")["codecs"]) == 2


def test_nothing_to_report(refuses, tmp_path):
    refuses(["report", "nowhere"], "nowhere is not a folder")
    (tmp_path / "empty").mkdir()
    refuses(["report", "empty"], "empty holds no results: give the folder that lgmc eval")
