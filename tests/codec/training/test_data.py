"""Clips from every kind of source, cut as the seed and the step say."""

import os
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from PIL import Image

from codec.config import DataConfig
from codec.errors import ConfigError
from codec.training.data import CachedClip, ClipSampler, find_clips, split
from codec.video import frame_to_rgb, open_reader
from codec.video.format import VideoFormat
from codec.video.synthetic import write_synthetic


def write_images(folder, count: int, size=(96, 80)) -> None:
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for number in range(1, count + 1):
        pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"im{number}.png")


def data(*paths, **options) -> DataConfig:
    return DataConfig(paths=tuple(str(p) for p in paths), **options)


def test_video_crops_are_the_readers_pixels(tmp_path):
    write_synthetic("pan", tmp_path / "a.y4m", 101, 83, 4, seed=2)
    (clip,) = find_clips(data(tmp_path / "a.y4m"), tmp_path / "cache")
    assert (clip.frames, clip.height, clip.width) == (4, 83, 101)
    cut = clip.read(1, 2, top=10, left=20, size=64)
    with open_reader(tmp_path / "a.y4m") as reader:
        frames = [frame_to_rgb(frame, reader.format)[0] for frame in reader]
    expected = torch.stack(frames[1:3])[..., 10:74, 20:84].clamp(0, 1)
    # Chroma is interpolated: only at the cut's edge is there another neighbour.
    assert torch.allclose(cut[..., 2:-2, 2:-2], expected[..., 2:-2, 2:-2], atol=1e-6)


def test_clips_that_look_alike_from_outside_are_two(tmp_path):
    """Of one name, size and time: raw clips that were made together."""
    for folder, kind in (("one", "pan"), ("two", "zoom")):
        (tmp_path / folder).mkdir()
        write_synthetic(kind, tmp_path / folder / "a.y4m", 101, 83, 4)
        os.utime(tmp_path / folder / "a.y4m", (10**9, 10**9))
    one, two = find_clips(data(tmp_path / "one", tmp_path / "two"), tmp_path / "cache")
    assert not torch.equal(one.read(0, 4, 0, 0, 64), two.read(0, 4, 0, 0, 64))
    (copy,) = find_clips(data(tmp_path / "two"), tmp_path / "cache")
    assert torch.equal(copy.read(0, 4, 0, 0, 64), two.read(0, 4, 0, 0, 64))
    assert len(list((tmp_path / "cache").glob("*.planes"))) == 2


def test_ten_bit_and_444_are_cached_too(tmp_path):
    write_synthetic("pan", tmp_path / "a.y4m", 70, 66, 2, chroma="444", bit_depth=10)
    (clip,) = find_clips(data(tmp_path / "a.y4m"), tmp_path / "cache")
    with open_reader(tmp_path / "a.y4m") as reader:
        frames = [frame_to_rgb(frame, reader.format)[0] for frame in reader]
    assert torch.equal(clip.read(0, 2, 0, 4, 64), torch.stack(frames)[..., :64, 4:68].clamp(0, 1))


def test_second_opening_reads_the_cache(tmp_path, monkeypatch):
    write_synthetic("pan", tmp_path / "a.y4m", 70, 66, 2)
    first = find_clips(data(tmp_path / "a.y4m"), tmp_path / "cache")[0].read(0, 2, 0, 0, 64)
    monkeypatch.setattr("codec.training.data.cache.open_reader", None)
    second = find_clips(data(tmp_path / "a.y4m"), tmp_path / "cache")[0].read(0, 2, 0, 0, 64)
    assert torch.equal(first, second)


def test_folders_of_frames_in_natural_order(tmp_path):
    write_images(tmp_path / "set" / "clip", 11)
    (clip,) = find_clips(data(tmp_path / "set"), tmp_path / "cache")
    assert [f.name for f in clip.files[-2:]] == ["im10.png", "im11.png"]
    pixels = np.asarray(Image.open(tmp_path / "set" / "clip" / "im10.png"))
    expected = torch.from_numpy(pixels.copy()).permute(2, 0, 1)[:, 4:68, 6:70] / 255
    assert torch.equal(clip.read(9, 1, 4, 6, 64)[0], expected)


def test_vimeo_layout_reads_the_training_list(tmp_path):
    for name in ("00001/0001", "00001/0002", "00002/0001"):
        write_images(tmp_path / "vimeo" / "sequences" / name, 7)
    (tmp_path / "vimeo" / "sep_trainlist.txt").write_text("00001/0001\n00002/0001\n")
    clips = find_clips(data(tmp_path / "vimeo"), tmp_path / "cache")
    assert [c.name for c in clips] == ["00001/0001", "00002/0001"]
    assert all(c.frames == 7 for c in clips)


