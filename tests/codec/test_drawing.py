"""Colours of motion and of bits."""

import numpy as np
import pytest

from codec.drawing import colour_wheel, flow_colours, heat, over_pixels


def test_colours_of_motion():
    flow = np.zeros((2, 1, 3))
    flow[0, 0, 1], flow[0, 0, 2] = 5.0, -5.0
    still, right, left = flow_colours(flow)[0]
    assert still == pytest.approx([1, 1, 1])
    assert right == pytest.approx([1, 0, 0])  # hue 0: to the right
    assert left == pytest.approx([0, 1, 1])  # the opposite hue


def test_the_wheel_has_the_colours_of_its_directions():
    wheel = colour_wheel(65)
    assert wheel[32, 32] == pytest.approx([1, 1, 1])
    assert wheel[32, 64] == pytest.approx([1, 0, 0])
    assert wheel[32, 0] == pytest.approx([0, 1, 1])
    assert wheel[0, 0] == pytest.approx([1, 1, 1])  # outside of the disc


@pytest.mark.parametrize(
    ("part", "places", "step"), [("motion", (4, 5), 16), ("motion_hyper", (1, 2), 64)]
)
def test_bits_lie_where_their_place_is(part, places, step):
    bits = np.zeros(places)
    bits[0, 1] = 512.0
    spread = over_pixels(bits, (50, 72), part)
    assert spread.shape == (50, 72)
    inside = spread[: min(step, 50), step : min(2 * step, 72)]
    assert np.all(inside == 512.0 / step**2)
    assert spread.sum() == pytest.approx(inside.sum())


@pytest.mark.parametrize(("part", "places"), [("residual", (3, 2)), ("residual_hyper", (1, 1))])
def test_a_narrow_picture_is_covered(part, places):
    step = 64 if part.endswith("_hyper") else 16
    spread = over_pixels(np.ones(places), (33, 17), part)
    assert spread.shape == (33, 17) and np.all(spread == 1 / step**2)


def test_more_bits_are_brighter():
    colours = heat(np.array([[0.0, 1.0, 2.0, 4.0]]), top=2.0)[0]
    luma = colours @ [0.299, 0.587, 0.114]
    assert luma[0] < luma[1] < luma[2] == luma[3]
    assert heat(np.zeros((2, 2)))[0, 0] == pytest.approx(colours[0])
