"""Transforms treat every frame of a clip alike, and do what their names say."""

import colorsys

import numpy as np
import pytest
from compare import assert_close

from tinyvid.data import Augment, normalise
from tinyvid.data.transforms import (
    centre_crop,
    colour,
    crop,
    flip,
    random_crop,
    random_resized_crop,
    resize,
    resize_short_side,
    rotate,
    three_crops,
)
from tinyvid.errors import UserError


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def coordinates(height=10, width=14, frames=2):
    """Pixels that say where they are: (row, column, frame)."""
    t, y, x = np.mgrid[:frames, :height, :width]
    return np.stack([y, x, t], axis=-1).astype(np.uint8)


def smooth(height=48, width=64):
    """A still clip of slow waves, which survives interpolation."""
    y, x = np.mgrid[:height, :width]
    waves = [np.sin(y / 7) + np.cos(x / 9), np.cos(y / 8 + x / 11), np.sin(x / 6)]
    picture = np.stack(waves, -1)
    return np.repeat((128 + 50 * picture).astype(np.uint8)[None], 3, axis=0)


def test_normalise(rng):
    frames = rng.integers(0, 256, (2, 3, 5, 7, 3), dtype=np.uint8)  # N T H W C
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
    clips = frames.transpose(0, 4, 1, 2, 3)
    out = normalise(clips, mean, std)
    want = ((frames / 255.0 - mean) / std).transpose(0, 4, 1, 2, 3).astype(np.float32)
    assert_close(out, want, atol=2e-6)
    assert out.transpose(0, 2, 3, 4, 1).flags.c_contiguous
    # the memory order of the input makes no difference
    assert_close(normalise(np.ascontiguousarray(clips), mean, std), out)


@pytest.mark.parametrize(
    ("clips", "mean", "std"),
    [
        (np.zeros((1, 3, 2, 4, 4), np.float32), (0, 0, 0), (1, 1, 1)),
        (np.zeros((3, 2, 4, 4), np.uint8), (0, 0, 0), (1, 1, 1)),
        (np.zeros((1, 1, 2, 4, 4), np.uint8), (0, 0, 0), (1, 1, 1)),
        (np.zeros((1, 3, 2, 4, 4), np.uint8), (0, 0, 0), (1, 1, 0)),
    ],
)
def test_normalise_names_what_does_not_fit(clips, mean, std):
    with pytest.raises(UserError, match="clips"):
        normalise(clips, mean, std)


def test_crops():
    clip = coordinates()
    assert_close(crop(clip, 2, 3, (4, 5)), clip[:, 2:6, 3:8])
    assert_close(centre_crop(clip, (4, 6)), clip[:, 3:7, 4:10])
    left, middle, right = three_crops(clip, (10, 10))
    assert_close(left, clip[:, :, :10])
    assert_close(middle, clip[:, :, 2:12])
    assert_close(right, clip[:, :, 4:])
    upright = clip.transpose(0, 2, 1, 3)
    top, _, bottom = three_crops(upright, (10, 8))
    assert_close(top, upright[:, :10, 1:9])
    assert_close(bottom, upright[:, 4:, 1:9])


def test_a_crop_beyond_the_border_repeats_it():
    clip = coordinates()
    beyond = crop(clip, -2, 11, (5, 6))
    assert beyond[0, :, 0, 0].tolist() == [0, 0, 0, 1, 2]
    assert beyond[0, 0, :, 1].tolist() == [11, 12, 13, 13, 13, 13]


def test_random_crops_reach_every_corner(rng):
    corners = {
        tuple(random_crop(coordinates(), (8, 12), rng)[0, 0, 0, :2].tolist()) for _ in range(200)
    }
    assert corners == {(y, x) for y in range(3) for x in range(3)}
    assert random_crop(coordinates(), (8, 12), rng, shift=0.5).shape == (2, 8, 12, 3)


def test_random_resized_crop_keeps_to_its_share(rng):
    clip = coordinates(100, 140)
    for _ in range(60):
        cut = random_resized_crop(clip, (20, 20), rng, (0.3, 0.5), (0.8, 1.25))
        assert cut.shape == (2, 20, 20, 3)
        height = (float(cut[0, -1, 0, 0]) - float(cut[0, 0, 0, 0])) * 20 / 19
        width = (float(cut[0, 0, -1, 1]) - float(cut[0, 0, 0, 1])) * 20 / 19
        assert 0.27 < height * width / 100**2 < 0.55
        assert 0.75 < width / height < 1.35


