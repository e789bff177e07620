"""What is shown of trained networks: sample clips, what they look at, filters, a clip's time."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np

import tinyvid
from tinyvid import nn
from tinyvid.config import Config
from tinyvid.data import ClipLoader, VideoSet
from tinyvid.evaluate import Scores
from tinyvid.inputs import as_input, clip_spec, numbers
from tinyvid.metrics import fuse, softmax
from tinyvid.reproduce.pictures import filter_frames, flow_frames, heat, save_moving
from tinyvid.reproduce.results import Explained, Sample
from tinyvid.saliency import grad_cam, gradient_saliency, last_maps

MOST_SAMPLES = 8

TIMED = 7  # passes, of which the median counts


def sample_names(scores: Scores) -> list[str]:
    """Return the first test video of each class, of at most eight classes."""
    _, first = np.unique(scores.labels, return_index=True)
    return [scores.names[scores.videos[i]] for i in first[:MOST_SAMPLES]]


def middle_clip(videos: VideoSet, name: str, config: Config) -> tuple[np.ndarray, float]:
    """Return the middle clip of a video as a test sees it, uint8 C T H W, and ms a frame.

    Its pictures, whatever the network takes; of `as_input(config, videos)` it is what that takes.
    """
    position = next(i for i, video in enumerate(videos.videos) if video.name == name)
    one, spec = videos.subset([position]), clip_spec(config)
    loader = ClipLoader(one, spec, batch_size=1, train=False, workers=0)
    info = videos.probe(one.videos[0])
    seconds = 1 / spec.fps if spec.fps is not None else (spec.stride or 1) / info.fps
    return next(iter(loader.epoch())).clips[0], 1000 * seconds


def sample(
    name: str, videos: VideoSet, config: Config, scores: dict[str, Scores], folder: Path, file: str
) -> Sample:
    """Draw a test video's middle clip and its flow, and say what each system made of it.

    Args:
        scores: of each system. file: the pictures' names begin with it.
    """
    clip, milliseconds = middle_clip(videos, name, config)
    frames = clip.transpose(1, 2, 3, 0)
    said = {}
    for system, found in scores.items():
        probabilities = fuse(found.logits, found.videos)[_rank(found, name)]
        best = int(probabilities.argmax())
        said[system] = (found.classes[best], float(probabilities[best]))
    one = next(iter(scores.values()))
    label = one.labels[np.flatnonzero(one.videos == one.names.index(name))[0]]
    return Sample(
        name,
        one.classes[label],
        save_moving(frames, folder, f"{file}-clip", milliseconds),
        save_moving(flow_frames(frames), folder, f"{file}-flow", milliseconds),
        said,
    )


def _rank(scores: Scores, name: str) -> int:
    """The row of a video among those that have scores."""
    return int(np.searchsorted(np.unique(scores.videos), scores.names.index(name)))


def explain(
    model: nn.Module,
    videos: VideoSet,
    name: str,
    config: Config,
    classes: list[str],
    folder: Path,
    file: str,
) -> Explained:
    """Draw what a network looks at in the middle clip of a video, for the class that it answers."""
    pictures, milliseconds = middle_clip(videos, name, config)
    clip, _ = middle_clip(as_input(config, videos), name, config)
    x = numbers(config, clip[None])
    with tinyvid.no_grad():
        probabilities = softmax(model(x).numpy())[0]
    best = int(probabilities.argmax())
    layer = last_maps(model, clip.shape)
    frames = pictures.transpose(1, 2, 3, 0)
    maps = {
        "gradient": gradient_saliency(model, x, [best])[0],
        "cam": grad_cam(model, x, [best], layer)[0],
    }
    drawn = {
        what: save_moving(heat(frames, saliency), folder, f"{file}-{what}", milliseconds)
        for what, saliency in maps.items()
    }
    said = classes[best], float(probabilities[best])
    return Explained(*said, drawn["gradient"], drawn["cam"], layer)


def filters(model: nn.Module, folder: Path, file: str) -> str:
    """Draw the first 3-D convolution's filters; "" where there is none over RGB."""
    conv = next((m for m in model.modules() if isinstance(m, nn.Conv3d)), None)
    if conv is None or conv.weight.shape[1] != 3:
        return ""
    return save_moving(filter_frames(conv.weight.numpy()), folder, file, 400)


def milliseconds_of(model: nn.Module, clip: tuple[int, ...]) -> float:
    """Return how long the network takes for one clip `C T H W`: the median of some passes."""
    x = tinyvid.randn(1, *clip)
    taken = []
    with tinyvid.no_grad():
        model(x)
        for _ in range(TIMED):
            began = time.perf_counter()
            model(x)
            taken.append(time.perf_counter() - began)
    return 1000 * float(np.median(taken))
