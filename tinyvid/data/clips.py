"""Which frames make a clip: exact indices from a clip's specification and a video's times.

Training takes a clip at a random moment, testing k clips spread evenly over the video
(Karpathy et al. 2014, section 4; Tran et al. 2015, section 3.3).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from tinyvid.data.video import VideoInfo
from tinyvid.errors import UserError, nearest

PAD_POLICIES = ("repeat_last", "loop", "reflect", "error")


@dataclass(frozen=True)
class ClipSpec:
    """The shape of a clip and how it samples time and space.

    frames: the number of frames in a clip.
    stride: take every stride-th frame of the video (1 if neither it nor `fps` is given); or
    fps: take the frame nearest to every 1/fps seconds, whatever the video's own rate.
    size: (height, width) of the clip in pixels.
    short_side: pixels of the video's shorter side before cropping to `size`; the larger of
        `size` if None.
    pad_policy: what follows the end of a video shorter than a clip: its last sampled frame
        ("repeat_last"), the samples again from the first ("loop"), the samples backwards and
        forwards ("reflect"), or an error ("error").

    Raises UserError for a value that makes no clip.
    """

    frames: int = 16
    stride: int | None = None
    fps: float | None = None
    size: tuple[int, int] = (112, 112)
    short_side: int | None = None
    pad_policy: str = "repeat_last"

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise UserError(f"a clip needs at least 1 frame, not frames={self.frames}")
        if self.stride is not None and self.fps is not None:
            raise UserError("a clip is sampled by stride or by fps: give one of them, not both")
        if self.stride is not None and self.stride < 1:
            raise UserError(f"stride must be at least 1 frame, not {self.stride}")
        if self.fps is not None and not 0 < self.fps < float("inf"):
            raise UserError(f"fps must be more than 0 frames a second, not {self.fps}")
        if len(self.size) != 2 or min(self.size) < 1:
            raise UserError(f"size must be (height, width) in pixels, not {self.size}")
        if self.short_side is not None and self.short_side < max(self.size):
            raise UserError(
                f"short_side={self.short_side} is too small to cut {self.size[0]}x{self.size[1]} "
                f"from: make it at least {max(self.size)}"
            )
        if self.pad_policy not in PAD_POLICIES:
            raise UserError(
                f"unknown pad_policy {self.pad_policy!r}: it is one of {', '.join(PAD_POLICIES)}."
                + nearest(self.pad_policy, PAD_POLICIES)
            )

    @property
    def source_side(self) -> int:
        """The shorter side, in pixels, to which videos are scaled before cropping."""
        return max(self.size) if self.short_side is None else self.short_side


@dataclass(frozen=True)
class Clip:
    """Exact frame indices, int64 (frames,), and the second at which the first is shown."""

    indices: np.ndarray
    start: float


def is_short(spec: ClipSpec, info: VideoInfo) -> bool:
    """Whether the video is shorter than one clip, so that a clip of it is padded."""
    return _slack(spec, info, 1.0) < 0


def random_clip(
    spec: ClipSpec, info: VideoInfo, rng: np.random.Generator, speed: float = 0.0
) -> Clip:
    """Return a clip that starts at a uniformly random moment.

    `speed` = 0.2 plays it up to 1.2 times faster or slower, log-uniformly; never so fast that a
    video that holds a clip would need padding.
    """
    rate = float((1 + speed) ** rng.uniform(-1, 1)) if speed else 1.0
    if rate > 1 and _slack(spec, info, rate) < 0:
        rate = 1.0
    slack = max(0.0, _slack(spec, info, rate))
    if spec.fps is None and rate == 1:
        return _clip(spec, info, float(rng.integers(int(slack) + 1)), rate)
    return _clip(spec, info, float(rng.uniform(0, slack)), rate)


def uniform_clips(spec: ClipSpec, info: VideoInfo, count: int) -> list[Clip]:
    """Return `count` clips with evenly spread starts, the first at the video's beginning and the
    last at its end; the one in the middle if `count` is 1. Neighbours coincide where the video
    has fewer different clips than that."""
    if count < 1:
        raise UserError(f"clips per video must be at least 1, not {count}")
    slack = max(0.0, _slack(spec, info, 1.0))
    starts = np.array([slack / 2]) if count == 1 else np.linspace(0, slack, count)
    if spec.fps is None:
        starts = np.floor(starts + 0.5)
    return [_clip(spec, info, float(s), 1.0) for s in starts]


def whole_video(spec: ClipSpec, info: VideoInfo) -> Clip:
    """Return a clip from the first frame to the last, as long as the video, at the spec's rate."""
    step = (spec.stride or 1) if spec.fps is None else 1 / spec.fps
    one = replace(spec, frames=1)
    count = int(_slack(one, info, 1.0) / step + 1e-6) + 1
    return _clip(replace(spec, frames=count), info, 0.0, 1.0)


def _slack(spec: ClipSpec, info: VideoInfo, rate: float) -> float:
    """How far the start of a clip can move: frames with `stride`, seconds with `fps`."""
    if spec.fps is None:
        return info.frames - 1 - (spec.frames - 1) * (spec.stride or 1) * rate
    # the tolerance forgives the rounding of time stamps, far below a frame's duration
    return _snap(float(info.times[-1]) - (spec.frames - 1) * rate / spec.fps)


def _snap(seconds: float) -> float:
    return 0.0 if abs(seconds) < 1e-6 else seconds


def _clip(spec: ClipSpec, info: VideoInfo, start: float, rate: float) -> Clip:
    """The clip that begins at `start` (frames or seconds) and plays `rate` times as fast."""
    samples = np.arange(spec.frames)
    if spec.fps is None:
        step, end = (spec.stride or 1) * rate, info.frames - 1.0
    else:
        step, end = rate / spec.fps, float(info.times[-1])
    within = int((end - start) / step + 1e-6) + 1  # samples before the end of the video
    if within < spec.frames:
        samples = _pad(samples, within, spec, info)
    where = start + samples * step
    if spec.fps is None:
        indices = np.minimum(np.floor(where + 0.5).astype(np.int64), info.frames - 1)
    else:
        indices = _nearest(info.times, where)
    return Clip(indices, float(info.times[indices[0]]))


def _pad(samples: np.ndarray, within: int, spec: ClipSpec, info: VideoInfo) -> np.ndarray:
    """Map sample numbers onto the `within` samples that the video has."""
    if spec.pad_policy == "repeat_last":
        return np.minimum(samples, within - 1)
    if spec.pad_policy == "loop":
        return samples % within
    if spec.pad_policy == "reflect":  # 0 1 2 1 0 1 2 ...
        return within - 1 - np.abs(samples % max(1, 2 * within - 2) - (within - 1))
    raise UserError(
        f"a clip of {spec.frames} frames is longer than a video of {info.frames} frames "
        f"({info.seconds:.2f} s): use shorter clips, a smaller stride or a higher fps, "
        f"or another pad_policy than 'error'"
    )


def _nearest(times: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Indices of the frames whose times are nearest; the earlier of two that are equally near."""
    after = np.clip(np.searchsorted(times, where), 1, max(1, len(times) - 1))
    after = np.minimum(after, len(times) - 1)
    before = np.maximum(after - 1, 0)
    nearer_after = times[after] - where < where - times[before] - 1e-9
    return np.where(nearer_after, after, before).astype(np.int64)
