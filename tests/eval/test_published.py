"""Published figures: all files load and name their source; drawn and printed as quoted."""

import pytest

from codec.errors import ConfigError
from codec.video.synthetic import write_synthetic
from eval.plot import plot_rd
from eval.published import PublishedCurves, PublishedTable, load_published, published_names
from eval.run import evaluate
from eval.tables import published_lines


@pytest.mark.parametrize("name", published_names())
def test_every_file_is_valid_and_says_where_it_is_from(name):
    published = load_published(name)
    assert published.source
    if isinstance(published, PublishedTable):
        sets = {tuple(row) for row in published.rows.values()}
        assert len(sets) == 1 and "mean" in sets.pop()
    else:
        for curve in published.curves:
            assert curve.points == sorted(curve.points)
            values = [value for _, value in curve.points]
            assert values == sorted(values)
    lines = published_lines(published)
    assert lines[0].startswith(f"quoted, not measured here: {published.source}")


@pytest.mark.parametrize("name", ["ecvc-table1", "dcvc-uf"])
def test_the_means_that_were_published_are_those_of_the_rows(name):
    """A digit that was mistyped would show here."""
    for codec, row in load_published(name).rows.items():
        values = [value for one, value in row.items() if one != "mean"]
        assert sum(values) / len(values) == pytest.approx(row["mean"], abs=0.11), codec


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="no published figures 'x': choose from dcvc-tcm-curves"):
        load_published("x")


def test_curves_are_drawn_in_the_last_panel_and_named_as_quoted(tmp_path):
    write_synthetic("pan", tmp_path / "pan.y4m", 64, 48, 1)
    evaluation = evaluate(
        tmp_path / "pan.y4m",
        anchors=["x264-medium"],
        qps=(30, 40),
        out=tmp_path / "out",
        published=("dcvc-tcm-curves", "ecvc-table1"),
    )
    published = load_published("dcvc-tcm-curves")
    assert isinstance(published, PublishedCurves)
    drawn = (tmp_path / "out" / "rd_psnr_rgb.svg").read_text()
    other = (tmp_path / "out" / "rd_psnr_yuv611.svg").read_text()
    words = "DCVC-TCM on HEVC-B (quoted)"
    assert f"<!-- {words} -->" in drawn and words not in other
    plot_rd(evaluation.results, tmp_path / "linear", log_rate=False, quoted=published.curves)
