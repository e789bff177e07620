"""The synthetic set: what moves is the label, and no picture gives it away."""

import numpy as np
import pytest
from compare import assert_close
from video_files import av

from tinyvid.data import VERBS, open_data, probe, read_frames, verb_video, write_verbs
from tinyvid.data import verbs as module
from tinyvid.errors import UserError

PAIRS = [
    ("move_left", "move_right"),
    ("move_up", "move_down"),
    ("turn_clockwise", "turn_counter_clockwise"),
    ("grow", "shrink"),
]


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("index", [0, 1, 2, 17])
def test_one_label_backwards_is_the_other_to_the_bit(pair, index):
    one, other = (verb_video(5, index, label, frames=9, size=32) for label in pair)
    assert_close(one[::-1], other)
    assert (one != other).any()


@pytest.mark.parametrize("pair", PAIRS)
def test_windows_are_reversed_too(pair):
    one = verb_video(0, 3, pair[0], frames=16, size=32, window=(0.0, 0.25))
    other = verb_video(0, 3, pair[1], frames=16, size=32, window=(0.75, 1.0))
    assert_close(one[::-1], other)


def test_a_video_depends_on_seed_index_and_label_alone():
    first = verb_video(1, 2, "grow")
    assert (first.shape, first.dtype) == ((20, 64, 64, 3), np.uint8)
    assert_close(verb_video(1, 2, "grow"), first)
    for other in (verb_video(2, 2, "grow"), verb_video(1, 3, "grow")):
        assert (other != first).mean() > 0.5
    assert_close(verb_video(1, 2, "grow", only=[7, 3, 3]), first[[7, 3, 3]])


@pytest.fixture
def silhouette(monkeypatch):
    """Videos as masks (T, H, W): white shapes on black."""
    black, white = np.zeros((256, 3), np.uint8), np.full((256, 3), 255, np.uint8)
    monkeypatch.setattr(module, "_palettes", lambda rng: (black, white))
    return lambda *args, **kw: verb_video(*args, **kw)[..., 0] / 255.0


def measures(mask):
    """Area, centre (across, down), and the harmonics of the outline about the centre."""
    y, x = np.mgrid[: mask.shape[0], : mask.shape[1]] + 0.5
    area = mask.sum()
    across, down = (mask * x).sum() / area, (mask * y).sum() / area
    z = (x - across) + 1j * (y - down)
    return area, across, down, np.array([(mask * z**k).sum() for k in range(2, 7)])


@pytest.mark.parametrize("label", VERBS)
@pytest.mark.parametrize("index", range(6))
def test_the_shape_does_what_its_label_says(silhouette, label, index):
    # a large picture: the whole shape is in sight in the middle half of the action
    masks = silhouette(3, index, label, frames=21, size=128)
    found = [measures(m) for m in masks[8:13]]
    areas, across, down = (np.array([f[i] for f in found]) for i in range(3))
    harmonics = np.array([f[3] for f in found])
    whole = not (masks[8:13, [0, -1]].any() or masks[8:13, :, [0, -1]].any())
    assert whole
    steps = {"move_left": (-1, 0), "move_right": (1, 0), "move_up": (0, -1), "move_down": (0, 1)}
    want = np.array(steps.get(label, (0, 0)))
    moved = np.array([across[-1] - across[0], down[-1] - down[0]]) / 4  # pixels a frame
    if want.any():
        assert 0.25 * 128 / 20 < moved @ want < 0.55 * 128 / 20
        assert abs(moved[::-1] @ want) < 0.05
    growth = {"grow": 1, "shrink": -1}.get(label, 0)
    if growth:
        assert (np.diff(areas) * growth > 0).all()
    elif not label.startswith("turn"):
        assert np.ptp(areas) < 0.02 * areas.mean()
    turn = {"turn_clockwise": 1, "turn_counter_clockwise": -1}.get(label, 0)
    if turn:
        k = int(np.abs(harmonics).mean(0).argmax())  # the clearest symmetry, k + 2 fold
        angle = np.diff(np.unwrap(np.angle(harmonics[:, k]))) / (k + 2)  # y points down
        assert (angle * turn > 0).all()
        assert np.deg2rad(90) / 20 * 0.8 < np.abs(angle).mean() < np.deg2rad(198) / 20 * 1.2


def test_the_window_says_when(silhouette):
    for label, sign in (("grow", 1), ("shrink", -1)):
        areas = silhouette(0, 3, label, frames=21, window=(0.5, 0.75)).sum((1, 2))
        assert_close(areas[:11], np.full(11, areas[0]))
        assert (sign * np.diff(areas[10:16]) > 0).all()
        assert_close(areas[15:], np.full(6, areas[-1]))


@pytest.mark.parametrize("window", [(0.0, 1.0), (0.25, 0.75)])
def test_a_random_frame_has_the_same_distribution_under_every_label(window):
    """Compare all coordinates jointly, as a two-sample test between labels would see them."""
    frames, draws = 20, 1000
    paths = {"across": (10, 40), "down": (5, 50), "angle": (0, 3), "size": (6, 20)}
    pick = np.random.default_rng(1)
    samples = {}
    for number, label in enumerate(VERBS):
        found = []
        for i in range(draws):
            poses = module._poses(np.random.default_rng((number, i)), paths, label, frames, window)
            t = pick.integers(frames)
            t = frames - 1 - t if module._is_backwards(label) else t
            found.append([poses[name][t] for name in module.COORDINATES])
        samples[label] = np.array(found)
    grid = [np.linspace(*paths[name], 7)[1:-1] for name in module.COORDINATES]
    for label in VERBS:
        for i in range(4):
            for j in range(4):  # joint distribution functions of any two coordinates
                ours, theirs = (
                    (
                        (s[:, i, None, None] <= grid[i][:, None]) & (s[:, j, None, None] <= grid[j])
                    ).mean(0)
                    for s in (samples[label], samples["move_left"])
                )
                assert (
                    np.abs(ours - theirs).max() < 0.07
                )  # 4.4 standard deviations: 0.5 * (2 / 2000) ** 0.5 each


