"""A set that keeps its videos gives what it would have read, and reads each once."""

import numpy as np
import pytest
from compare import assert_close

from tinyvid.data import ClipLoader, ClipSpec, open_data
from tinyvid.data.memory import FrameMemory, KeptSet
from tinyvid.data.video import VideoError


def test_kept_videos_are_those_that_would_be_read():
    videos = open_data("verbs", per_class=2, size=24, frames=9)
    kept = KeptSet(videos)
    assert (kept.classes, kept.videos, kept.source) == (videos.classes, videos.videos, "verbs")
    for video in videos.videos[::3]:
        for side in (None, 24, 16):
            chosen = np.array([0, 3, 3, 8])
            assert_close(kept.read(video, chosen, side), videos.read(video, chosen, side))
            assert_close(kept.read(video, None, side), videos.read(video, None, side))
        assert kept.probe(video) is videos.probe(video)


def test_a_video_is_read_once_for_all_loaders(monkeypatch):
    videos = open_data("verbs", per_class=1, size=24, frames=9)
    spec, plain = ClipSpec(frames=4, stride=2, size=(24, 24)), []
    for batch in ClipLoader(videos, spec, batch_size=8, train=True).epoch(1):
        plain.append(batch.clips)
    read, count = type(videos).read, []
    monkeypatch.setattr(type(videos), "read", lambda *args: count.append(1) or read(*args))
    kept = KeptSet(videos)
    for _ in range(3):
        loader = ClipLoader(kept.subset(range(8)), spec, batch_size=8, train=True, workers=2)
        assert_close(next(iter(loader.epoch(1))).clips, plain[0])
    assert len(count) == 8


@pytest.mark.parametrize(
    ("error", "tries"), [(VideoError("a.mp4", "is damaged"), 1), (OSError(24, "too many"), 3)]
)
def test_only_a_damaged_file_is_not_tried_again(error, tries, monkeypatch):
    videos = open_data("verbs", per_class=1, size=24, frames=9)
    asked = []

    def read(*args):
        asked.append(1)
        raise error

    memory = FrameMemory(videos, 24)
    with monkeypatch.context() as patch:
        patch.setattr(type(videos), "read", read)
        for _ in range(3):
            with pytest.raises(type(error)):
                memory.frames(videos.videos[0])
    assert len(asked) == tries
    if tries > 1:
        assert len(memory.frames(videos.videos[0])) == 9
