"""What an evaluation holds does not grow with the length of a clip."""

import tracemalloc

import pytest

from codec.video.synthetic import write_synthetic
from eval.anchors import make_anchor
from eval.point import PointTask, measure_point
from eval.results import RdPoint
from eval.sequences import find_sequences

WIDTH, HEIGHT = 128, 96
FRAME_BYTES = WIDTH * HEIGHT * 3 // 2


@pytest.mark.parametrize("metrics", [(), ("xpsnr",)], ids=["planes", "filters"])
def test_a_long_clip_needs_no_more_than_a_short_one(metrics, tmp_path):
    write_synthetic("pan", tmp_path / "pan.y4m", WIDTH, HEIGHT, 96)

    def peak(frames: int) -> int:
        """Bytes of Python's and numpy's, planes included, at the most."""
        (sequence,) = find_sequences(tmp_path / "pan.y4m", frames=frames)
        task = PointTask(make_anchor("x264-medium", 32), sequence, 32, 32, metrics)
        tracemalloc.start()
        try:
            point = measure_point(task)
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
            assert isinstance(point, RdPoint), point
            assert len(point.per_frame.bytes) == frames

    peak(2)  # what is imported and cached
    short, long = peak(8), peak(96)
    # the figures of 88 frames, and not one of their pictures more than the few that are in flight
    assert long - short < 4 * FRAME_BYTES
