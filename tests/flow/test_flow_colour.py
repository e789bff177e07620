"""Colours tell direction and length, as the paper's figure does."""

import numpy as np
import pytest
from compare import assert_close

from tinyvid.errors import UserError
from tinyvid.flow import colours
from tinyvid.flow.colour import wheel


def test_the_wheel():
    hues = wheel()
    assert hues.shape == (55, 3)
    corners = {0: "100", 15: "110", 21: "010", 25: "011", 36: "001", 49: "101"}
    for at, rgb in corners.items():
        assert_close(hues[at], np.array([float(c) for c in rgb]))
    assert_close(hues[5], np.array([1, 1 / 3, 0]))
    assert_close(hues[52], np.array([1, 0, 1 / 2]))


def one(dx, dy, full=10.0):
    return colours(np.array([dx, dy], np.float32).reshape(2, 1, 1), full)[0, 0].tolist()


def test_directions():
    assert one(0, 0) == [255, 255, 255]
    assert one(10, 0) == [255, 0, 0]  # to the right: red
    assert one(5, 0) == [255, 127, 127]
    assert one(20, 0) == [191, 0, 0]  # longer than full: darker
    red, green, blue = one(0, 10)  # down: yellow
    assert min(red, green) > 220
    assert blue == 0
    red, green, blue = one(-10, 0)  # to the left: cyan
    assert red == 0
    assert min(green, blue) > 120
    red, green, blue = one(0, -10)  # up: violet
    assert blue == 255
    assert red > green


def test_the_longest_has_full_colour_by_default():
    flow = np.zeros((2, 1, 3))
    flow[0, 0] = (3, 1.5, 0)
    assert colours(flow)[0].tolist() == [[255, 0, 0], [255, 127, 127], [255, 255, 255]]
    assert (colours(np.zeros((2, 4, 5))) == 255).all()
    assert colours(np.zeros((2, 0, 5))).shape == (0, 5, 3)


def test_unknown_is_black_and_does_not_count():
    flow = np.zeros((2, 1, 4), np.float32)
    flow[0, 0] = (2, np.nan, 1e10, np.inf)
    picture = colours(flow)
    assert picture.dtype == np.uint8
    assert picture[0].tolist() == [[255, 0, 0], [0, 0, 0], [0, 0, 0], [0, 0, 0]]


def test_what_is_no_flow():
    with pytest.raises(UserError, match=r"2 H W, not \(3, 4, 4\)"):
        colours(np.zeros((3, 4, 4)))
    with pytest.raises(UserError, match="full=0"):
        colours(np.zeros((2, 4, 4)), 0)
