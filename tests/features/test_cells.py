"""Cells against motions and edges whose direction is known, and a loop over pixels."""

import os

import numpy as np
import pytest
from compare import assert_close

from tinyvid.data import open_data
from tinyvid.data.video import write_video
from tinyvid.errors import UserError
from tinyvid.features import cells
from tinyvid.features.cells import (
    CellSettings,
    VideoCells,
    flow_cells,
    gradient_cells,
    video_cells,
)


@pytest.mark.parametrize("turns", range(8))
def test_a_direction_falls_into_its_bin(turns):
    angle = turns * np.pi / 4  # clockwise on the screen, where y points down
    flow = np.zeros((1, 2, 8, 8))
    flow[0, 0], flow[0, 1] = 3 * np.cos(angle), 3 * np.sin(angle)
    want = np.zeros((1, 1, 1, 9))
    want[..., turns] = 3 * 64
    assert_close(flow_cells(flow, 8), want, atol=1e-9)
    y, x = np.mgrid[:8, :8]
    ramp = (np.cos(angle) * x + np.sin(angle) * y)[None]
    assert_close(gradient_cells(ramp, 8), want[..., :8] / 3, atol=1e-9)


def test_between_two_directions_a_vote_is_shared():
    angle = 7.25 * np.pi / 4  # a quarter of the way from bin 7 to bin 0
    flow = np.zeros((1, 2, 2, 2))
    flow[0, 0], flow[0, 1] = 2 * np.cos(angle), 2 * np.sin(angle)
    want = np.zeros((1, 1, 1, 9))
    want[..., 7], want[..., 0] = 8 * 0.75, 8 * 0.25
    assert_close(flow_cells(flow, 2), want, atol=1e-9)


def test_flow_against_a_loop_over_pixels():
    rng = np.random.default_rng(0)
    flow = rng.normal(size=(2, 2, 11, 13))
    want = np.zeros((2, 2, 3, 9))
    for n, i, j in np.ndindex(2, 8, 12):  # 3 rows and 1 column are left over, evenly
        dx, dy = flow[n, :, 1 + i, j]
        speed = np.hypot(dx, dy)
        if speed < 0.4:
            want[n, i // 4, j // 4, 8] += 1
            continue
        where = np.arctan2(dy, dx) / (np.pi / 4) % 8
        low = int(where)
        want[n, i // 4, j // 4, low % 8] += speed * (1 - (where - low))
        want[n, i // 4, j // 4, (low + 1) % 8] += speed * (where - low)
    assert (want[..., 8] > 0).any()
    assert_close(flow_cells(flow, 4), want, atol=1e-9)


def test_a_clip_starts_near_its_second_and_goes_on_with_the_last():
    found = VideoCells(np.arange(5) / 8, np.arange(5.0).reshape(5, 1, 1, 1))
    assert found.clip(0.26, 2).ravel().tolist() == [2, 3]
    assert found.clip(0.5, 4).ravel().tolist() == [4, 4, 4, 4]


def test_settings_that_cannot_be():
    for wrong in ({"fps": 0}, {"cell": 1}, {"short_side": 31}):
        with pytest.raises(UserError, match="fps must be above 0"):
            CellSettings(**wrong)


@pytest.fixture
def moving(tmp_path):
    """Two videos of a bright square: in one it moves to the right, in the other it rests."""
    for name, step in (("moves", 2), ("rests", 0)):
        pictures = np.full((12, 64, 64, 3), 40, np.uint8)
        for i, picture in enumerate(pictures):
            picture[20:44, 8 + step * i : 32 + step * i] = 220
        (tmp_path / name).mkdir()
        write_video(tmp_path / name / "0.mp4", pictures, fps=8)
    return open_data(tmp_path)


def test_the_cells_of_a_video_say_what_moves(moving):
    moves, rests = (video_cells(moving, v, CellSettings()) for v in moving.videos)
    assert moves.counts.shape == (11, 8, 8, 17)
    assert moves.counts.dtype == np.float32
    assert_close(moves.times, np.arange(11) / 8, atol=1e-6)
    hof = moves.counts[..., 8:].sum(axis=(0, 1, 2))
    assert hof[:8].argmax() == 0  # to the right
    assert hof[0] > 0.8 * hof[:8].sum()
    still = rests.counts[..., 8:].sum(axis=(0, 1, 2))
    assert still[8] == 11 * 64 * 64
    edges = rests.counts[..., :8].sum(axis=(0, 1, 2))
    assert edges[[0, 2, 4, 6]].min() > 3 * edges[[1, 3, 5, 7]].max()  # of an upright square


def test_what_the_cache_has_is_not_computed_again(moving, tmp_path, monkeypatch):
    video, cache, done = moving.videos[0], tmp_path / "cells", []
    compute = cells._compute

    def spy(*args):
        done.append(args)
        return compute(*args)

    monkeypatch.setattr(cells, "_compute", spy)
    first = video_cells(moving, video, CellSettings(), cache)
    second = video_cells(moving, video, CellSettings(), cache)
    assert len(done) == 1
    assert_close(second.counts, first.counts)
    assert_close(second.times, first.times)
    video_cells(moving, video, CellSettings(cell=16), cache)  # another question
    assert len(done) == 2
    entry = max(cache.glob("*.npz"), key=lambda f: f.stat().st_size)
    entry.write_bytes(entry.read_bytes()[:-50])  # cut short
    assert_close(video_cells(moving, video, CellSettings(), cache).counts, first.counts)
    assert len(done) == 3
    os.utime(video.path, (0, 0))  # another video under the name
    video_cells(moving, video, CellSettings(), cache)
    assert len(done) == 4
    assert not list(cache.glob("*.part*"))


def test_a_small_video_is_not_enlarged(tmp_path):
    (tmp_path / "a").mkdir()
    write_video(tmp_path / "a" / "0.mp4", np.full((3, 32, 48, 3), 90, np.uint8), fps=8)
    small = open_data(tmp_path)
    found = video_cells(small, small.videos[0], CellSettings())
    assert found.counts.shape == (2, 8, 12, 17)  # cells of 4 pixels
    assert found.counts[..., 16].max() == 16


def test_a_video_of_one_frame_rests(tmp_path):
    (tmp_path / "a").mkdir()
    write_video(tmp_path / "a" / "0.mp4", np.full((1, 64, 64, 3), 90, np.uint8), fps=8)
    one = open_data(tmp_path)
    found = video_cells(one, one.videos[0], CellSettings())
    assert found.counts.shape == (1, 8, 8, 17)
    assert found.counts[..., 8:16].sum() == 0
