"""Pictures are drawn again only where something about them changed."""

import pytest

from eval.drawn import Drawn
from eval.plot import rd_digest


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "points").mkdir()
    return tmp_path


def drawing(folder, drawn):
    """A ``draw`` that notes its calls in ``drawn`` and leaves two files."""

    def draw():
        drawn.append(1)
        files = [folder / "a.png", folder / "a.svg"]
        for file in files:
            file.write_text("picture")
        return files

    return draw


def test_once_until_the_digest_changes(folder):
    calls = []
    for digest, so_far in (("1", 1), ("1", 1), ("2", 2), ("2", 2), ("1", 3)):
        record = Drawn(folder, folder / "points" / "drawn")  # as another process reads it
        files = record.files("a", digest, drawing(folder, calls))
        assert [file.name for file in files] == ["a.png", "a.svg"]
        assert len(calls) == so_far


def test_a_picture_that_is_gone_is_drawn_again(folder):
    calls = []
    record = Drawn(folder, folder / "points" / "drawn")
    record.files("a", "1", drawing(folder, calls))
    (folder / "a.svg").unlink()
    record.files("a", "1", drawing(folder, calls))
    assert len(calls) == 2 and (folder / "a.svg").is_file()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": 3}', '{"a": {"digest": "1"}}'])
def test_a_damaged_record_draws_anew(folder, text):
    (folder / "points" / "drawn").write_text(text)
    calls = []
    Drawn(folder, folder / "points" / "drawn").files("a", "1", drawing(folder, calls))
    assert len(calls) == 1


def test_the_digest_is_of_what_is_drawn(results):
    first, *_ = results
    same = rd_digest(results, "psnr_rgb")
    assert rd_digest(list(results), "psnr_rgb") == same
    assert rd_digest(results[::-1], "psnr_rgb") != same
    assert rd_digest([first], "psnr_rgb") != same
    assert rd_digest(results, "psnr_y") != same
