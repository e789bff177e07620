"""Clips by hand: which frames, from when, and what follows the end of a short video."""

import numpy as np
import pytest
from compare import assert_close

from tinyvid.data import ClipSpec, VideoInfo, is_short, random_clip, uniform_clips
from tinyvid.errors import UserError


def video(frames, fps=25.0):
    return VideoInfo.constant_rate(frames, fps, 48, 64)


def indices(spec, info, count=1):
    return [c.indices.tolist() for c in uniform_clips(spec, info, count)]


def test_uniform_clips_reach_from_the_beginning_to_the_end():
    spec = ClipSpec(frames=4, size=(8, 8))
    assert indices(spec, video(10), 4) == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 6, 7], [6, 7, 8, 9]]
    assert indices(spec, video(10), 1) == [[3, 4, 5, 6]]
    assert indices(spec, video(4), 3) == [[0, 1, 2, 3]] * 3
    starts = [clip[0] for clip in indices(spec, video(11), 4)]
    assert starts == [0, 2, 5, 7]  # 0, 7/3, 14/3, 7 to the nearest frame


def test_stride():
    spec = ClipSpec(frames=3, stride=4, size=(8, 8))
    assert indices(spec, video(12), 2) == [[0, 4, 8], [3, 7, 11]]
    clip = uniform_clips(spec, video(12), 2)[1]
    assert (clip.start, clip.indices.dtype) == (3 / 25, np.int64)


def test_fps_takes_the_nearest_frames():
    spec = ClipSpec(frames=4, fps=10, size=(8, 8))
    assert indices(spec, video(30, 30.0), 2) == [[0, 3, 6, 9], [20, 23, 26, 29]]
    assert indices(spec, video(11, 25.0), 1) == [[1, 4, 6, 9]]  # 0.05 + 0, 0.1, 0.2, 0.3 s
    faster = ClipSpec(frames=5, fps=50, size=(8, 8))  # each frame about twice
    assert indices(faster, video(3, 25.0), 1) == [[0, 0, 1, 1, 2]]


def test_fps_follows_the_times_of_a_variable_rate():
    times = np.array([0, 0.1, 0.2, 0.3, 0.4, 0.9, 1.0])
    info = VideoInfo(7, 7.0, 48, 64, 1.0, times=times)
    spec = ClipSpec(frames=5, fps=4, size=(8, 8))
    (clip,) = uniform_clips(spec, info, 1)
    assert clip.indices.tolist() == [0, 2, 4, 5, 6]  # 0, 0.25, 0.5, 0.75, 1.0 s
    assert clip.start == 0


@pytest.mark.parametrize("sampling", [{"stride": 2}, {"fps": 12.5}])
@pytest.mark.parametrize(
    ("policy", "want"),
    [
        ("repeat_last", [0, 2, 4, 4, 4, 4, 4]),
        ("loop", [0, 2, 4, 0, 2, 4, 0]),
        ("reflect", [0, 2, 4, 2, 0, 2, 4]),
    ],
)
def test_short_videos_are_padded_as_named(policy, want, sampling):
    spec = ClipSpec(frames=7, size=(8, 8), pad_policy=policy, **sampling)
    assert is_short(spec, video(5))
    assert indices(spec, video(5), 2) == [want, want]
    clip = random_clip(spec, video(5), np.random.default_rng(0))
    assert clip.indices.tolist() == want
    assert indices(spec, video(1)) == [[0] * 7]


def test_no_padding_without_leave():
    spec = ClipSpec(frames=7, size=(8, 8), pad_policy="error")
    assert not is_short(spec, video(7))
    assert indices(spec, video(7)) == [list(range(7))]
    with pytest.raises(UserError, match=r"7 frames is longer than a video of 6 frames \(0.24 s\)"):
        uniform_clips(spec, video(6), 1)


def test_random_clips_take_every_start_equally_often():
    spec, rng = ClipSpec(frames=4, stride=2, size=(8, 8)), np.random.default_rng(0)
    starts = np.zeros(4, int)
    for _ in range(2000):
        found = random_clip(spec, video(10), rng).indices
        assert (np.diff(found) == 2).all()
        starts[found[0]] += 1
    assert starts.min() > 430


def test_random_clips_by_fps_stay_inside():
    spec, rng = ClipSpec(frames=4, fps=10, size=(8, 8)), np.random.default_rng(0)
    found = np.array([random_clip(spec, video(30, 30.0), rng).indices for _ in range(300)])
    assert (found.min(), found.max()) == (0, 29)
    assert set(np.diff(found).ravel().tolist()) <= {2, 3, 4}


@pytest.mark.parametrize("sampling", [{"stride": 4}, {"fps": 25 / 4}])
def test_speed_changes_the_steps_between_frames(sampling):
    spec, rng = ClipSpec(frames=5, size=(8, 8), **sampling), np.random.default_rng(0)
    lengths = np.array(
        [np.ptp(random_clip(spec, video(60), rng, speed=0.5).indices) for _ in range(400)]
    )
    assert 10 <= lengths.min() < 12 < 22 < lengths.max() <= 25  # 16 / 1.5 to 16 * 1.5, rounded
    assert abs(np.median(lengths) - 16) <= 1
    # a video that holds just one clip is not played past its end
    for _ in range(50):
        clip = random_clip(spec, video(17), rng, speed=0.5)
        assert clip.indices[-1] <= 16
        assert len(np.unique(clip.indices)) == 5


def test_a_video_of_one_frame():
    for spec in (ClipSpec(frames=1, size=(8, 8)), ClipSpec(frames=1, fps=5, size=(8, 8))):
        assert indices(spec, video(1), 2) == [[0], [0]]


def test_the_side_to_scale_to():
    assert ClipSpec(size=(64, 48)).source_side == 64
    assert ClipSpec(size=(64, 48), short_side=80).source_side == 80


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"frames": 0}, "at least 1 frame"),
        ({"stride": 2, "fps": 5.0}, "not both"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"fps": 0.0}, "fps must be more than 0"),
        ({"fps": float("nan")}, "fps must be more than 0"),
        ({"size": (0, 8)}, "size must be"),
        ({"size": (112, 112), "short_side": 100}, "short_side=100 is too small"),
        ({"pad_policy": "repaet_last"}, "Did you mean 'repeat_last'"),
    ],
)
def test_impossible_clips(values, message):
    with pytest.raises(UserError, match=message):
        ClipSpec(**values)
    with pytest.raises(UserError, match="clips per video"):
        uniform_clips(ClipSpec(), video(30), 0)


def test_times_are_those_of_the_first_frame():
    info = video(30, 30.0)
    for clip in uniform_clips(ClipSpec(frames=4, fps=10, size=(8, 8)), info, 3):
        assert_close(np.float64(clip.start), info.times[clip.indices[0]])
