"""Moving pictures: their frames, what is bright in them, and which way they move."""

import numpy as np
import pytest
from compare import assert_close
from PIL import Image

from tinyvid.reproduce.pictures import (
    GAP,
    PAUSE,
    filter_frames,
    flow_frames,
    heat,
    save_moving,
    still,
)


def test_a_moving_picture_has_its_frames_and_a_still(tmp_path):
    frames = np.zeros((6, 32, 48, 3), np.uint8)
    frames[np.arange(6), :, np.arange(6) * 8] = 255  # a bar moves to the right
    assert save_moving(frames, tmp_path, "bar", 125) == "bar"
    with Image.open(tmp_path / "bar.webp") as picture:
        assert picture.n_frames == 6
        assert picture.size == (4 * 48, 4 * 32)  # enlarged to 128 pixels at least
        durations, middles = [], []
        for i in range(6):
            picture.seek(i)
            row = np.asarray(picture.convert("L"))[64].astype(float)
            middles.append((row * np.arange(len(row))).sum() / row.sum())
            durations.append(picture.info["duration"])
    assert durations == [125] * 5 + [125 + PAUSE]
    assert_close(np.array(middles), 4 * 8.0 * np.arange(6) + 1.5, atol=2.0)
    with Image.open(tmp_path / "bar-still.webp") as picture:
        assert picture.n_frames == 1
        assert picture.size == (8 * 48 + GAP, 8 * 32 + GAP)


def test_a_still_has_the_first_and_the_last_frame():
    frames = np.arange(9, dtype=np.uint8)[:, None, None, None].repeat(3, 3)
    line = [128, 128, 128, 128]
    drawn = still(frames)[..., 0].tolist()
    assert drawn == [[0, 128, 128, 3], line, line, [5, 128, 128, 8]]
    assert (still(frames[:1])[::3, ::3] == 0).all()


def test_heat_is_bright_where_the_saliency_is():
    frames = np.full((2, 8, 8, 3), 60, np.uint8)
    saliency = np.zeros((2, 8, 8))
    saliency[1, 2, 3] = 1
    drawn = heat(frames, saliency)
    assert drawn.dtype == np.uint8
    assert drawn[1, 2, 3].min() > 150
    drawn[1, 2, 3] = 45
    assert_close(drawn, np.full((2, 8, 8, 3), 45, np.uint8))
    assert_close(heat(frames, np.zeros((2, 8, 8))), drawn)


def test_filters_are_tiles_scaled_one_by_one():
    weights = np.zeros((3, 3, 2, 3, 3))
    weights[0, 0, 0, 1, 1] = 5.0  # red in the middle of the first frame
    weights[1, 2, 1, 0, 0] = -0.1  # no blue in a corner of the second
    drawn = filter_frames(weights, columns=2)
    assert drawn.shape == (2, 50, 50, 3)
    assert drawn[0, 12, 12].tolist() == [255, 128, 128]
    assert drawn[1, 12, 12].tolist() == [128, 128, 128]
    assert drawn[1, 4, 26 + 4].tolist() == [128, 128, 0]
    assert (drawn[:, 26:] == 128).all()


def test_what_moves_to_the_right_is_red():
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 255, (4, 5)).repeat(8, 0).repeat(8, 1)
    frames = np.stack([texture[:, 8 - t : 40 - t] for t in range(4)])
    drawn = flow_frames(frames[..., None].repeat(3, 3).astype(np.uint8))
    assert drawn.shape == (4, 32, 32, 3)
    red, green, blue = drawn[0, 8:24, 8:24].reshape(-1, 3).mean(axis=0)
    assert red > green + 60
    assert red > blue + 60
    assert_close(drawn[3], drawn[2])
    assert (flow_frames(drawn[:1]) == 255).all()


@pytest.mark.parametrize("shape", [(1, 16, 16, 3), (3, 130, 200, 3)])
def test_odd_sizes(tmp_path, shape):
    save_moving(np.zeros(shape, np.uint8), tmp_path, "x", 1)
    with Image.open(tmp_path / "x.webp") as picture:
        assert min(picture.size) >= 128
