"""Videos seen as their optical flow: what the temporal stream of a two-stream network takes.

Simonyan and Zisserman, "Two-stream convolutional networks for action recognition in videos",
NeurIPS 2014, section 3. A clip of L flows follows L + 1 frames of the video; the network gets the
L horizontal and L vertical displacement fields, `N 2 L H W`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np

from tinyvid.data.cache import FrameCache
from tinyvid.data.sets import Video, VideoSet
from tinyvid.data.video import VideoError, VideoInfo, scaled_size
from tinyvid.errors import UserError
from tinyvid.flow.files import to_bytes
from tinyvid.flow.video import grey
from tinyvid.kernels.flow import TVL1, tvl1_flow

FORMAT = 1  # part of every key of the cache: raise it when what is stored changes
TOGETHER = 32  # pairs of frames whose flow is found at a time, in parallel
BOUND = 0.1  # of the short side: how long displacements are that are kept, if nothing else is said


class FlowSet(VideoSet):
    """A set of videos, of which the flow from each frame to the next is read, not the frames.

    Frame t of such a video, uint8 (H, W, 2), is the flow from frame t to t + 1 at that scale
    (TV-L1), less its mean over the picture, which is mostly the camera's motion (section 3.1 of the
    paper): x and y in steps of bound / 127 pixels, 128 for none; see `tinyvid.flow.files.to_bytes`.

    Each video's flow is found when it is first asked for, and kept: of a file in the folder
    `cache`, so that it is never found again, by whichever process; of generated videos in
    memory, as long as the set is.

    Args:
        videos: the set. cache: a folder.
        bound: pixels; None for a tenth of the short side.
        settings: of TV-L1.

    Raises:
        UserError: the bound is not above 0, or the folder cannot be made.
    """

    def __init__(
        self,
        videos: VideoSet,
        cache: str | Path,
        bound: float | None = None,
        settings: TVL1 | None = None,
    ):
        if bound is not None and not 0 < bound < np.inf:
            raise UserError(f"bound={bound}: pixels, more than 0")
        self.classes, self.videos, self.skipped = videos.classes, videos.videos, videos.skipped
        self.source, self.folds = videos.source, videos.folds
        self.bound, self.settings = bound, settings or TVL1()
        self._frames, self._cache = videos, FrameCache(cache)
        self._kept: dict[tuple[str, int | None], np.ndarray] = {}

    def probe(self, video: Video) -> VideoInfo:
        info = self._frames.probe(video)
        if info.frames < 2:
            raise VideoError(video.path or video.name, "has one frame only: a flow is between two")
        return replace(info, frames=info.frames - 1, times=info.times[:-1])

    def read(
        self, video: Video, frames: np.ndarray | None = None, short_side: int | None = None
    ) -> np.ndarray:
        """Return the flows of these indices (all if None), uint8 (T, H, W, 2)."""
        flows = self._flows(video, short_side)
        return flows if frames is None else flows[frames]

    def fill(
        self, short_side: int | None, progress: Callable[[int, int], None] | None = None
    ) -> tuple[int, list[tuple[str, str]]]:
        """Find the flow of every video that has none yet.

        Args:
            short_side: as in `read`. progress: called with (videos done, videos in all).

        Returns:
            How many were there already, and (path, reason) of those that have no flow.
        """
        there, failed = 0, []
        for done, video in enumerate(self.videos, start=1):
            try:
                name = self._name(self._bound(video, short_side), short_side)
                if Path(video.path).is_file() and self._cache.has(video.path, name):
                    there += 1
                else:
                    self._flows(video, short_side)
            except VideoError as error:
                failed.append((video.path, error.reason))
            if progress is not None:
                progress(done, len(self.videos))
        return there, failed

    def _flows(self, video: Video, short_side: int | None) -> np.ndarray:
        info, bound = self.probe(video), self._bound(video, short_side)
        size = info.height, info.width
        if short_side is not None:
            size = scaled_size(*size, short_side)
        if Path(video.path).is_file():
            return self._cache.mapped(
                video.path,
                self._name(bound, short_side),
                (info.frames, *size, 2),
                lambda: self._found(video, info.frames, bound, short_side),
            )
        key = video.name, short_side
        if key not in self._kept:
            found = np.concatenate(list(self._found(video, info.frames, bound, short_side)))
            found.flags.writeable = False
            self._kept[key] = found
        return self._kept[key]

    def _found(
        self, video: Video, count: int, bound: float, short_side: int | None
    ) -> Iterator[np.ndarray]:
        for start in range(0, count, TOGETHER):
            indices = np.arange(start, min(start + TOGETHER, count) + 1)
            pictures = grey(self._frames.read(video, indices, short_side))
            flows = tvl1_flow(pictures[:-1], pictures[1:], settings=self.settings)
            flows -= flows.mean(axis=(2, 3), keepdims=True)
            yield to_bytes(flows, bound).transpose(0, 2, 3, 1)

    def _bound(self, video: Video, short_side: int | None) -> float:
        if self.bound is not None:
            return self.bound
        return bound_for(short_side or min(self._size(video)))

    def _size(self, video: Video) -> tuple[int, int]:
        info = self._frames.probe(video)
        return info.height, info.width

    def _name(self, bound: float, short_side: int | None) -> str:
        how = repr((FORMAT, bound, astuple(self.settings)))
        return f"{short_side or 'full'}-{hashlib.sha256(how.encode()).hexdigest()[:12]}.flow"


def bound_for(short_side: int) -> float:
    """Return the bound, in pixels, that is taken where none is given."""
    return BOUND * short_side
