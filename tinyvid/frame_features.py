"""What a trained network sees in each frame of whole videos: its features before the classes.

The network is frozen, so that the features of a video never change and can be kept on disk.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import tinyvid
from tinyvid import nn
from tinyvid.data import VideoSet
from tinyvid.data.clips import whole_video
from tinyvid.data.sets import Video
from tinyvid.data.transforms import centre_crop
from tinyvid.errors import UserError
from tinyvid.inputs import clip_spec, numbers
from tinyvid.kept_arrays import kept_arrays
from tinyvid.models.parts import PerFrame
from tinyvid.runs import Run, input_of

TOGETHER = 32  # frames that go through the network at a time


class FrameFeatures:
    """Features of the frames of videos, by the network of a run.

    They are what comes out of the layers that run on each frame alone, without their last, fully
    connected one; a map is averaged over its pixels. Frames are taken from the first to the last at
    the rate of the run's clips, and cut out of the middle as in a test.

    Args:
        run: of a network that looks at frames alone: `single_frame`, `late_fusion`, `cnn_lstm`, …
        cache: a folder that keeps the features of videos in files; None for none.
        model: the run's network, where it is loaded already.

    Raises:
        UserError: the network has no such layers, or takes no frames but stacks of flow.
    """

    def __init__(self, run: Run, cache: str | Path | None = None, model: nn.Module | None = None):
        if input_of(run.config) != "rgb":
            raise UserError(f"{run.path} takes optical flow, which has no frames to look at alone")
        self.config, self.cache, self.spec = run.config, cache, clip_spec(run.config)
        model = run.model()[0] if model is None else model
        self.layers = frozen_layers(model, run.config.model.name).eval()
        self.device = next(p.device for p in model.parameters())
        clip = run.config.clip
        weights = hashlib.sha256(run.best.read_bytes()).hexdigest()
        self.how = (weights, self.spec, tuple(clip.mean), tuple(clip.std))

    def of(self, videos: VideoSet, video: Video) -> tuple[np.ndarray, np.ndarray]:
        """Return when each frame is shown, float64 `(T,)` in seconds, and its features, float32
        `(T, F)`.

        Raises:
            UserError: the video cannot be read.
        """
        kept = kept_arrays(self.cache, video.path, self.how, lambda: self._compute(videos, video))
        return kept["times"], kept["features"]

    def _compute(self, videos: VideoSet, video: Video) -> dict[str, np.ndarray]:
        info = videos.probe(video)
        indices = whole_video(self.spec, info).indices
        found = [self._features(videos, video, part) for part in _parts(indices)]
        return {"times": info.times[indices], "features": np.concatenate(found)}

    def _features(self, videos: VideoSet, video: Video, indices: np.ndarray) -> np.ndarray:
        frames = centre_crop(videos.read(video, indices, self.spec.source_side), self.spec.size)
        clip = np.ascontiguousarray(frames).transpose(3, 0, 1, 2)[None]
        x = tinyvid.tensor(numbers(self.config, clip), device=self.device)
        with tinyvid.no_grad():
            y = self.layers(x)
        return (y.mean((3, 4)).permute(0, 2, 1) if y.ndim == 5 else y).numpy()[0]


def frozen_layers(model: nn.Module, name: str) -> PerFrame:
    """Return the layers of a network that run on each frame alone, without the classes' own.

    Raises:
        UserError: it has none; `name` is told.
    """
    frames = getattr(model, "frames", None)
    if not isinstance(frames, PerFrame):
        raise UserError(
            f"{name} has no layers that run on each frame alone: take a run of single_frame, "
            "late_fusion or cnn_lstm"
        )
    layers = dict(frames.named_children())
    ends = [key for key, layer in layers.items() if isinstance(layer, nn.Linear)][-1:]
    if ends:  # and what only makes that layer's training harder
        kept = list(layers)[: list(layers).index(ends[0])]
        while isinstance(layers[kept[-1]], nn.Dropout):
            kept.pop()
        layers = {key: layers[key] for key in kept}
    return PerFrame(layers)


def _parts(indices: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), TOGETHER):
        yield indices[start : start + TOGETHER]
