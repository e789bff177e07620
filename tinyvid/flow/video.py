"""The flow of a whole video, from each frame to the next."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from tinyvid.data.transforms import LUMA
from tinyvid.data.video import VideoError, VideoInfo, iter_frames, probe
from tinyvid.kernels.flow import tvl1_flow

PAIRS = 8  # that are worked on together, in parallel

Method = Callable[[np.ndarray, np.ndarray], np.ndarray]


def grey(pictures: np.ndarray) -> np.ndarray:
    """Return the luma of pictures (..., H, W, 3), float32 (..., H, W) from 0 to 255."""
    return pictures @ LUMA.astype(np.float32)


def flows_of(
    path: str | Path, short_side: int | None = None, method: Method = tvl1_flow
) -> tuple[VideoInfo, Iterator[np.ndarray]]:
    """Return what a video holds, and an iterator of its flows, one less than its frames.

    Args:
        path: a video file.
        short_side: scale the frames so that their shorter side has that many pixels, before.
        method: from two batches of frames N H W to their flows N 2 H W.

    Returns:
        The info, and float32 (2, H, W) in pixels of the scaled frames.

    Raises:
        VideoError: the video cannot be read, or has one frame only.
    """
    info = probe(path)
    if info.frames < 2:
        raise VideoError(path, "has one frame only: a flow is between two")
    return info, _flows(path, short_side, method)


def _flows(path: str | Path, short_side: int | None, method: Method) -> Iterator[np.ndarray]:
    waiting: list[np.ndarray] = []
    for picture in iter_frames(path, short_side):
        waiting.append(grey(picture))
        if len(waiting) == PAIRS + 1:
            yield from method(np.stack(waiting[:-1]), np.stack(waiting[1:]))
            del waiting[:-1]
    if len(waiting) > 1:
        yield from method(np.stack(waiting[:-1]), np.stack(waiting[1:]))
