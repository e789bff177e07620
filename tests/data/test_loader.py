"""Batches: complete, repeatable whatever the number of workers, and nothing left running."""

import dataclasses
import gc
import threading
import time

import numpy as np
import pytest
from compare import assert_close
from video_files import number_of, numbered, write_video

from tinyvid.data import (
    Augment,
    ClipLoader,
    ClipSpec,
    VideoError,
    VideoInfo,
    VideoSet,
    open_data,
    uniform_clips,
)
from tinyvid.data.memory import FrameMemory
from tinyvid.data.sets import Video
from tinyvid.errors import UserError

SPEC = ClipSpec(frames=4, stride=2, size=(24, 24))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    root = tmp_path_factory.mktemp("loader")
    for i in range(7):
        path = root / "ab"[i % 2] / f"{i}.mp4"
        path.parent.mkdir(exist_ok=True)
        write_video(path, numbered(10 + 2 * i, 24, 32))
    return open_data(root)


@pytest.fixture(autouse=True)
def no_thread_is_left():
    before = set(threading.enumerate())
    yield
    gc.collect()
    left = {t for t in threading.enumerate() if t.is_alive()} - before
    assert not left, f"still running: {left}"


def batches(loader, epoch=0):
    found = list(loader.epoch(epoch))
    assert len(found) == len(loader)
    return found


def assert_same(one, other):
    for a, b in zip(one, other, strict=True):
        for name in ("clips", "labels", "videos", "starts", "clip"):
            assert_close(getattr(a, name), getattr(b, name))


def test_test_batches_hold_the_uniform_clips_in_order(files):
    loader = ClipLoader(files, SPEC, batch_size=5, train=False, clips_per_video=3)
    found = batches(loader)
    assert [len(b) for b in found] == [5, 5, 5, 5, 1]
    videos = np.concatenate([b.videos for b in found])
    assert_close(videos, np.repeat(np.arange(7), 3))
    assert_close(np.concatenate([b.clip for b in found]), np.tile(np.arange(3), 7))
    labels = np.array([v.label for v in files.videos])
    assert_close(np.concatenate([b.labels for b in found]), labels[videos])
    starts = np.concatenate([b.starts for b in found])
    frames = np.concatenate([b.clips.transpose(0, 2, 3, 4, 1) for b in found])
    assert frames.shape == (21, 4, 24, 24, 3)
    for i, video in enumerate(files.videos):
        for j, clip in enumerate(uniform_clips(SPEC, files.probe(video), 3)):
            assert starts[3 * i + j] == clip.start
            want = files.read(video, clip.indices, 24)[:, :, 4:28]
            assert_close(frames[3 * i + j], want)


def test_clips_are_channels_last_in_memory(files):
    for batch in ClipLoader(files, SPEC, batch_size=4, train=True).epoch(0):
        assert batch.clips.dtype == np.uint8
        assert batch.clips.shape[1:] == (3, 4, 24, 24)
        assert batch.clips.transpose(0, 2, 3, 4, 1).flags.c_contiguous
        kinds = (batch.labels.dtype, batch.videos.dtype, batch.starts.dtype, batch.clip.dtype)
        assert kinds == (np.int64, np.int64, np.float64, np.int64)


def test_three_crops_of_each_moment(files):
    loader = ClipLoader(files, SPEC, batch_size=6, train=False, clips_per_video=2, crops=3)
    first = batches(loader)[0]
    assert first.clip.tolist() == [0, 1, 2, 3, 4, 5]
    assert first.videos.tolist() == [0] * 6
    clip = uniform_clips(SPEC, files.probe(files.videos[0]), 2)[1]
    whole = files.read(files.videos[0], clip.indices, 24)
    for crop, left in enumerate((0, 4, 8)):
        got = first.clips[3 + crop].transpose(1, 2, 3, 0)
        assert_close(got, whole[:, :, left : left + 24])


AUGMENT = Augment(
    flip=0.5, scale=(0.5, 1.0), shift=0.1, rotate=8, brightness=0.3, saturation=0.3, speed=0.3
)


