"""A folder of clips made to fit: the first frames of every clip, as they were."""

import av
import numpy as np
import pytest

from codec.errors import ConfigError, VideoError
from codec.training.data.shorten import _ends, shorten
from codec.training.data.sources import Source, find_sources
from codec.video.reader import open_reader
from codec.video.synthetic import write_synthetic
from lgmc.main import main


def write_clip(path, frames: int, bframes: int, seed: int) -> None:
    """A clip of H.264 with noise in it, so that every frame has its size; B frames reorder it."""
    random = np.random.default_rng(seed)
    with av.open(str(path), "w") as container:
        options = {"bf": str(bframes), "g": "7", "qp": "20"}
        stream = container.add_stream("libx264", rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(frames):
            picture = random.integers(0, 256, (6, 8, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("clips")
    for number, (name, frames, bframes) in enumerate(
        (("a.mp4", 40, 3), ("b.mkv", 23, 0), ("c.mp4", 31, 2))
    ):
        write_clip(root / name, frames, bframes, number)
    return root


def planes(path) -> list:
    with open_reader(path) as reader:
        return [np.concatenate([plane.ravel() for plane in frame]) for frame in reader]


def total(folder) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


@pytest.mark.parametrize("share", [0.9, 0.5, 0.3])
def test_the_first_frames_of_every_clip_bit_for_bit(folder, tmp_path, share):
    size = int(share * total(folder))
    lines = []
    done = shorten(find_sources(folder), tmp_path / "out", size, lines.append)
    assert done.size == total(tmp_path / "out") <= size
    assert done.size > 0.6 * size  # a cut waits for the end of a few reordered frames
    assert (done.clips, done.frames_before, len(lines)) == (3, 94, 3)
    counted = 0
    for path in sorted(folder.iterdir()):
        whole, kept = planes(path), planes(tmp_path / "out" / path.name)
        counted += len(kept)
        assert 2 <= len(kept) <= len(whole)
        for one, other in zip(whole, kept, strict=False):
            np.testing.assert_array_equal(one, other)
    assert counted == done.frames < 94


def test_what_fits_is_kept_whole(folder, tmp_path):
    done = shorten(find_sources(folder), tmp_path / "out", 2 * total(folder))
    assert done.frames == done.frames_before == 94


def test_where_a_clip_may_end():
    assert _ends([0, 1, 2]) == {1, 2, 3}
    assert _ends([0, 3, 1, 2, 6, 4, 5]) == {1, 4, 7}  # I P B B P B B
    assert _ends([0, 2, 1]) == {1, 3}


def test_refusals(folder, tmp_path):
    sources = find_sources(folder)
    with pytest.raises(ConfigError, match="MB do not hold 2 frames of each of 3 clips"):
        shorten(sources, tmp_path / "small", 1000)
    assert not any((tmp_path / "small").iterdir())
    with pytest.raises(ConfigError, match="holds something already"):
        shorten(sources, folder, 10**6)
    with pytest.raises(ConfigError, match="two clips are called a.mp4"):
        shorten([*sources, sources[0]], tmp_path / "twice", 10**6)
    (tmp_path / "no.mp4").write_bytes(b"no video")
    with pytest.raises(VideoError, match="no.mp4 cannot be read"):
        shorten(find_sources(tmp_path / "no.mp4"), tmp_path / "out", 10**6)


def test_nothing_stays_of_what_failed(folder, tmp_path):
    """FFmpeg reads the second clip whatever its name, and knows no container to write it as."""
    (tmp_path / "b.none").write_bytes((folder / "b.mkv").read_bytes())
    sources = [Source("a", folder / "a.mp4"), Source("b", tmp_path / "b.none")]
    with pytest.raises(VideoError, match="cannot be copied"):
        shorten(sources, tmp_path / "out", 10**6)
    assert not any((tmp_path / "out").iterdir())


def test_through_the_command(folder, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["data", "shorten", str(folder), "-o", str(out), "--megabytes", "1"]) == 0
    assert "3 clip(s)" in capsys.readouterr().out
    assert sorted(path.name for path in out.iterdir()) == ["a.mp4", "b.mkv", "c.mp4"]
    assert main(["data", "shorten", str(tmp_path / "none"), "-o", str(out)]) == 1


def test_raw_frames_are_packets_too(tmp_path):
    write_synthetic("pan", tmp_path / "a.y4m", 64, 48, 5)
    size = (tmp_path / "a.y4m").stat().st_size
    done = shorten(find_sources(tmp_path / "a.y4m"), tmp_path / "out", size // 2)
    assert 2 <= done.frames < 5
    assert len(planes(tmp_path / "out" / "a.y4m")) == done.frames
