"""From a path to sequences: names, lengths, digests, what is refused."""

import pytest

from codec.errors import ConfigError, VideoError
from codec.video.synthetic import write_synthetic
from eval.sequences import find_sequences


def _clip(path, seed=0, frames=3, **fields):
    write_synthetic("pan", path, 32, 16, frames, seed=seed, **fields)


def test_one_file(tmp_path):
    _clip(tmp_path / "a.y4m")
    (sequence,) = find_sequences(tmp_path / "a.y4m")
    assert (sequence.name, sequence.frames, sequence.pixels) == ("a", 3, 3 * 32 * 16)
    with sequence.open() as reader:
        assert sum(1 for _ in reader) == 3


def test_a_folder_of_clips_is_sorted_and_other_files_are_passed_over(tmp_path):
    _clip(tmp_path / "b.y4m", 1)
    _clip(tmp_path / "a.y4m", 2)
    _clip(tmp_path / "c", 3, chroma="rgb")
    (tmp_path / "clips.csv").write_text("x")
    (tmp_path / ".hidden.y4m").write_text("x")
    (tmp_path / "empty").mkdir()
    sequences = find_sequences(tmp_path)
    assert [one.name for one in sequences] == ["a", "b", "c"]
    assert sequences[2].format.chroma == "rgb"
    assert len({one.digest for one in sequences}) == 3


def test_a_folder_of_pictures_is_one_sequence(tmp_path):
    _clip(tmp_path / "frames", chroma="rgb")
    (sequence,) = find_sequences(tmp_path / "frames")
    assert (sequence.name, sequence.frames) == ("frames", 3)


def test_equal_stems_keep_their_suffix(tmp_path):
    _clip(tmp_path / "a.y4m", 1)
    _clip(tmp_path / "a.yuv", 1)
    with pytest.raises(VideoError, match="a.yuv"):
        find_sequences(tmp_path)  # a raw file needs its size
    (tmp_path / "a.yuv").rename(tmp_path / "keep")
    (tmp_path / "a.y4m").rename(tmp_path / "b.y4m")
    raw = tmp_path / "raw"
    raw.mkdir()
    (tmp_path / "keep").rename(raw / "a.yuv")
    options = {"size": (32, 16), "fps": 24, "pix_fmt": "yuv420p", "range": None}
    (sequence,) = find_sequences(raw, matrix="bt709", **options)
    assert sequence.frames == 3
    # the same planes and format, in another container, are the same input
    assert sequence.digest == find_sequences(tmp_path / "b.y4m")[0].digest


def test_the_first_frames_only(tmp_path):
    _clip(tmp_path / "a.y4m")
    whole = find_sequences(tmp_path / "a.y4m")[0]
    two = find_sequences(tmp_path / "a.y4m", frames=2)[0]
    more = find_sequences(tmp_path / "a.y4m", frames=9)[0]
    assert (two.frames, more.frames) == (2, 3)
    assert two.digest != whole.digest == more.digest


def test_the_matrix_is_part_of_the_digest(tmp_path):
    _clip(tmp_path / "a.y4m")
    digests = {
        find_sequences(tmp_path / "a.y4m", matrix=matrix)[0].digest for matrix in ("bt601", "bt709")
    }
    assert len(digests) == 2


def test_refusals(tmp_path):
    with pytest.raises(VideoError, match="does not exist"):
        find_sequences(tmp_path / "none")
    with pytest.raises(VideoError, match="no video files"):
        find_sequences(tmp_path)
    with pytest.raises(ConfigError, match="at least 1"):
        find_sequences(tmp_path, frames=0)
