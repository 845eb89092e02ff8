"""Packed clips give the samples that the files they were packed from give."""

import json
import tarfile

import numpy as np
import pytest
import torch
from PIL import Image

from codec.config import DataConfig
from codec.errors import ConfigError
from codec.training.data import ClipSampler, load_clips
from codec.training.data.shards import open_shards, pack
from codec.training.data.sources import find_sources
from codec.training.resident import ResidentSampler
from codec.video.synthetic import write_synthetic
from lgmc.main import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three videos, one of them 10-bit 4:4:4, and a folder of frames."""
    root = tmp_path_factory.mktemp("set")
    write_synthetic("pan", root / "a.y4m", 98, 67, 9)
    write_synthetic("zoom", root / "b.y4m", 80, 80, 6, chroma="444", bit_depth=10)
    write_synthetic("layers", root / "c.y4m", 72, 96, 12)
    (root / "frames").mkdir()
    random = np.random.default_rng(0)
    for number in range(5):
        pixels = random.integers(0, 256, (70, 75, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / "frames" / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def shards(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("packed") / "shards"
    packed = pack(find_sources(folder), out, shard_bytes=150_000)
    assert (packed.clips, packed.left_out) == (4, [])
    return out


def clips(path, cache):
    return load_clips(DataConfig(paths=(str(path),), holdout=0), cache).trained


def test_samples_are_those_of_the_files(folder, shards, tmp_path):
    plain, packed = clips(folder, tmp_path), clips(shards, tmp_path)
    assert [c.name for c in plain] == [c.name for c in packed]
    one, other = ClipSampler(plain, 3), ClipSampler(packed, 3)
    for step in range(8):
        expected, got = one.batch(step, 3, 3, 64), other.batch(step, 3, 3, 64)
        assert torch.allclose(expected, got, rtol=0, atol=1e-7)  # pictures are divided otherwise
    for left, right in zip(plain, packed, strict=True):
        assert left.shots == right.shots


def test_shards_are_whole_archives_of_bounded_size(shards):
    names = sorted(path.name for path in shards.iterdir())
    assert names[-1] == "shards.json" and len(names) > 2
    index = json.loads((shards / "shards.json").read_text())
    members = 0
    for name, size in index["shards"]:
        assert (shards / name).stat().st_size == size
        with tarfile.open(shards / name) as archive:
            for member in archive:
                entry = index["clips"][members]
                assert (entry["offset"], member.isfile()) == (member.offset_data, True)
                members += 1
    assert members == len(index["clips"]) == 4


def test_packed_as_420_they_can_lie_on_the_device(folder, tmp_path):
    assert main(["data", "pack", str(folder), "-o", str(tmp_path / "s"), "--chroma", "420"]) == 0
    packed = open_shards(tmp_path / "s")
    assert {(c.format.chroma, c.format.bit_depth, c.format.matrix) for c in packed} == {
        ("420", 8, "bt709")
    }
    one, other = ClipSampler(packed, 1), ResidentSampler(packed, 1, torch.device("cpu"))
    assert torch.equal(one.batch(0, 4, 3, 64), other.batch(0, 4, 3, 64))
    pictures = [clip for clip in packed if clip.name.endswith("frames")]
    with Image.open(folder / "frames" / "2.png") as image:
        luma = np.asarray(image.convert("RGB")).astype(float) / 255 @ (0.2126, 0.7152, 0.0722)
    seen = pictures[0].planes[2, : 70 * 75].reshape(70, 75)
    assert np.abs((seen - 16.0) / 219 - luma).max() < 0.01


def test_what_cannot_be_decoded_is_left_out(folder, tmp_path, capsys):
    source = tmp_path / "set"
    source.mkdir()
    (source / "a.y4m").write_bytes((folder / "a.y4m").read_bytes())
    (source / "cut.y4m").write_bytes((folder / "c.y4m").read_bytes()[:-1000])
    assert main(["data", "pack", str(source), "--out", str(tmp_path / "s")]) == 0
    out, err = capsys.readouterr()
    assert "1 clip(s) in 1 shard(s)" in out and "1 left out" in out and "cut.y4m" in err
    assert [clip.name for clip in open_shards(tmp_path / "s")] == ["a.y4m"]


def test_nothing_is_left_of_a_packing_that_fails(tmp_path, capsys):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "bad.mp4").write_text("no video")
    assert main(["data", "pack", str(tmp_path / "set"), "-o", str(tmp_path / "s")]) == 1
    assert "nothing to pack, the first: " in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    assert main(["data", "pack", str(tmp_path / "empty"), "-o", str(tmp_path / "s")]) == 1
    assert "no video" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "set"]


def test_shards_are_not_written_over(folder, shards):
    with pytest.raises(ConfigError, match="is there already"):
        pack(find_sources(folder), shards)


def test_damage_is_said(folder, tmp_path):
    pack(find_sources(folder), tmp_path / "s", shard_bytes=150_000)
    shard = tmp_path / "s" / "00000.tar"
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    with pytest.raises(ConfigError, match=r"00000.tar has \d+ bytes"):
        clips(tmp_path / "s", tmp_path)
    shard.unlink()
    with pytest.raises(ConfigError, match="00000.tar is missing"):
        clips(tmp_path / "s", tmp_path)
    shard.write_bytes(content)
    index = tmp_path / "s" / "shards.json"
    whole = index.read_text()
    for damaged in (whole[:100], "{}", whole.replace('"shard": 0', '"shard": 9')):
        index.write_text(damaged)
        with pytest.raises(ConfigError, match="is no index of shards"):
            clips(tmp_path / "s", tmp_path)
    index.write_text(whole.replace('"version": 1', '"version": 2'))
    with pytest.raises(ConfigError, match="version 2, not 1"):
        clips(tmp_path / "s", tmp_path)
