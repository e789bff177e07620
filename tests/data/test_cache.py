"""The cache on disk: right, whole, safe under two processes, and clear when the disk is full."""

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close
from video_files import numbered, turn_mp4, write_video

from tinyvid.data import VideoError, open_data, probe, read_frames
from tinyvid.data import cache as module
from tinyvid.data.cache import FrameCache
from tinyvid.errors import UserError


@pytest.fixture
def video(tmp_path):
    return turn_mp4(write_video(tmp_path / "a.mp4", numbered(20)), 1)


@pytest.fixture
def cache(tmp_path):
    return FrameCache(tmp_path / "cache")


def files(cache):
    return sorted(p for p in cache.folder.iterdir() if p.is_file())


@pytest.fixture
def decoded(monkeypatch):
    """How often a whole video has been decoded."""
    calls = []
    for name in ("probe", "iter_frames"):
        real = getattr(module, name)
        monkeypatch.setattr(
            module, name, lambda *a, real=real, name=name: calls.append(name) or real(*a)
        )
    return calls


@pytest.mark.parametrize("side", [24, None])
def test_frames_are_those_of_the_file_and_decoded_once(cache, video, decoded, side):
    info = probe(video)
    for _ in range(3):
        assert_close(np.asarray(cache.frames(video, info, side)), read_frames(video, None, side))
    assert decoded == ["iter_frames"]
    frames = cache.frames(video, info, side)
    assert isinstance(frames, np.memmap)
    assert not frames.flags.writeable


def test_scales_do_not_mix(cache, video):
    info = probe(video)
    assert cache.frames(video, info, 24).shape == (20, 32, 24, 3)
    assert cache.frames(video, info, 12).shape == (20, 16, 12, 3)
    assert len(files(cache)) == 2


def test_probes_are_remembered(cache, video, decoded):
    first, again, want = cache.probe(video), cache.probe(video), probe(video)
    assert first == again == want
    assert_close(again.times, want.times)
    assert (again.pts, again.keys) == (want.pts, want.keys)
    assert decoded == ["probe"]
    with pytest.raises(VideoError, match=r"nowhere\.mp4: no such file"):
        cache.probe("nowhere.mp4")


def test_a_changed_video_is_read_again(cache, tmp_path):
    video = write_video(tmp_path / "b.mp4", numbered(5))
    assert cache.probe(video).frames == 5
    write_video(video, numbered(9))
    os.utime(video, ns=(1, 1))
    assert cache.probe(video).frames == 9


def test_bad_videos_leave_nothing(cache, tmp_path):
    bad = tmp_path / "bad.mp4"
    bad.write_bytes(b"x" * 100)
    with pytest.raises(VideoError, match="unreadable"):
        cache.probe(bad)
    assert files(cache) == []


def _empty(entry):
    entry.write_bytes(b"")


def _half(entry):
    entry.write_bytes(entry.read_bytes()[: entry.stat().st_size // 2])


def _noise(entry):
    entry.write_bytes(bytes(range(256)) * 10)


def _longer(entry):
    entry.write_bytes(entry.read_bytes() + b"}")


def _another(entry):
    entry.write_text(json.dumps({"frames": 3}))


@pytest.mark.parametrize("spoil", [_empty, _half, _noise, _longer, _another])
def test_a_spoilt_entry_is_made_again(cache, video, decoded, spoil):
    info = cache.probe(video)
    want = np.array(cache.frames(video, info, 24))
    for entry in files(cache):
        spoil(entry)
    assert cache.probe(video) == info
    assert_close(np.asarray(cache.frames(video, info, 24)), want)
    assert decoded == ["probe", "iter_frames"] * 2


def test_a_full_disk_is_said_and_leaves_no_partial_file(cache, video, monkeypatch):
    info = probe(video)

    class Full:
        """A file that takes 10,000 bytes and no more, as on a full disk."""

        def __init__(self, file):
            self.file, self.left = file, 10_000

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            return getattr(self.file, name)

        def write(self, data):
            self.left -= len(memoryview(data).cast("B"))
            if self.left < 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(data)

    monkeypatch.setattr(module, "open", lambda *a: Full(open(*a)), raising=False)  # noqa: SIM115
    with pytest.raises(UserError, match=r"cache: the cache cannot be written: No space left.*room"):
        cache.frames(video, info, None)
    assert files(cache) == []


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: cannot be the cache"):
        FrameCache(tmp_path / "file")


def test_open_data_remembers_in_the_cache(tmp_path, video, decoded):
    (tmp_path / "set" / "a").mkdir(parents=True)
    video.rename(tmp_path / "set" / "a" / "a.mp4")
    for _ in range(2):
        assert len(open_data(tmp_path / "set", cache=tmp_path / "cache")) == 1
    assert decoded == ["probe"]


WORKER = """
import sys, time
from pathlib import Path
import numpy as np
from tinyvid.data import cache as module, probe, read_frames

folder, barrier, *videos = sys.argv[1:]
real = module.iter_frames
def counted(*args):
    print("decodes")
    time.sleep(0.05)  # long enough for the other process to come by
    return real(*args)
module.iter_frames = counted
Path(barrier, str(time.time_ns())).touch()
while len(list(Path(barrier).iterdir())) < 2:
    time.sleep(0.001)
cache = module.FrameCache(folder)
for video in videos:
    frames = cache.frames(video, probe(video), 24)
    assert np.array_equal(frames, read_frames(video, None, 24)), video
"""


def test_two_processes_share_the_work(tmp_path, cache):
    videos = [str(write_video(tmp_path / f"{i}.mp4", numbered(30))) for i in range(6)]
    (tmp_path / "barrier").mkdir()
    command = [
        sys.executable, "-c", WORKER, str(cache.folder), str(tmp_path / "barrier"), *videos
    ]  # fmt: skip
    root = Path(__file__).resolve().parents[2]
    workers = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) for _ in range(2)
    ]
    said = [worker.communicate(timeout=60)[0] for worker in workers]
    assert [w.returncode for w in workers] == [0, 0]
    assert sum(s.count("decodes") for s in said) == 6  # each video once, by one or the other
    assert len(files(cache)) == 6
