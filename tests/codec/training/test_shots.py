"""Cuts are found where clips were joined, and shots that teach nothing are left out by name."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from codec.config import DataConfig, FilterConfig
from codec.errors import ConfigError
from codec.training.data import CachedClip, ClipSampler, find_clips, load_clips
from codec.training.data.measures import measure
from codec.training.data.shots import Report, Shot, find_cuts, judge
from codec.video import open_writer
from codec.video.format import VideoFormat
from codec.video.synthetic import synthetic_clip, write_synthetic

SIZE = (128, 96)
FORMAT = VideoFormat(*SIZE, Fraction(25))


def planes(kind: str, seed: int, frames: int = 12, form: VideoFormat = FORMAT) -> np.ndarray:
    """Synthetic frames as they are cached, uint8 [frames, bytes]."""
    clip = synthetic_clip(kind, *SIZE, frames, seed=seed)
    rows = [np.concatenate([plane.ravel() for plane in frame]) for frame in clip.frames(form)]
    return np.stack(rows).view(np.uint8)


def judged(rows: np.ndarray, **limits):
    return judge(measure(rows, FORMAT), FilterConfig(**limits))


@pytest.fixture(scope="module")
def scenes() -> list[np.ndarray]:
    return [planes(kind, seed) for kind, seed in (("pan", 1), ("zoom", 4), ("layers", 7))]


def test_clips_are_cut_where_they_were_joined(scenes):
    found = judged(np.concatenate(scenes))
    assert found.cuts == 2
    assert found.shots == (Shot(0, 12), Shot(12, 12), Shot(24, 12))
    assert found.left_out == []


def test_motion_is_no_cut(scenes):
    for kind in ("pan", "zoom", "rotation", "occluder", "layers", "leap"):
        assert judged(planes(kind, 3)).shots == (Shot(0, 12),), kind


@pytest.mark.parametrize("frames", [(6,), (6, 8), (4, 6, 8)])
def test_flashes_are_no_cuts(scenes, frames):
    rows = scenes[0].copy()
    for frame in frames:
        rows[frame] = 255 - (255 - rows[frame]) // 4
    figures = measure(rows, FORMAT)
    assert figures.difference[6] > 30 and figures.histogram[6] > 0.3, "it is like nothing round it"
    assert find_cuts(figures, FilterConfig()) == []


def test_ten_bit_is_measured_in_the_same_codes(scenes):
    deep = replace(FORMAT, bit_depth=10)
    shallow = measure(scenes[1], FORMAT)
    figures = measure(planes("zoom", 4, form=deep), deep)
    for one, other in zip(figures, shallow, strict=True):
        assert np.abs(one - other).max() < 0.5


def test_black_frames_belong_to_no_shot(scenes):
    rows = np.concatenate((np.full_like(scenes[0][:3], 16), scenes[0]))
    found = judged(rows)
    assert found.shots == (Shot(3, 12),)
    assert found.left_out == [("black", 3)]
    found = judged(np.concatenate((scenes[0], rows[:3], scenes[1][:3])))
    assert found.shots == (Shot(0, 12),)
    assert found.left_out == [("black", 3), ("short", 3)]


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ([0] * 12, "still"),
        ([0, 1, 2], "short"),
        ([0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7], "repeated frames"),
        ([0, 1, 2, 3, 4, 4, 5, 6, 7, 8, 9, 10], None),
    ],
)
def test_shots_that_teach_nothing_are_left_out(scenes, order, reason):
    found = judged(scenes[0][order])
    assert found.left_out == ([(reason, len(order))] if reason else [])
    assert found.shots == (() if reason else (Shot(0, len(order)),))


def test_limits_are_the_configurations(scenes):
    assert judged(scenes[0][:3], shortest=3).shots == (Shot(0, 3),)
    assert judged(scenes[0][[0] * 12], still=0).shots == (Shot(0, 12),)
    assert judged(np.concatenate(scenes), cut_difference=250).cuts == 0


def test_samples_lie_in_one_shot():
    form = VideoFormat(64, 64, Fraction(25))
    rows = np.full((30, form.frame_bytes), 128, np.uint8)  # grey, and brighter by a code a frame
    rows[:, : 64 * 64] = np.arange(30)[:, None] + 100
    shots = (Shot(0, 7), Shot(7, 3), Shot(12, 8))
    sampler = ClipSampler([CachedClip("a", rows, form, shots=shots)], 1)
    starts = {cut.start for step in range(80) for cut in sampler.draw(step, 2, 5, 64)}
    assert starts == {0, 1, 2, 12, 13, 14, 15}, "every place that a sample fits in, no other"
    chains = [sampler.link(0, done, 1, 3, 64, 6).clip for done in range(30)]
    seen = {round(float(frame.mean()) * 219 + 16) - 100 for clip in chains for frame in clip[0]}
    assert seen == set(range(7)) | set(range(12, 20))
    with pytest.raises(ConfigError, match="no clip has 9 frames"):
        sampler.draw(0, 1, 9, 64)


def write(path, rows: np.ndarray) -> None:
    with open_writer(path, FORMAT) as writer:
        for row in rows:
            luma, half = SIZE[0] * SIZE[1], SIZE[0] * SIZE[1] // 4
            parts = np.split(row, [luma, luma + half])
            shapes = FORMAT.plane_shapes()
            writer.write(tuple(p.reshape(s) for p, s in zip(parts, shapes, strict=True)))


def test_what_is_left_out_is_counted_and_said(tmp_path, scenes):
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "joined.y4m", np.concatenate(scenes[:2]))
    write(folder / "still.y4m", scenes[0][[0] * 12])
    (folder / "broken.mp4").write_text("no video")
    data = DataConfig(paths=(str(folder),), holdout=0)
    for _ in range(2):  # measured, and from the cache
        clips = load_clips(data, tmp_path / "cache")
        assert [clip.name for clip in clips.trained] == ["joined.y4m"]
        assert clips.trained[0].shots == (Shot(0, 12), Shot(12, 12))
        record = clips.report.record()
        assert record["cuts"] == 1
        assert record["left_out"] == {
            "cannot be decoded": {"shots": 1, "frames": 0, "clips": ["broken.mp4"]},
            "still": {"shots": 1, "frames": 12, "clips": ["still.y4m"]},
        }
        assert clips.report.line() == (
            "1 cuts; left out: 1 cannot be decoded (broken.mp4), 1 still (still.y4m)"
        )
    (folder / "joined.y4m").unlink()
    with pytest.raises(ConfigError, match="nothing is left to train on, .*1 still.*filter"):
        load_clips(data, tmp_path / "cache")


def test_without_a_filter_clips_are_whole(tmp_path, scenes):
    folder = tmp_path / "set"
    folder.mkdir()
    write(folder / "joined.y4m", np.concatenate(scenes[:2]))
    data = DataConfig(paths=(str(folder),), holdout=0, filter=None)
    (clip,) = load_clips(data, tmp_path / "cache").trained
    assert clip.shots == (Shot(0, 24),) and clip.measures is None
    assert not list((tmp_path / "cache").glob("*.npy"))
    (folder / "broken.mp4").write_text("no video")
    with pytest.raises(ConfigError, match="broken.mp4"):
        load_clips(data, tmp_path / "cache")


def test_held_out_clips_are_left_as_they_are(tmp_path, scenes):
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(4):
        write(folder / f"{number}.y4m", np.concatenate(scenes[:2]))
    data = DataConfig(paths=(str(folder),), holdout=0.5)
    clips = load_clips(data, tmp_path / "cache")
    assert [clip.shots for clip in clips.held_out] == [(Shot(0, 24),)] * 2
    assert [len(clip.shots) for clip in clips.trained] == [2, 2]
    assert clips.report.cuts == 2


def test_measuring_is_done_once(tmp_path, monkeypatch):
    write_synthetic("pan", tmp_path / "a.y4m", 70, 66, 4)
    data = DataConfig(paths=(str(tmp_path / "a.y4m"),))
    (first,) = find_clips(data, tmp_path / "cache")
    monkeypatch.setattr("codec.training.data.measures.measure", None)
    (second,) = find_clips(data, tmp_path / "cache")
    for one, other in zip(first.measures, second.measures, strict=True):
        assert one.any() and np.array_equal(one, other)


def test_a_line_does_not_grow_with_the_set(scenes):
    report, found = Report(), judged(scenes[0][[0] * 12])
    for number in range(50):
        report.add(f"clip{number}", found)
    assert report.line() == "0 cuts; left out: 50 still (clip0, clip1, clip2 and 47 more clips)"
    assert len(report.record()["left_out"]["still"]["clips"]) == 20
