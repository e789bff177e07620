"""The results as plain data: one JSON file, from which the report and its tables are drawn.

Shares lie in 0..1. Pictures are files in the folder `pictures` beside `results.json`.
"""

from __future__ import annotations

import types
import typing
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tinyvid.errors import UserError
from tinyvid.evaluate import Scores
from tinyvid.metrics import bootstrap_interval, fuse, rank_of_label, wilson_interval
from tinyvid.runs import read_json, write_json

FORMAT = 2

MOST_CLASSES = 20  # in a confusion matrix; of more the most frequent mistakes are told

FEW_VIDEOS = 50  # below it the bootstrap is too narrow, and Wilson's interval stands beside it


@dataclass(frozen=True)
class Share:
    """A share, with its 95 % interval by the bootstrap over videos."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, per_video: np.ndarray) -> Share:
        """Return the mean of `per_video`, a hit or a share of hits for each video."""
        return cls(float(per_video.mean()), *bootstrap_interval(per_video))


@dataclass(frozen=True)
class Measured:
    """What a test found.

    Attributes:
        clip_hit_1: None where videos were fused as a whole, so that no clip has a score.
        video_hit_5: None with 5 classes or fewer, where it would mean little or nothing.
        wilson: of Video Hit@1, where there are few videos; else None.
    """

    clip_hit_1: Share | None
    video_hit_1: Share
    video_hit_5: Share | None
    wilson: tuple[float, float] | None
    videos: int
    clips: int


@dataclass(frozen=True)
class Row:
    """A row of a table: what was measured here, if anything, beside the paper's numbers (%)."""

    name: str
    system: str
    measured: Measured | None
    paper: list[float | None]


@dataclass(frozen=True)
class Table:
    """A table of a paper, with the same measured here. See `tinyvid.reproduce.papers`."""

    key: str
    title: str
    of: str
    columns: list[str]
    rows: list[Row]


@dataclass(frozen=True)
class SizeRow:
    """A layer of a network, as texts: `12×20×64×64`, and its receptive field `1×3×3`."""

    layer: str
    size: str
    field: str


@dataclass(frozen=True)
class SizeTable:
    """Layer by layer what a network makes of a clip."""

    name: str
    rows: list[SizeRow]
    parameters: int
    macs: int


@dataclass(frozen=True)
class FusionRow:
    """One side of early fusion against 3-D convolution; shapes as texts."""

    name: str
    weight: str
    weights: int
    output: str
    macs: int
    shift: str


@dataclass(frozen=True)
class Explained:
    """What a network looks at in the clip of the first sample: names of moving pictures.

    Attributes:
        said, probability: the network's answer, for which it is explained.
        layer: that of Grad-CAM.
    """

    said: str
    probability: float
    gradient: str
    grad_cam: str
    layer: str


@dataclass(frozen=True)
class System:
    """Something that classifies: a network, or a fusion of several.

    Attributes:
        label: its name for people. about: one line.
        by_clips: Video Hit@1 by the number of clips that it is fused from.
        confusion: counts, row the true class of a video, column the predicted one.
        parameters, macs, milliseconds: of a network: its size, and the time of one clip.
        log: of a network, by the name of each training: the rows of its log.
        filters: picture of the first 3-D convolution's filters.
    """

    label: str
    about: str
    measured: Measured
    by_clips: dict[int, Share]
    confusion: list[list[int]]
    parameters: int | None = None
    macs: int | None = None
    milliseconds: float | None = None
    log: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    filters: str = ""
    explained: Explained | None = None


@dataclass(frozen=True)
class Sample:
    """A test video: moving pictures of its middle clip and its flow, and what was said of it.

    `said` has for each system its class and that class's probability.
    """

    video: str
    truth: str
    clip: str
    flow: str
    said: dict[str, tuple[str, float]]


@dataclass(frozen=True)
class ShiftCurve:
    """Video Hit@1 of a network by how many frames later than in training an action happens."""

    label: str
    points: dict[int, Share]