def test_mixed_folders(tmp_path):
    write_images(tmp_path / "set" / "frames", 3)
    write_synthetic("pan", tmp_path / "set" / "b.y4m", 70, 66, 2)
    clips = find_clips(data(tmp_path / "set"), tmp_path / "cache")
    assert sorted(c.name for c in clips) == ["b.y4m", "set/frames"]


def test_batches_depend_on_seed_and_step_alone(tmp_path):
    write_images(tmp_path / "set" / "frames", 9)
    clips = find_clips(data(tmp_path / "set"), tmp_path / "cache")
    one = ClipSampler(clips, seed=4)
    first = [one.batch(step, 2, 3, 64) for step in (0, 1, 2)]
    other = ClipSampler(clips, seed=4)
    assert torch.equal(other.batch(2, 2, 3, 64), first[2])
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(ClipSampler(clips, seed=5).batch(0, 2, 3, 64), first[0])
    assert first[0].shape == (2, 3, 3, 64, 64)


def test_holding_out_depends_on_names_alone(tmp_path):
    for number in range(10):
        write_images(tmp_path / "set" / f"clip{number}", 1)
    clips = find_clips(data(tmp_path / "set"), tmp_path / "cache")
    kept, held = split(clips, 0.2)
    assert len(held) == 2 and len(kept) == 8
    again = split(list(reversed(clips)), 0.2)[1]
    assert {c.name for c in held} == {c.name for c in again}
    assert split(clips[:1], 0.5)[1] == []


def test_what_cannot_be_used_is_said(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="no video"):
        find_clips(data(tmp_path / "empty"), tmp_path / "cache")
    with pytest.raises(ConfigError, match="paths is empty"):
        find_clips(DataConfig(), tmp_path / "cache")
    write_images(tmp_path / "set" / "frames", 2)
    sampler = ClipSampler(find_clips(data(tmp_path / "set"), tmp_path / "cache"), 0)
    with pytest.raises(ConfigError, match="no clip has 3 frames"):
        sampler.batch(0, 1, 3, 64)
    (tmp_path / "bad.mp4").write_text("no video")
    with pytest.raises(ConfigError, match="training data"):
        find_clips(data(tmp_path / "bad.mp4"), tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("*.tmp"))


def test_chains_go_through_a_cut_link_by_link():
    """Each link begins with the frame that the last one ended with; then comes another cut."""
    sampler = ClipSampler([numbered("a", 40), numbered("bb", 31)], 3)
    links = [sampler.link(100, done, batch=3, frames=5, crop=32, chain=12) for done in range(8)]
    begun = 0
    for sample in range(3):
        for before, after in pairwise(links):
            first, last = after.clip[sample, 0], before.clip[sample, -1]
            if after.begins[sample]:
                begun += 1
                continue
            assert torch.equal(first, last)
            assert after.quality[sample] == before.quality[sample]
            times = after.clip[sample].mean((1, 2, 3))
            steps = times.diff()
            assert (steps > 0).all() or (steps < 0).all()
    assert (
        begun == 7
    )  # each of 8 x 3 samples is a third of a chain, and all begin in the first step
    assert links[0].begins.all()
    assert {int(link.begins.sum()) for link in links[1:]} == {1}, "chains begin in turn"
    assert len({float(q) // (64 / 3) for q in links[0].quality}) == 3, "the whole range"


def test_links_depend_on_seed_and_step_alone():
    sampler = ClipSampler([numbered("a", 40)], 3)
    settings = {"batch": 2, "frames": 3, "crop": 32, "chain": 4}
    one, again = (sampler.link(9, 5, **settings) for _ in range(2))
    for value, same in zip(one, again, strict=True):
        assert value is same is None or torch.equal(value, same)
    other = ClipSampler([numbered("a", 40)], 4).link(9, 5, **settings)
    assert not torch.equal(one.clip, other.clip)
    with pytest.raises(ConfigError, match="no clip has 42 frames"):
        sampler.link(9, 5, batch=1, frames=42, crop=32, chain=41)


def numbered(name: str, frames: int) -> CachedClip:
    """A clip whose frames get brighter one by one."""
    form = VideoFormat(48, 40, Fraction(25))
    planes = np.random.default_rng(1).integers(60, 90, form.frame_bytes)[None].repeat(frames, 0)
    planes = planes + 2 * np.arange(frames)[:, None]
    return CachedClip(name, planes.astype(np.uint8), form)
