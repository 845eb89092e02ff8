"""What a paper must state is in the result files, and comes out of them in full."""

import pytest

from eval.metrics import EXTRA_METRICS, METRICS
from eval.results import Conditions, RdResults
from eval.statement import _MEANING, statement
from lgmc.main import main


def test_every_metric_has_a_meaning():
    assert set(_MEANING) == {*METRICS, *EXTRA_METRICS}


def test_all_that_decides_the_figures_is_said(results):
    text = "\n".join(statement(results))
    assert (
        "- **model-a**: model `model-a`, weights 00, sources not known, low delay, on cpu" in text
    )
    assert "quality 0, 21, 42, 63; intra period 32 frames" in text
    assert "1 point(s) failed" in text
    assert "qp 27, 32; intra period 16 frames" in text
    said = "- first_clip: 96x64, frames 12, frames a second 24, 4:2:0, bits 8, matrix bt709"
    assert text.count(said) == 1
    assert "SHA-256 of its planes first_clip-frames" in text
    assert "`psnr_rgb`: PSNR of 8-bit RGB" in text and "`vmaf`" not in text
    assert "pchip over log-rate" in text
    assert text.count("low delay") == 3 and "random access" not in text
    assert text.count("cpu a cpu, cores 2") == 3 and "gpu" not in text
    assert "python 3.11" in text and "`lgmc eval '<b>&'`" in text


def test_effort_and_options_belong_to_the_codec(results):
    ours, anchor, _ = results
    codec = {"model": "m", "weights": "ab", "code": "cd" * 32, "effort": "20"}
    tried = with_codec(ours, codec)
    options = {"anchor": "x264-medium", "ffmpeg": "n9", "options": "ffmpeg -c:v libx264 -qp QP"}
    text = "\n".join(statement([tried, with_codec(anchor, options)]))
    assert "sources cdcdcdcdcdcdcdcd, low delay, on cpu, encoder's effort 20" in text
    ahead = "\n".join(statement([with_codec(ours, {**codec, "effort": "20+10"})]))
    assert "low delay but for one frame that the encoder waits for, on cpu" in ahead
    assert "- **x264-medium**: low delay, ffmpeg n9, `ffmpeg -c:v libx264 -qp QP`" in text


def with_codec(one: RdResults, codec: dict[str, str]) -> RdResults:
    conditions = one.conditions.model_copy(update={"codec": codec})
    assert isinstance(conditions, Conditions)
    return one.model_copy(update={"conditions": conditions})


def test_sequences_that_differ_are_told_apart(results):
    ours, anchor, _ = results
    other = [info.model_copy(update={"matrix": "bt601"}) for info in anchor.sequences]
    text = "\n".join(statement([ours, anchor.model_copy(update={"sequences": other})]))
    assert "- first_clip (for model-a): " in text
    assert "- first_clip (for x264-medium): " in text and "bt601" in text


def test_what_was_imported_is_not_known(results):
    ours, *_ = results
    infos = [
        info.model_copy(update={"digest": None, "width": None, "fps": None, "range": None})
        for info in ours.sequences
    ]
    imported = {"format": "dcvc", "files": {"a.json": "00"}, "description": "", "notes": ["a note"]}
    one = RdResults.model_validate(
        {
            **ours.model_dump(),
            "conditions": None,
            "imported": imported,
            "sequences": [info.model_dump() for info in infos],
            "points": [],
            "failures": [],
        }
    )
    text = "\n".join(statement([one]))
    assert "imported from a.json; how it was measured is not known" in text
    assert "of unknown size, frames 12, frames a second not known" in text
    assert "range not known; SHA-256 of its planes not known" in text
    assert "model-a, imported: a note" in text


def test_through_the_command(folder, capsys):
    assert main(["results", "state", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert all(f"**{name}**" in printed for name in ("model-a", "x264-medium", "x265-medium"))
    one = folder / "x264-medium.json"
    assert main(["results", "state", str(one)]) == 0
    assert "model-a" not in capsys.readouterr().out
    (folder / "half.json").write_text('{"format": "lgmc-rd/1", "codec"')
    assert main(["results", "state", str(folder)]) == 1
    assert "half.json" in capsys.readouterr().err


@pytest.mark.parametrize("path", ["none.json", "none"])
def test_nothing_there(path, tmp_path):
    assert main(["results", "state", str(tmp_path / path)]) == 1
