from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from codec.errors import VideoError
from codec.video.format import VideoFormat, parse_fps

GOOD = VideoFormat(416, 240, Fraction(30000, 1001))


@pytest.mark.parametrize(
    ("size", "chroma", "shape"),
    [
        ((416, 240), "420", (120, 208)),
        ((417, 241), "420", (121, 209)),
        ((1, 1), "420", (1, 1)),
        ((417, 241), "444", (241, 417)),
        ((417, 241), "rgb", (241, 417)),
    ],
)
def test_chroma_planes_round_up(size, chroma, shape):
    format = VideoFormat(*size, 25, chroma)
    assert format.plane_shapes() == ((size[1], size[0]), shape, shape)


def test_frame_bytes_and_types():
    assert GOOD.frame_bytes == 416 * 240 * 3 // 2
    assert replace(GOOD, bit_depth=10).frame_bytes == 416 * 240 * 3
    assert replace(GOOD, chroma="444").frame_bytes == 416 * 240 * 3
    assert (GOOD.dtype, GOOD.max_value) == (np.uint8, 255)
    assert replace(GOOD, bit_depth=10).dtype == np.uint16
    assert replace(GOOD, bit_depth=10).max_value == 1023
    assert replace(GOOD, bit_depth=10).pix_fmt == "yuv420p10le"


def test_rgb_has_one_meaning():
    format = VideoFormat(2, 2, 25, "rgb", 8, "bt601", "limited")
    assert (format.matrix, format.range) == ("bt709", "full")
    assert format == VideoFormat(2, 2, 25, "rgb", 8, "bt709", "full")


@pytest.mark.parametrize(
    "change",
    [
        {"width": 0},
        {"height": -3},
        {"width": 16385},
        {"width": 2.5},
        {"width": True},
        {"fps": 0},
        {"fps": "fast"},
        {"fps": float("nan")},
        {"fps": 100000},
        {"chroma": "422"},
        {"bit_depth": 12},
        {"matrix": "bt2020"},
        {"range": "tv"},
    ],
)
def test_wrong_values_are_refused(change):
    with pytest.raises(VideoError) as caught:
        replace(GOOD, **change)
    assert "\n" not in str(caught.value)


def test_check_frame():
    planes = tuple(np.zeros(shape, np.uint8) for shape in GOOD.plane_shapes())
    GOOD.check_frame(planes)
    for wrong in (planes[:2], planes[::-1], tuple(p.astype(np.uint16) for p in planes)):
        with pytest.raises(VideoError):
            GOOD.check_frame(wrong)


def test_parse_fps():
    assert parse_fps("30000/1001") == Fraction(30000, 1001)
    assert parse_fps(29.97) == Fraction(2997, 100)
    assert parse_fps(25) == 25
