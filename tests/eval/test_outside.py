"""Codecs from outside: the one of docs/protocol.md, whole, and what is said of wrong ones."""

import json
import pickle
import re
import sys
from pathlib import Path

import pytest

from codec.errors import ConfigError
from codec.video.synthetic import write_synthetic
from eval.metrics import bits_per_pixel
from eval.outside import Outside
from eval.results import load_results
from eval.run import evaluate
from eval.statement import statement

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = re.search(
    r"^```python\n(import zlib.*?)^```$",
    (ROOT / "docs" / "protocol.md").read_text(),
    re.MULTILINE | re.DOTALL,
)[1]
QPS = (22, 28, 34, 40)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    write_synthetic("pan", folder / "pan.y4m", 67, 45, 4, seed=1)
    write_synthetic("zoom", folder / "zoom.y4m", 64, 48, 3, seed=2)
    return folder


@pytest.fixture
def written(tmp_path):
    """A file of the example with a piece of it replaced; its "FILE.py:CLASS"."""

    def write(old="", new="", name="mine.py"):
        assert old in EXAMPLE
        path = tmp_path / name
        path.write_text(EXAMPLE.replace(old, new, 1) if old else EXAMPLE)
        for one in [one for one in sys.modules if one.startswith("lgmc_outside_")]:
            del sys.modules[one]  # as in a new process
        return f"{path}:Shifted"

    return write


def test_it_is_measured_as_others_are(clips, tmp_path, written):
    out, lines = tmp_path / "out", []
    common = {"anchors": ["x264-medium"], "qps": QPS, "out": out}
    evaluation = evaluate(clips, codecs=[written()], report=lines.append, **common)
    results, anchor = evaluation.results
    assert [results.codec, anchor.codec] == ["shifted", "x264-medium"]
    assert [(one.sequence, one.level) for one in results.points] == [
        (name, level) for name in ("pan", "zoom") for level in (2, 3, 4, 5)
    ]
    assert len(evaluation.comparisons) and not evaluation.failures
    assert {one.test for one in evaluation.comparisons} == {"shifted"}
    finest = results.points[0]
    assert finest.bpp == bits_per_pixel(finest.bytes, 67, 45, 4)
    assert finest.metrics["psnr_rgb"] > results.points[3].metrics["psnr_rgb"] + 10
    assert results.conditions.codec["codec"] == "shifted" and "zlib" in results.conditions.codec
    assert load_results(out / "shifted.json") == results
    summary = json.loads((out / "bdrate.json").read_text())["comparisons"]
    assert {(one["anchor"], one["test"]) for one in summary} == {("x264-medium", "shifted")}
    assert len(summary) == len(evaluation.comparisons)


def test_another_file_is_measured_again_and_the_same_is_not(clips, tmp_path, written):
    folder = tmp_path / "notes"
    folder.mkdir()
    noting = f"(__import__('pathlib').Path({str(folder)!r}) / f'{{level}}').touch()\n        "
    common = {"anchors": (), "out": tmp_path / "out"}

    def encoded(spec):
        for note in folder.iterdir():
            note.unlink()
        evaluate(clips / "pan.y4m", codecs=[spec], **common)
        return sorted(note.name for note in folder.iterdir())

    where = "with sequence.open() as frames:"
    assert encoded(written(where, noting + where)) == ["2", "3", "4", "5"]
    assert encoded(written(where, noting + where)) == []
    assert encoded(written(where, noting + "pass\n        " + where)) == ["2", "3", "4", "5"]


def test_what_goes_wrong_costs_points_and_is_said(clips, tmp_path, written):
    spec = written("range(sequence.frames)", "range(sequence.frames - (level == 5))")
    (results,) = evaluate(clips / "pan.y4m", codecs=[spec], out=tmp_path / "out").results
    assert [one.level for one in results.points] == [2, 3, 4]
    assert [one.level for one in results.failures] == [5] and results.failures[0].error
    spec = written("target.write_bytes(", "bytes(", "other.py")
    (results,) = evaluate(clips / "pan.y4m", codecs=[spec], out=tmp_path / "out").results
    assert {one.error for one in results.failures} == {"shifted wrote no file"}


def test_one_that_names_its_weights_and_device_is_no_model_of_ours(clips, tmp_path, written):
    words = '{"weights": "ab", "device": "cuda", '
    spec = written('{"zlib"', f'{words}"zlib"')
    (results,) = evaluate(clips / "pan.y4m", codecs=[spec], out=tmp_path / "out").results
    assert results.conditions.device == "cuda"
    text = "\n".join(statement([results]))
    assert "delay 0, weights ab, device cuda" in text and "sources" not in text


def test_it_is_another_process_codec_too(written):
    codec = Outside(written(), 16)
    there = pickle.loads(pickle.dumps(codec))
    assert (there.identity(), there.levels, there.intra_period) == (
        codec.identity(),
        (2, 3, 4, 5),
        16,
    )


@pytest.mark.parametrize(
    "old, new, said",
    [
        ("import zlib\n", "import zlibb\n", "cannot be imported .ModuleNotFoundError: .*zlibb"),
        ("class Shifted", "class Shifter", "the file has no such class"),
        ("pass  #", "raise OSError('no weights')  #", "failed .OSError: no weights"),
        ("(2, 3, 4, 5)", "(2, 2)", "levels are different integers >= 0, not .2, 2."),
        ("(2, 3, 4, 5)", "4", "levels are different integers >= 0, not 4"),
        ('"shifted"', '"a/b"', "name is of letters, digits"),
        ('"qp"', '"rate"', "parameter is quality or qp, not 'rate'"),
        ("def identity", "def identify", "lacks identity: eval/outside.py has what it needs"),
    ],
)
def test_a_codec_that_is_none(written, old, new, said):
    with pytest.raises(ConfigError, match=said):
        Outside(written(old, new))


def test_a_name_that_is_taken_and_specs_that_are_none(clips, tmp_path, written):
    spec = written('{"zlib"', '{"model"')
    with pytest.raises(ConfigError, match="'model', which is for codecs of LGMC"):
        Outside(spec).identity()
    with pytest.raises(ConfigError, match="the same codec is given twice: shifted, shifted"):
        evaluate(clips, codecs=[spec, spec], out=tmp_path / "out")
    with pytest.raises(ConfigError, match="no such file; give FILE.py:CLASS"):
        Outside(str(tmp_path / "none.py:Codec"))
    for wrong in ("mine", "mine.py", "mine:Codec", "mine.py:", "mine.py:1"):
        with pytest.raises(ConfigError, match="names no codec: give FILE.py:CLASS"):
            Outside(wrong)


def test_the_command(clips, tmp_path, written, capsys):
    from lgmc.main import main

    words = ["eval", "--model", "none", "--anchors", "x264-medium", "--codec", written(), "--json"]
    words += [
        "--sequences",
        str(clips / "pan.y4m"),
        "--out",
        str(tmp_path / "out"),
        "--frames",
        "2",
    ]
    assert main(words) == 0
    results, _ = json.loads(capsys.readouterr().out)["results"]
    assert results["codec"] == "shifted" and len(results["points"]) == 4
    main(["results", "state", str(tmp_path / "out")])
    assert "- **shifted**: codec shifted, file mine.py " in (said := capsys.readouterr().out)
    assert "delay 0, zlib" in said
    page = tmp_path / "page.html"
    assert main(["report", str(tmp_path / "out"), "-o", str(page), "--sequences", str(clips)]) == 0
    assert "shifted" in page.read_text()
    assert "of shifted, from outside, the page has figures alone" in capsys.readouterr().err