@dataclass(frozen=True)
class Results:
    """All of it.

    Attributes:
        data: what it was measured on. command: what made it.
        facts: name and value of whatever else decides or qualifies the numbers.
        chance: the share of the most frequent class among the test videos.
        shift: a curve for each network of the shift experiment, if it was made.
        equivariance: of each layer, by frames of shift, what `tinyvid.shift.shift_error` is.
    """

    data: str
    command: str
    facts: list[tuple[str, str]]
    classes: list[str]
    chance: float
    tables: list[Table]
    systems: dict[str, System]
    samples: list[Sample]
    sizes: list[SizeTable]
    fusions: list[FusionRow]
    shift: list[ShiftCurve]
    equivariance: dict[str, dict[int, float]]

    def save(self, path: Path) -> None:
        """Write all of it as JSON."""
        write_json(path, {"format": FORMAT, **asdict(self)})

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Read what `save` wrote.

        Raises:
            UserError: the file is missing, damaged, or of another version.
        """
        found = read_json(Path(path))
        if not isinstance(found, dict) or found.pop("format", None) != FORMAT:
            raise UserError(f"{path} holds no results of this version: make them anew")
        try:
            return _build(cls, found)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{path} is damaged: {error}") from error


def measured(scores: Scores, whole: bool = False) -> Measured:
    """Return what the scores of a test say; `whole` if they are of videos, not of clips."""
    _, first, owner = np.unique(scores.videos, return_index=True, return_inverse=True)
    clip_hits = rank_of_label(scores.logits, scores.labels) == 0
    per_video = np.bincount(owner, clip_hits) / np.bincount(owner)
    ranks = rank_of_label(fuse(scores.logits, scores.videos), scores.labels[first])
    hits = ranks == 0
    few = len(hits) < FEW_VIDEOS
    return Measured(
        None if whole else Share.of(per_video),
        Share.of(hits),
        Share.of(ranks < 5) if len(scores.classes) > 5 else None,
        wilson_interval(int(hits.sum()), len(hits)) if few else None,
        len(hits),
        len(clip_hits),
    )


def by_clips(scores: Scores) -> dict[int, Share]:
    """Return Video Hit@1 where only some of each video's clips are fused, spread evenly.

    One clip is the middle one. Empty where videos have different numbers of clips.
    """
    videos, first, count = np.unique(scores.videos, return_index=True, return_counts=True)
    if len(set(count.tolist())) != 1 or count[0] == 1:
        return {}
    every = int(count[0])
    rows = np.argsort(scores.videos, kind="stable").reshape(len(videos), every)
    found = {}
    for number in sorted({n for n in (1, 2, 3, 5, 10, 20) if n < every} | {every}):
        spread = [every // 2] if number == 1 else np.rint(np.linspace(0, every - 1, number))
        chosen = rows[:, np.asarray(spread, dtype=np.int64)].ravel()
        fused = fuse(scores.logits[chosen], scores.videos[chosen])
        found[number] = Share.of(rank_of_label(fused, scores.labels[first]) == 0)
    return found


def most_confused(
    confusion: list[list[int]], classes: list[str], most: int = 15
) -> list[tuple[str, str, int]]:
    """Return (true class, answer, videos) of the most frequent mistakes, the worst first."""
    wrong = np.array(confusion)
    np.fill_diagonal(wrong, 0)
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    pairs = [divmod(int(i), len(classes)) for i in order]
    return [(classes[t], classes[s], int(wrong[t, s])) for t, s in pairs if wrong[t, s]]


def _build(kind: Any, value: Any) -> Any:
    """Return the value, read from JSON, as an object of a dataclass or of a type of its fields."""
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        return kind(**{f.name: _build(hints[f.name], value[f.name]) for f in fields(kind)})
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return None if value is None else _build(inner[0], value)
    if origin is list:
        return [_build(inner[0], v) for v in value]
    if origin is tuple:
        return tuple(_build(k, v) for k, v in zip(inner, value, strict=True))
    if origin is dict:
        return {inner[0](k): _build(inner[1], v) for k, v in value.items()}
    return value
