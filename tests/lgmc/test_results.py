"""`lgmc results`, and `lgmc bdrate` on what it made: exit codes, and mistakes in one line."""

import json

import pytest

from lgmc.main import main

POINTS = [(0.01, 32.0), (0.02, 33.5), (0.04, 35.0), (0.08, 36.2)]


def _dcvc(path, factor):
    def rates():
        return {
            f"{index:03d}": {
                "ave_all_frame_bpp": bpp * factor,
                "ave_all_frame_psnr": psnr,
                "i_frame_num": 1,
                "p_frame_num": 95,
            }
            for index, (bpp, psnr) in enumerate(POINTS)
        }

    sets = {"HEVC_B": ("Cactus_1920x1080_50", "ParkScene_1920x1080_24"), "HEVC_D": ("Other",)}
    path.write_text(json.dumps({ds: {s: rates() for s in names} for ds, names in sets.items()}))


@pytest.fixture
def imported(tmp_path, capsys):
    """Two codecs, the second at 80 % of the first's rate, as files of ours."""
    paths = []
    for name, factor in (("one", 1.0), ("two", 0.8)):
        _dcvc(tmp_path / f"{name}.dcvc", factor)
        paths.append(str(tmp_path / f"{name}.json"))
        words = ["results", "import", str(tmp_path / f"{name}.dcvc"), "--codec", name]
        assert main([*words, "-o", paths[-1]]) == 0
        out = capsys.readouterr()
        assert f"{name}, 12 point(s) of 3 sequence(s), imported from dcvc" in out.out
        assert "results: note: size of Cactus_1920x1080_50 from the registry" in out.err
    return paths


def test_imported_files_are_compared_by_class(imported, tmp_path, capsys):
    assert main(["bdrate", *imported]) == 0
    text = capsys.readouterr().out
    assert "class HEVC-B (2)" in text and "class other (1)" in text
    assert "mean over classes (2)" in text and "mean over sequences (3)" in text
    assert text.count("-20.00 %") == 10  # three sequences by two methods, four means
    classes = tmp_path / "classes.json"
    classes.write_text('{"all": ["Cactus_1920x1080_50", "ParkScene_1920x1080_24", "Other"]}')
    assert main(["bdrate", *imported, "--classes", str(classes), "--json"]) == 0
    (content,) = json.loads(capsys.readouterr().out)
    assert list(content["classes"]) == ["all"]
    assert content["mean_over_classes"]["rate_percent"] == pytest.approx(-20.0)


def test_export_and_import_again(imported, tmp_path, capsys):
    out, back = str(tmp_path / "out.json"), str(tmp_path / "back.json")
    words = ["results", "export", imported[0], "--to", "compressai", "-o", out]
    assert main([*words, "--sequence", "Other"]) == 0
    assert json.loads((tmp_path / "out.json").read_text())["results"]["bpp"] == [
        0.01,
        0.02,
        0.04,
        0.08,
    ]
    assert main(["results", "import", out, "-o", back]) == 0
    assert main(["bdrate", back, imported[1]]) == 0
    assert "-20.00 %" in capsys.readouterr().out
    assert main(["results", "export", imported[0], "--to", "dcvc", "-o", out]) == 0
    assert list(json.loads((tmp_path / "out.json").read_text())) == ["HEVC-B", "other"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["import", "none.json", "-o", "x.json"], "none.json cannot be read"),
        (["import", "text.json", "-o", "x.json"], "is not JSON"),
        (["export", "text.json", "--to", "dcvc", "-o", "x.json"], "is not JSON"),
        (["export", "ours.json", "--to", "dcvc", "-o", "x.json", "--sequence", "x"], "choose from"),
    ],
)
def test_mistakes_end_in_one_line(words, says, imported, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.json").write_text("text")
    (tmp_path / "ours.json").write_bytes((tmp_path / "one.json").read_bytes())
    assert main(["results", *words]) == 1
    err = capsys.readouterr().err
    assert says in err and err.count("\n") == 1
    assert not (tmp_path / "x.json").exists()


def test_an_input_is_not_written_over(imported, tmp_path, capsys):
    before = (tmp_path / "one.json").read_bytes()
    export = ["results", "export", imported[0], "--to", "dcvc", "-o", f"{tmp_path}/./one.json"]
    theirs = str(tmp_path / "one.dcvc")
    for words in (export, ["results", "import", theirs, "--codec", "one", "-o", theirs]):
        assert main(words) == 1
        assert "is the input itself" in capsys.readouterr().err
    assert (tmp_path / "one.json").read_bytes() == before