@pytest.mark.parametrize("train", [True, False])
def test_workers_change_nothing(files, train):
    def load(workers, prefetch=2, epoch=3):
        loader = ClipLoader(
            files, SPEC, batch_size=3, train=train, clips_per_video=2, seed=9,
            workers=workers, prefetch=prefetch, augment=AUGMENT,
        )  # fmt: skip
        return batches(loader, epoch)

    want = load(0)
    for workers, prefetch in ((1, 1), (2, 2), (3, 5)):
        assert_same(load(workers, prefetch), want)


def test_epochs_and_seeds_differ(files):
    def clips(seed, epoch):
        loader = ClipLoader(files, SPEC, batch_size=7, train=True, seed=seed)
        return batches(loader, epoch)[0]

    first = clips(0, 0)
    assert_same([clips(0, 0)], [first])
    for other in (clips(0, 1), clips(1, 0)):
        assert sorted(other.videos) == sorted(first.videos) == list(range(7))
        assert (other.videos != first.videos).any()
        assert set(zip(other.videos, other.starts)) != set(zip(first.videos, first.starts))  # noqa: B905


def test_training_sees_each_video_as_often_as_asked(files):
    loader = ClipLoader(files, SPEC, batch_size=4, train=True, clips_per_video=3)
    found = batches(loader)
    pairs = np.concatenate([np.stack([b.videos, b.clip], 1) for b in found])
    assert sorted(map(tuple, pairs.tolist())) == [(v, c) for v in range(7) for c in range(3)]
    assert (np.diff(pairs[:, 0]) < 0).any()


def test_the_last_batch_can_be_dropped(files):
    loader = ClipLoader(files, SPEC, batch_size=4, train=True, drop_last=True)
    assert [len(b) for b in batches(loader)] == [4]


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [
        (7, 3, [3, 4]),
        (7, 2, [2, 2, 3]),
        (7, 4, [4, 3]),
        (1, 3, [1]),
        (3, 1, [1, 1, 1]),
        (6, 3, [3, 3]),
    ],
)
def test_no_clip_is_left_alone_in_training(files, workers, count, size, sizes):
    """Seven videos in threes: the last one joins the batch before it."""
    some = files.subset(range(count))
    loader = ClipLoader(some, SPEC, batch_size=size, train=True, workers=workers)
    found = batches(loader)
    assert [len(batch) for batch in found] == sizes
    assert sorted(np.concatenate([b.videos for b in found]).tolist()) == list(range(count))


def test_a_lone_last_clip_stays_alone_in_testing_and_is_dropped_if_asked(files):
    tested = ClipLoader(files, SPEC, batch_size=3, train=False)
    assert [len(batch) for batch in batches(tested)] == [3, 3, 1]
    dropping = ClipLoader(files, SPEC, batch_size=3, train=True, drop_last=True)
    assert [len(batch) for batch in batches(dropping)] == [3, 3]


def test_the_cache_gives_the_same_clips(files, tmp_path):
    def load(cache):
        return batches(
            ClipLoader(files, SPEC, batch_size=3, train=True, augment=AUGMENT, cache=cache)
        )

    want = load(None)
    assert_same(load(tmp_path / "cache"), want)
    assert len(list((tmp_path / "cache").glob("*.rgb"))) == 7
    assert_same(load(tmp_path / "cache"), want)


