"""The registry of test sets and what lgmc data check says of a folder."""

import hashlib
import json

import pytest

from codec.errors import ConfigError, VideoError
from codec.video.synthetic import write_synthetic
from eval import testsets
from eval.testsets import TestSequence, TestSet, find_sequence, find_set, load_sets
from eval.testsets.check import check_sets

SMALL = TestSet(
    "Small",
    "a test",
    "",
    "420",
    8,
    (
        TestSequence("Pan_64x48_24", 64, 48, 24, 3),
        TestSequence("Zoom_64x48_24", 64, 48, 24, 3),
        TestSequence("Still_64x48_24", 64, 48, 24, None),
    ),
)


@pytest.fixture
def small(monkeypatch):
    """A registry of one set of small clips."""
    monkeypatch.setattr(testsets, "load_sets", lambda: {"Small": SMALL})
    monkeypatch.setattr("eval.testsets.check.load_sets", lambda: {"Small": SMALL})


def test_the_registry_is_consistent():
    sets = load_sets()
    assert list(sets) == [
        *("HEVC-B", "HEVC-C", "HEVC-D", "HEVC-E", "HEVC-RGB", "UVG", "MCL-JCV", "Xiph-CIF")
    ]
    assert [len(sets[name].sequences) for name in sets] == [5, 4, 4, 3, 6, 7, 30, 11]
    names = [sequence.name for one in sets.values() for sequence in one.sequences]
    assert len(names) == len(set(names))
    for one in sets.values():
        assert one.source
        for sequence in one.sequences:
            if "x" in sequence.name and sequence.fps:  # size and rate stand in the names, too
                assert f"_{sequence.width}x{sequence.height}_{sequence.fps}" in sequence.name
    assert find_set("hevc-b") == sets["HEVC-B"]
    assert find_sequence("racehorses_416x240_30")[0].name == "HEVC-D"
    assert find_sequence("mine") is None
    with pytest.raises(ConfigError, match="no test set 'HEVC-Z': choose from HEVC-B"):
        find_set("HEVC-Z")


def test_a_folder_without_pictures_does_not_hide_the_clip_in_it(tmp_path, small):
    folder = tmp_path / "Pan_64x48_24"
    folder.mkdir()
    write_synthetic("pan", folder / "Pan_64x48_24.yuv", 64, 48, 3)
    pan, *_ = check_sets(tmp_path)["Small"]
    assert pan.complete and pan.path == folder / "Pan_64x48_24.yuv"


def test_whole_short_cut_and_missing(tmp_path, small):
    folder = tmp_path / "sets" / "Small"
    folder.mkdir(parents=True)
    write_synthetic("pan", folder / "Pan_64x48_24.yuv", 64, 48, 3)
    write_synthetic("zoom", folder / "Zoom_64x48_24.yuv", 64, 48, 2)
    pan, zoom, still = check_sets(tmp_path)["Small"]
    assert pan.complete and pan.frames == 3
    assert zoom.problem == "has 2 of 3 frames"
    assert (still.path, still.problem) == (None, "missing")
    whole = (folder / "Zoom_64x48_24.yuv").read_bytes()
    (folder / "Zoom_64x48_24.yuv").write_bytes(whole[:-1])
    assert "no whole number of frames" in check_sets(tmp_path)["Small"][1].problem


def test_folders_of_frames_and_containers(tmp_path, small):
    write_synthetic("pan", tmp_path / "pan_64x48_24/", 64, 48, 3)
    write_synthetic("zoom", tmp_path / "Zoom_64x48_24.y4m", 62, 48, 3)
    (tmp_path / "Still_64x48_24.mp4").write_bytes(b"nothing")
    pan, zoom, still = check_sets(tmp_path)["Small"]
    assert pan.complete and pan.frames == 3
    assert zoom.problem == "is 62x48, not 64x48"
    assert still.path is not None and still.problem


def test_the_command(tmp_path, small, capsys):
    from lgmc.main import main

    assert main(["data", "check", str(tmp_path)]) == 1
    assert "holds nothing of the test sets" in capsys.readouterr().out
    write_synthetic("pan", tmp_path / "Pan_64x48_24.yuv", 64, 48, 3)
    assert main(["data", "check", str(tmp_path), "--set", "small"]) == 1
    said = capsys.readouterr().out
    assert "Small: 1 of 3 complete" in said and "Zoom_64x48_24: missing" in said
    assert "get what is missing from a test" in said
    for name in ("Zoom", "Still"):
        write_synthetic("zoom", tmp_path / f"{name}_64x48_24.yuv", 64, 48, 3)
    assert main(["data", "check", str(tmp_path), "--json"]) == 0
    assert [one["frames"] for one in json.loads(capsys.readouterr().out)["Small"]] == [3, 3, 3]
    assert main(["data", "list"]) == 0
    assert "length not known here" in capsys.readouterr().out
    with pytest.raises(VideoError, match="is no folder"):
        check_sets(tmp_path / "none")


def sums_of(path, algorithm: str) -> str:
    return hashlib.new(algorithm, path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    ("list_name", "line", "algorithm"),
    [
        ("MD5SUMS", "{hex}  {name}", "md5"),
        ("sums.txt", "{hex} *sub/{name}", "sha256"),
        ("all.md5", "MD5 ({name}) = {hex}", "md5"),
        ("Pan_64x48_24.md5", "{hex}", "md5"),
        ("pan_64x48_24_yuv.md5", "{HEX}\r", "md5"),
        ("Pan_64x48_24_md5.txt", "{hex}", "md5"),
        ("Pan_64x48_24.yuv.sha1", "{hex}", "sha1"),
    ],
)
def test_checksums_beside_the_clips_are_held_against_them(
    list_name, line, algorithm, tmp_path, small, capsys
):
    from lgmc.main import main

    clip = tmp_path / "Pan_64x48_24.yuv"
    write_synthetic("pan", clip, 64, 48, 3)
    value = sums_of(clip, algorithm)
    text = line.format(hex=value, HEX=value.upper(), name=clip.name)
    (tmp_path / list_name).write_text(f"# a remark\n{text}\n")
    pan, *_ = check_sets(tmp_path)["Small"]
    assert pan.complete and pan.checked == algorithm
    main(["data", "check", str(tmp_path)])
    assert f"3 frames, {algorithm.upper()} right" in capsys.readouterr().out
    data = bytearray(clip.read_bytes())
    data[-1] ^= 1
    clip.write_bytes(data)
    pan, *_ = check_sets(tmp_path)["Small"]
    assert not pan.complete and pan.checked is None
    assert pan.problem == f"has not the {algorithm.upper()} that {list_name} states: fetch it again"


def test_what_is_no_list_is_passed_over(tmp_path, small):
    clip = tmp_path / "Pan_64x48_24.yuv"
    write_synthetic("pan", clip, 64, 48, 3)
    (tmp_path / "MD5SUMS").write_bytes(bytes(range(256)))
    (tmp_path / "Pan_64x48_24.md5").write_text("not a checksum\n")
    (tmp_path / "notes.txt").write_text("0" * 32 + "  " + clip.name)
    pan, *_ = check_sets(tmp_path)["Small"]
    assert pan.complete and pan.checked is None