def test_resize_averages():
    clip = np.zeros((2, 64, 64, 3), np.uint8)
    clip[:, ::2] = 200
    small = resize(clip, (16, 16))
    assert small.shape == (2, 16, 16, 3)
    assert np.abs(small.astype(int) - 100).max() <= 2
    assert resize(clip, (64, 64)) is clip
    assert resize_short_side(np.zeros((1, 60, 90, 3), np.uint8), 20).shape == (1, 20, 30, 3)


def test_resize_puts_things_where_they_belong():
    small = resize(smooth(48, 64), (24, 32)).astype(float)
    pairs = smooth(48, 64).reshape(3, 24, 2, 32, 2, 3).mean(axis=(2, 4))
    assert np.abs(small - pairs).max() < 4


def test_flip():
    assert flip(coordinates())[0, 0, :, 1].tolist() == list(range(13, -1, -1))


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_rotation_by_right_angles(turns):
    clip = smooth(48, 48)
    assert_close(
        rotate(clip, 90 * turns).astype(int), np.rot90(clip, turns, (1, 2)).astype(int), atol=1
    )


def test_rotation_there_and_back():
    clip = smooth()
    back = rotate(rotate(clip, 15), -15)[:, 12:-12, 16:-16].astype(int)
    assert np.abs(back - clip[:, 12:-12, 16:-16]).max() <= 6
    assert_close(rotate(clip, 0), clip)


def test_brightness_and_contrast():
    clip = smooth()
    assert colour(clip) is clip
    assert_close(colour(clip, 0.5), np.rint(clip * 0.5).astype(np.uint8))
    assert colour(clip, 9.0).max() == 255
    luma = clip.astype(float).mean((0, 1, 2)) @ [0.299, 0.587, 0.114]
    want = np.rint(luma + 0.5 * (clip - luma)).astype(np.uint8)
    assert_close(colour(clip, contrast=0.5), want)


def test_saturation_and_hue():
    clip = smooth()
    grey = colour(clip, saturation=0.0).astype(int)
    luma = clip @ np.array([0.299, 0.587, 0.114])
    assert_close(grey.astype(float), np.repeat(luma[..., None], 3, -1), atol=1.0)
    turned = colour(np.full((1, 1, 1, 3), (200, 80, 80), np.uint8), hue=1 / 3)[0, 0, 0] / 255
    hue = colorsys.rgb_to_hsv(*turned)[0]
    assert min(abs(hue - 1 / 3), abs(hue - 2 / 3)) < 0.1
    assert_close(colour(clip, hue=1.0), colour(clip, hue=0.0, saturation=1.0))
    # all at once is one after the other where nothing is cut off
    mild = (clip // 4 + 96).astype(np.uint8)
    at_once = colour(mild, 1.1, 1.0, 0.7, 0.05).astype(int)
    in_turn = colour(colour(mild, saturation=0.7, hue=0.05), 1.1).astype(int)
    assert np.abs(at_once - in_turn).max() <= 1


EVERYTHING = Augment(
    flip=0.5,
    scale=(0.5, 1.0),
    shift=0.1,
    rotate=10,
    brightness=0.2,
    contrast=0.2,
    saturation=0.2,
    hue=0.05,
)


def test_every_frame_of_a_clip_is_treated_alike():
    still = smooth()
    for seed in range(10):
        out = EVERYTHING(still, (24, 32), np.random.default_rng(seed))
        assert (out.shape, out.dtype) == ((3, 24, 32, 3), np.uint8)
        assert_close(out[1], out[0])
        assert_close(out[2], out[0])


def test_augmentation_is_repeatable_and_random():
    outs = [EVERYTHING(smooth(), (24, 24), np.random.default_rng(s)) for s in (1, 1, 2)]
    assert_close(outs[1], outs[0])
    assert (outs[2] != outs[0]).any()


def test_nothing_is_changed_unless_asked():
    clip = coordinates()
    assert_close(Augment()(clip, (10, 14), np.random.default_rng(0)), clip)
    flipped = [
        bool((Augment(flip=0.5)(clip, (10, 14), np.random.default_rng(s)) != clip).any())
        for s in range(60)
    ]
    assert 15 < sum(flipped) < 45


@pytest.mark.parametrize(
    "values",
    [{"flip": 2}, {"shift": -0.1}, {"hue": 1}, {"scale": (0.9, 0.5)}, {"ratio": (0, 1)}],
)
def test_impossible_augmentation(values):
    with pytest.raises(UserError, match=next(iter(values))):
        Augment(**values)