@pytest.mark.parametrize("workers", [0, 2])
def test_videos_kept_in_memory_give_the_same_clips_and_are_read_once(files, workers):
    reads = []

    class Counting(type(files)):
        def read(self, video, frames=None, short_side=None):
            reads.append((video.name, frames is None))
            return super().read(video, frames, short_side)

    def load(memory, train=True):
        loader = ClipLoader(
            watched, SPEC, batch_size=3, train=train, clips_per_video=2, workers=workers,
            augment=AUGMENT, memory=memory,
        )  # fmt: skip
        return [batch for epoch in (0, 1) for batch in batches(loader, epoch)]

    watched = files.subset(range(7))
    watched.__class__ = Counting
    enough = sum(3 * files.probe(v).frames * 24 * 32 for v in files.videos)
    want = load(0)
    assert len(reads) == 28
    reads.clear()
    assert_same(load(enough), want)
    assert sorted(reads) == [(f"{'ab'[i % 2]}/{i}.mp4", True) for i in (0, 2, 4, 6, 1, 3, 5)]
    reads.clear()
    assert_same(load(enough - 1), want)  # not all of them fit: none is kept
    assert len(reads) == 28
    reads.clear()
    load(enough, train=False)
    assert not any(whole for _, whole in reads)


def test_a_video_in_memory_cannot_be_changed_and_a_damaged_one_says_so(files, tmp_path):
    kept = FrameMemory(files, 24)
    with pytest.raises(ValueError, match="read-only"):
        kept.frames(files.videos[0])[:] = 0
    gone = FrameMemory(files, 24)
    missing = dataclasses.replace(files.videos[0], path=str(tmp_path / "gone.mp4"))
    files._infos[missing.path] = files.probe(files.videos[0])
    for _ in range(2):
        with pytest.raises(VideoError, match=r"gone\.mp4: no such file"):
            gone.frames(missing)


def test_short_videos_are_padded_not_dropped(files):
    spec = ClipSpec(frames=12, size=(24, 24), pad_policy="repeat_last")
    for train in (True, False):
        found = batches(ClipLoader(files, spec, batch_size=1, train=train))
        assert sorted(int(b.videos[0]) for b in found) == list(range(7))
        shortest = next(b for b in found if b.videos[0] == 0).clips[0].transpose(1, 2, 3, 0)
        # 10 frames: the last is shown three times (the crop hides the outer bars of the number)
        assert_close(shortest[10], shortest[9])
        assert_close(shortest[11], shortest[9])
    with pytest.raises(UserError, match="longer than"):
        ClipLoader(files, ClipSpec(12, size=(24, 24), pad_policy="error"), batch_size=1, train=True)


def test_synthetic_videos_load_too():
    videos = open_data("verbs", per_class=1, frames=6, size=16)
    loader = ClipLoader(videos, ClipSpec(frames=6, size=(16, 16)), batch_size=8, train=False)
    (batch,) = batches(loader)
    assert batch.labels.tolist() == list(range(8))
    for i, video in enumerate(videos.videos):
        assert_close(batch.clips[i].transpose(1, 2, 3, 0), videos.read(video))


class Watched(VideoSet):
    """Videos made of their index, which says who reads what, and when."""

    def __init__(self, count, fail_at=None, error=None):
        self.classes, self.skipped = ["a"], []
        self.videos = [Video(f"{i}.mp4", 0, f"{i}", f"{i}") for i in range(count)]
        self.fail_at, self.error = fail_at, error
        self.read_so_far, self.readers = 0, set()

    def probe(self, video):
        return VideoInfo.constant_rate(8, 25.0, 24, 24)

    def read(self, video, frames=None, short_side=None):
        self.read_so_far += 1
        self.readers.add(threading.current_thread().name)
        if video.name == self.fail_at:
            raise self.error
        return np.full((len(frames), 24, 24, 3), int(video.name) % 256, np.uint8)


@pytest.mark.parametrize(("train", "clips_per_video"), [(True, 1), (False, 1), (False, 4)])
def test_reading_ahead_is_bounded(train, clips_per_video):
    videos = Watched(100)
    loader = ClipLoader(
        videos, SPEC, batch_size=2, train=train, workers=2, prefetch=3,
        clips_per_video=clips_per_video,
    )  # fmt: skip
    epoch = loader.epoch(0)
    next(epoch)
    deadline = time.monotonic() + 2
    most = (6 if clips_per_video == 1 else 2) + 2 + 1
    while videos.read_so_far < most - 2 and time.monotonic() < deadline:
        time.sleep(0.001)
    time.sleep(0.02)  # whoever would read further now has the time to
    assert most - 2 <= videos.read_so_far <= most
    assert all(name.startswith("tinyvid-clips") for name in videos.readers)
    epoch.close()
    assert videos.read_so_far <= most + 2