def test_a_linear_look_at_single_frames_is_near_chance_and_at_differences_is_not():
    def examples(split, per_class):
        videos = open_data("verbs", split=split, per_class=per_class, frames=6, size=16)
        rng = np.random.default_rng(0)
        frame, change, labels = [], [], []
        for video in videos.videos:
            clip = videos.read(video).astype(float) / 255
            frame.append(clip[rng.integers(6)].ravel())
            grey = clip.mean(-1)
            gy, gx = np.gradient(grey, axis=(1, 2))
            gt = np.gradient(grey, axis=0)
            y, x = np.mgrid[:16, :16] - 7.5
            # the brightness constancy equation's moments: shift, turn and growth
            flows = [-(gt * g).mean((1, 2)) for g in (gx, gy, x * gy - y * gx, x * gx + y * gy)]
            change.append(np.mean(flows, axis=1))
            labels.append(video.label)
        return np.array(frame), np.array(change), np.array(labels)

    train, test = examples("train", 60), examples("val", 40)
    hits = []
    for seen in (0, 1):
        x, z = (np.c_[d[seen], np.ones(len(d[seen]))] for d in (train, test))
        scale = x.std(0) + 1e-9
        x, z = x / scale, z / scale
        weights = np.linalg.solve(x.T @ x + 5 * np.eye(x.shape[1]), x.T @ np.eye(8)[train[2]])
        hits.append((np.argmax(z @ weights, 1) == test[2]).mean())
    assert hits[0] < 0.19  # chance is 0.125, one standard deviation 0.018
    assert hits[1] > 0.3


def test_the_set():
    videos = open_data("verbs", per_class=3, frames=12, size=32, fps=6, split="val")
    assert videos.classes == list(VERBS)
    assert videos.counts() == dict.fromkeys(VERBS, 3)
    assert len({v.name for v in videos.videos}) == len({v.group for v in videos.videos}) == 24
    assert videos.videos[9].name == "verbs/val/000009"
    info = videos.probe(videos.videos[0])
    assert (info.frames, info.fps, info.height, info.width, info.seconds) == (12, 6, 32, 32, 2.0)
    video = videos.videos[9]
    frames = videos.read(video)
    assert_close(videos.read(video, np.array([3, 1])), frames[[3, 1]])
    assert videos.read(video, short_side=24).shape == (12, 24, 24, 3)
    assert_close(videos.subset([9]).read(video), frames)
    # other splits and seeds hold other videos; labels do not choose what they look like
    for other in ({"split": "train"}, {"split": "val", "seed": 1}):
        twin = open_data("verbs", per_class=3, frames=12, size=32, **other)
        assert (twin.read(twin.videos[9]) != frames).mean() > 0.5


def test_some_classes_only():
    videos = open_data("verbs", classes=["grow", "shrink"], per_class=2, frames=5, size=16)
    assert videos.counts() == {"grow": 2, "shrink": 2}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["grwo"]}, "Did you mean 'grow'"),
        ({"classes": []}, "at least one class"),
        ({"split": "training"}, "no split 'training'"),
        ({"per_class": 0}, "per_class=0"),
        ({"frames": 1}, "at least 2 frames"),
        ({"window": (0.5, 0.5)}, "window must be"),
        ({"seed": -1}, "negative"),
        ({"per_class": "a"}, "per_class must be a whole number, not 'a'"),
        ({"per_class": 2.0}, r"per_class must be a whole number, not 2\.0"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"frames": "8"}, "frames must be a whole number, not '8'"),
        ({"size": [32, 32]}, r"size must be a whole number, not \[32, 32\]"),
        ({"fps": "a"}, "fps must be a number above 0, not 'a'"),
        ({"fps": 0}, "fps must be a number above 0, not 0"),
        ({"window": 0.5}, r"window must be two rising shares of the time, 0 to 1, not 0\.5"),
        ({"window": ["a", "b"]}, "window must be"),
        ({"window": {"start": 0, "end": 1}}, "window must be"),
        ({"classes": "grow"}, "classes must be a list of verbs, not 'grow'"),
        ({"classes": 3}, "classes must be a list of verbs, not 3"),
        ({"classes": [3]}, "no verb '3'"),
        ({"split": 3}, "no split 3"),
        ({"sizes": 3}, "Did you mean 'size'"),
    ],
)
def test_impossible_sets(options, message):
    with pytest.raises(UserError, match=message):
        open_data("verbs", **options)
    with pytest.raises(UserError, match="Did you mean 'grow'"):
        verb_video(0, 0, "grows")


@pytest.mark.skipif("libx264" not in av.codecs_available, reason="needs an H.264 encoder")
def test_written_verbs_read_back(tmp_path):
    folder = write_verbs(tmp_path / "verbs", 1, seed=4, frames=6, size=32)
    videos = open_data(folder)
    assert videos.classes == sorted(VERBS)
    assert videos.counts() == dict.fromkeys(VERBS, 1)
    file = folder / "move_left" / "000000.mp4"
    assert probe(file).frames == 6
    wrong = np.abs(read_frames(file).astype(int) - verb_video(4, 0, "move_left", frames=6, size=32))
    assert wrong.mean() < 25  # colour is stored at half the resolution
