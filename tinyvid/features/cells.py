"""Histograms of oriented gradients and of optical flow in cells of space and time.

A frame is cut into square cells. In each, every pixel votes for the direction of its gradient
with the gradient's length (HOG), and for the direction in which it moves with its speed (HOF); a
pixel that rests votes for a ninth bin of HOF. All that follows is made of sums of these cells.

Sources: Dalal and Triggs, Histograms of oriented gradients for human detection (2005), sections 6.1
to 6.3; Laptev et al., Learning realistic human actions from movies (2008), section 3.2; bins as in
Wang et al., Dense trajectories and motion boundary descriptors (2013), section 3.3. Sampling is
dense: no trajectories are followed.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np

from tinyvid.data import ClipSpec, VideoSet
from tinyvid.data.clips import uniform_clips
from tinyvid.data.sets import Video
from tinyvid.errors import UserError
from tinyvid.flow.video import grey
from tinyvid.kept_arrays import kept_arrays
from tinyvid.kernels.flow import TVL1, tvl1_flow

HOG_BINS = 8  # directions of a gradient, around the whole circle
HOF_BINS = 9  # directions of motion, and rest
BINS = HOG_BINS + HOF_BINS
REST = 0.4  # pixels from one frame to the next; what moves less rests
TOGETHER = 32  # pairs of frames whose flow is found at a time
FORMAT = 1  # part of every key of the cache: raise it when what is stored changes


@dataclass(frozen=True)
class CellSettings:
    """How videos are looked at.

    fps: frames a second that are compared with each other.
    short_side: pixels to which the shorter side is scaled. A smaller video is not enlarged; its
        cells are smaller in proportion.
    cell: pixels of a cell's side.
    """

    fps: float = 8.0
    short_side: int = 64
    cell: int = 8

    def __post_init__(self) -> None:
        if not self.fps > 0 or self.cell < 2 or self.short_side < 4 * self.cell:
            raise UserError(
                f"fps={self.fps:g}, short_side={self.short_side}, cell={self.cell}: fps must be "
                "above 0, a cell at least 2 pixels, and the short side at least 4 cells"
            )


@dataclass
class VideoCells:
    """The cells of a video.

    Attributes:
        times: float64 `(T,)`, when the first frame of each pair is shown, in seconds.
        counts: float32 `(T, Y, X, 17)`: of each pair of frames and each cell 8 bins of HOG, of the
            first frame, and 9 of HOF, from the first frame to the second.
    """

    times: np.ndarray
    counts: np.ndarray

    def clip(self, start: float, pairs: int) -> np.ndarray:
        """Return `pairs` pairs from the one nearest to `start` seconds, `(pairs, Y, X, 17)`; a
        video that ends before goes on with its last."""
        first = int(np.abs(self.times - start).argmin())
        return self.counts[np.minimum(first + np.arange(pairs), len(self.times) - 1)]


def gradient_cells(pictures: np.ndarray, cell: int) -> np.ndarray:
    """Return HOG `(N, Y, X, 8)` of grey pictures `(N, H, W)`; bin 0 is centred on a gradient to
    the right, bin 2 on one downwards."""
    dy, dx = np.gradient(pictures, axis=(1, 2))
    return _vote(dx, dy, np.hypot(dx, dy), cell, HOG_BINS)


def flow_cells(flows: np.ndarray, cell: int) -> np.ndarray:
    """Return HOF `(N, Y, X, 9)` of flows `(N, 2, H, W)` in pixels; the last bin counts the pixels
    that rest."""
    dx, dy = flows[:, 0], flows[:, 1]
    speed = np.hypot(dx, dy)
    rests = speed < REST
    directions = _vote(dx, dy, np.where(rests, 0, speed), cell, HOF_BINS - 1)
    still = _sum_cells(rests.astype(flows.dtype), cell)
    return np.concatenate([directions, still[..., None]], axis=-1)


def _vote(dx: np.ndarray, dy: np.ndarray, weight: np.ndarray, cell: int, bins: int) -> np.ndarray:
    """Sum the weights by direction; each is shared by the two bins that it lies between."""
    where = np.arctan2(dy, dx) * (bins / (2 * np.pi)) % bins  # in bins, from 0 up to `bins`
    sums = []
    for one in range(bins):
        away = np.abs(where - one)
        share = np.maximum(0, 1 - np.minimum(away, bins - away))
        sums.append(_sum_cells(weight * share, cell))
    return np.stack(sums, axis=-1)


def _sum_cells(values: np.ndarray, cell: int) -> np.ndarray:
    """Sum `(N, H, W)` over cells, `(N, Y, X)`; what no whole cell covers is left out, evenly."""
    n, height, width = values.shape
    rows, columns = height // cell, width // cell
    top, left = (height - rows * cell) // 2, (width - columns * cell) // 2
    values = values[:, top : top + rows * cell, left : left + columns * cell]
    return values.reshape(n, rows, cell, columns, cell).sum(axis=(2, 4))


def video_cells(
    videos: VideoSet, video: Video, settings: CellSettings, cache: str | Path | None = None
) -> VideoCells:
    """Return the cells of a video.

    Args:
        cache: a folder that keeps them; what is there is not computed again. Videos that are
            generated are not kept.

    Raises:
        UserError: the video cannot be read, or the folder not be written to.
    """
    how = (FORMAT, astuple(settings), astuple(TVL1()))
    found = kept_arrays(cache, video.path, how, lambda: vars(_compute(videos, video, settings)))
    return VideoCells(**found)


def _compute(videos: VideoSet, video: Video, settings: CellSettings) -> VideoCells:
    info = videos.probe(video)
    count = int(info.times[-1] * settings.fps + 1e-6) + 1
    spec = ClipSpec(count, fps=settings.fps, size=(settings.short_side,) * 2)
    frames = np.unique(uniform_clips(spec, info, 1)[0].indices)
    if len(frames) == 1:  # a picture: it rests
        frames = np.repeat(frames, 2)
    side = min(settings.short_side, info.height, info.width)
    cell = max(2, settings.cell * side // settings.short_side)
    pictures = grey(videos.read(video, frames, side))
    pairs = [slice(i, i + TOGETHER) for i in range(0, len(frames) - 1, TOGETHER)]
    flows = np.concatenate([tvl1_flow(pictures[:-1][p], pictures[1:][p]) for p in pairs])
    counts = [gradient_cells(pictures[:-1], cell), flow_cells(flows, cell)]
    return VideoCells(info.times[frames[:-1]], np.concatenate(counts, axis=-1).astype(np.float32))