@pytest.mark.parametrize("end", ["close", "forget", "exhaust"])
def test_workers_stop_with_the_iterator(end):
    loader = ClipLoader(Watched(50), SPEC, batch_size=2, train=True)
    before = threading.active_count()
    epoch = loader.epoch(0)
    next(epoch)
    assert threading.active_count() > before
    if end == "close":
        epoch.close()
    elif end == "exhaust":
        assert len(list(epoch)) == 24
    else:
        del epoch
        gc.collect()
    assert threading.active_count() == before


def test_an_epoch_that_is_never_begun_starts_no_thread():
    before = threading.active_count()
    epoch = ClipLoader(Watched(5), SPEC, batch_size=2, train=True).epoch(0)
    assert threading.active_count() == before
    del epoch


@pytest.mark.parametrize("workers", [0, 2])
def test_errors_name_the_file(workers):
    broken = VideoError("4.mp4", "has gone bad")
    with pytest.raises(VideoError, match=r"4\.mp4: has gone bad"):
        batches(
            ClipLoader(Watched(9, "4", broken), SPEC, batch_size=2, train=True, workers=workers)
        )
    fault = ZeroDivisionError("oops")
    with pytest.raises(RuntimeError, match=r"4\.mp4: cannot read a clip: oops") as caught:
        batches(ClipLoader(Watched(9, "4", fault), SPEC, batch_size=2, train=False))
    assert caught.value.__cause__ is fault


def test_a_file_that_vanishes_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    path = write_video(tmp_path / "a" / "x.mp4", numbered(8))
    videos = open_data(tmp_path)
    path.unlink()
    with pytest.raises(VideoError, match=r"x\.mp4: no such file"):
        batches(ClipLoader(videos, SPEC, batch_size=1, train=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"clips_per_video": 0}, "clips_per_video"),
        ({"workers": -1}, "workers"),
        ({"prefetch": 0}, "prefetch"),
        ({"seed": -1}, "seed"),
        ({"memory": -1}, "memory"),
        ({"crops": 2}, "crops must be 1"),
        ({"crops": 3}, "in testing, 3"),
    ],
)
def test_impossible_loaders(values, message):
    with pytest.raises(UserError, match=message):
        ClipLoader(Watched(3), SPEC, **{"batch_size": 2, "train": True, **values})
    with pytest.raises(UserError, match="no videos"):
        ClipLoader(Watched(0), SPEC, batch_size=2, train=True)


def test_gestures_by_time(shared_data):
    videos = open_data(shared_data / "gestures").subset([0, 13, 26])
    spec = ClipSpec(frames=8, fps=5, size=(32, 32), short_side=36)
    loader = ClipLoader(videos, spec, batch_size=6, train=False, clips_per_video=2)
    (batch,) = batches(loader)
    assert batch.clips.shape == (6, 3, 8, 32, 32)
    assert batch.starts[::2].tolist() == [0, 0, 0]
    for i, video in enumerate(videos.videos):
        last = uniform_clips(spec, videos.probe(video), 2)[1].indices[-1]
        assert last == videos.probe(video).frames - 1
        assert batch.clips[2 * i].std() > 20


def test_numbers_survive_the_whole_way(files):
    """Every clip's frames are the frames that its start promises."""
    spec = ClipSpec(frames=3, stride=2, size=(24, 24))
    wide = files.subset([6])
    for batch in ClipLoader(wide, spec, batch_size=1, train=True, clips_per_video=4).epoch(1):
        first = round(float(batch.starts[0]) * 25)
        want = files.read(wide.videos[0], [first, first + 2, first + 4], 24)
        assert [number_of(f) for f in want] == [first, first + 2, first + 4]
        got = batch.clips[0].transpose(1, 2, 3, 0)
        assert any(np.array_equal(got, want[:, :, x : x + 24]) for x in range(9))
