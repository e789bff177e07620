"""Decoded, scaled videos kept in memory, for the epochs after the first.

A clip at a random moment of a video whose key frames lie far apart costs the decoding of all the
frames since the last of them: five times those of the clip, or more. A video that is kept whole
is decoded once.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import Future

import numpy as np

from tinyvid.data.sets import Video, VideoSet
from tinyvid.data.video import VideoError, VideoInfo, scaled_size


def bytes_of(infos: Iterable[VideoInfo], short_side: int | None) -> int:
    """Return how many bytes all frames of these videos take, scaled to `short_side`."""
    total = 0
    for info in infos:
        height, width = info.height, info.width
        if short_side is not None:
            height, width = scaled_size(height, width, short_side)
        total += 3 * info.frames * height * width
    return total


class FrameMemory:
    """The frames of whole videos, each decoded when it is first asked for, and kept.

    Several threads may ask at once: one of them decodes a video, the others wait for it.
    """

    def __init__(self, videos: VideoSet, short_side: int | None):
        self.videos, self.short_side = videos, short_side
        self._lock = threading.Lock()
        self._kept: dict[str, Future[np.ndarray]] = {}  # by the video's name

    def frames(self, video: Video) -> np.ndarray:
        """Return all the frames of a video, uint8 (T, H, W, 3) RGB, read-only."""
        with self._lock:
            kept = self._kept.get(video.name)
            if mine := kept is None:
                kept = self._kept[video.name] = Future()
        assert kept is not None
        if mine:
            try:
                frames = self.videos.read(video, None, self.short_side)
                frames.flags.writeable = False
                kept.set_result(frames)
            except BaseException as error:
                if not isinstance(error, VideoError):  # a damaged file stays so, the rest passes
                    with self._lock:
                        del self._kept[video.name]
                kept.set_exception(error)
        return kept.result()


class KeptSet(VideoSet):
    """A set whose videos are kept in memory, scaled, once they were read.

    For several trainings on one set that is made anew at each reading, such as the synthetic verbs.
    """

    def __init__(self, videos: VideoSet):
        self._read_from, self._by_side = videos, dict[int | None, FrameMemory]()
        self.classes, self.videos, self.skipped = videos.classes, videos.videos, videos.skipped
        self.source, self.folds = videos.source, videos.folds

    def probe(self, video: Video) -> VideoInfo:
        return self._read_from.probe(video)

    def read(
        self, video: Video, frames: np.ndarray | None = None, short_side: int | None = None
    ) -> np.ndarray:
        memory = self._by_side.setdefault(short_side, FrameMemory(self._read_from, short_side))
        kept = memory.frames(video)
        return kept if frames is None else kept[frames]
