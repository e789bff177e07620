"""A synthetic set whose classes are motions: what a shape does, not what it looks like.

A textured shape on a drifting textured background does one of eight things:

    move left <-> move right      turn clockwise <-> turn counter-clockwise
    move up   <-> move down       grow           <-> shrink

Each pair is one motion and its reverse in time: the video of index i with one label is, frame by
frame backwards and to the bit, the video of index i with the other. A pair therefore shows the
same pictures, and only their order tells them apart.

Nor do the pictures tell the pairs apart. Everything about a video is drawn from (seed, index)
without looking at the label: shape, textures, colours, drift, and for each of four coordinates
(across, down, angle, size) a path from one end to another. The label picks the coordinate that
runs along its path; the other three stand still at a random moment of theirs. A frame at a
random moment thus has exactly the same distribution under all eight labels.

That holds for a whole video, and for an action in the middle of it. Which frame comes first is
part of the motion: a frame known to be the first says something, and so does any frame of an
action with a window to one side, after which the shape rests at the end of its path for longer
than it did at the beginning.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from pathlib import Path

import numpy as np

from tinyvid.data.sets import Video, VideoSet
from tinyvid.data.transforms import resize_short_side
from tinyvid.data.video import VideoInfo, write_video
from tinyvid.errors import UserError, nearest

# (name, coordinate that moves, whether the path is run backwards)
ACTIONS = (
    ("move_left", "across", True),
    ("move_right", "across", False),
    ("move_up", "down", True),
    ("move_down", "down", False),
    ("turn_clockwise", "angle", False),
    ("turn_counter_clockwise", "angle", True),
    ("grow", "size", False),
    ("shrink", "size", True),
)
VERBS = tuple(name for name, _, _ in ACTIONS)
COORDINATES = ("across", "down", "angle", "size")
SPLITS = ("train", "val", "test")


def verb_video(
    seed: int,
    index: int,
    label: str,
    *,
    frames: int = 20,
    size: int = 64,
    window: tuple[float, float] = (0.0, 1.0),
    only: Sequence[int] | np.ndarray | None = None,
) -> np.ndarray:
    """Return a video of the action `label`, uint8 (frames, size, size, 3).

    `window` = (a, b) is the part of the video's time, from 0 to 1, in which the action happens;
    outside it the shape holds still, while the background drifts on. `only` renders just these
    frames. The reverse in time of a video with window (a, b) is the video of the reverse action
    with window (1 - b, 1 - a).
    """
    if label not in VERBS:
        raise UserError(f"no verb {label!r}: there are {', '.join(VERBS)}.{nearest(label, VERBS)}")
    _check_size(frames, size, window)
    rng = np.random.default_rng((seed, index))
    scene = _Scene.draw(rng, size)
    poses = _poses(rng, scene.paths, label, frames, window)
    drift = scene.origin + scene.velocity * np.arange(frames)[:, None]
    order = np.arange(frames)
    if _is_backwards(label):
        order = order[::-1]
    if only is not None:
        order = order[np.asarray(only)]
    across, down, turn, scale = (poses[name][order] for name in COORDINATES)
    return scene.render(across, down, turn, scale, drift[order])


def _is_backwards(label: str) -> bool:
    return ACTIONS[VERBS.index(label)][2]


def _poses(
    rng: np.random.Generator,
    paths: dict[str, tuple[float, float]],
    label: str,
    frames: int,
    window: tuple[float, float],
) -> dict[str, np.ndarray]:
    """Each coordinate at each frame, (frames,); for a backward action, still to be reversed.

    The coordinate that moves goes along its path from 0 to 1; the others stay where it might be
    in a random frame, so that a random frame of theirs looks like one of its own.
    """
    moving = ACTIONS[VERBS.index(label)][1]
    start, end = (1 - window[1], 1 - window[0]) if _is_backwards(label) else window
    time = np.arange(frames) / (frames - 1)
    progress = np.clip((time - start) / (end - start), 0, 1)
    still = progress[rng.integers(frames, size=len(COORDINATES))]
    poses = {}
    for name, moment in zip(COORDINATES, still, strict=True):
        first, last = paths[name]
        along = progress if name == moving else np.full(frames, moment)
        poses[name] = first + along * (last - first)
    return poses


@dataclass(frozen=True)
class _Scene:
    """Everything in a video but its action. Lengths are in pixels, angles in radians."""

    size: int
    paths: dict[str, tuple[float, float]]  # of each coordinate: both ends
    origin: np.ndarray  # (2,) where the background begins, down and across
    velocity: np.ndarray  # (2,) of the background, pixels a frame
    outline: np.ndarray  # (ANGLES,) radius of the shape in each direction, at most 1
    slant: np.ndarray  # (ANGLES,) cosine between the outline's normal and the radius
    textures: tuple[np.ndarray, np.ndarray]  # of the background and the shape, 0 to 1, periodic
    palettes: tuple[np.ndarray, np.ndarray]  # (256, 3) uint8, of the background and the shape

    @classmethod
    def draw(cls, rng: np.random.Generator, size: int) -> _Scene:
        radius = size * np.exp(rng.uniform(np.log(0.15), np.log(0.22)))
        growth = np.sqrt(rng.uniform(1.6, 2.2))
        paths = {"size": (radius / growth, radius * growth)}
        for name in ("across", "down"):
            half = size * rng.uniform(0.28, 0.5) / 2
            border = min(size / 2, 0.7 * radius * growth + half)  # the shape stays in sight
            middle = rng.uniform(border, size - border)
            paths[name] = (middle - half, middle + half)
        angle, sweep = rng.uniform(0, 2 * np.pi), rng.uniform(np.pi / 2, 1.1 * np.pi)
        paths["angle"] = (angle, angle + sweep)
        direction, pace = rng.uniform(0, 2 * np.pi), size * rng.uniform(0, 0.02)
        outline = _outline(rng)
        change = np.gradient(np.append(outline[-1:], np.append(outline, outline[:1])))[1:-1]
        return cls(
            size=size,
            paths=paths,
            origin=rng.uniform(0, size, 2),
            velocity=pace * np.array([np.sin(direction), np.cos(direction)]),
            outline=outline.astype(np.float32),
            slant=(1 / np.sqrt(1 + (change * ANGLES / (2 * np.pi) / outline) ** 2)).astype(
                np.float32
            ),
            textures=(_texture(rng, size, rng.uniform(2, 6)), _texture(rng, 64, rng.uniform(2, 4))),
            palettes=_palettes(rng),
        )

    def render(
        self,
        across: np.ndarray,
        down: np.ndarray,
        angle: np.ndarray,
        radius: np.ndarray,
        drift: np.ndarray,
    ) -> np.ndarray:
        """Draw one frame for each entry; a frame depends on its own entry alone."""
        back = self._background(drift)
        # Only a box around the shape needs more than the background. It is moved inside the
        # picture, which hides nothing: it is as wide as the shape at its largest.
        box = min(self.size, int(np.ceil(2 * radius.max())) + 3)
        top = np.clip(np.rint(down - box / 2), 0, self.size - box).astype(np.int64)
        left = np.clip(np.rint(across - box / 2), 0, self.size - box).astype(np.int64)
        y = (top[:, None] + np.arange(box) + 0.5 - down[:, None]).astype(np.float32)[:, :, None]
        x = (left[:, None] + np.arange(box) + 0.5 - across[:, None]).astype(np.float32)[:, None, :]

        direction = np.arctan2(y, x) - angle[:, None, None].astype(np.float32)  # (T, box, box)
        sector = (direction * np.float32(ANGLES / (2 * np.pi))).astype(np.int32) % ANGLES
        size = radius[:, None, None].astype(np.float32)
        inside = size * self.outline.take(sector) - np.sqrt(x * x + y * y)
        inside *= self.slant.take(sector)  # pixels to the outline
        cover = np.clip(inside + np.float32(0.5), 0, 1)[..., None]  # (T, box, box, 1)

        cos = (np.cos(angle) * 32 / radius).astype(np.float32)[:, None, None]
        sin = (np.sin(angle) * 32 / radius).astype(np.float32)[:, None, None]
        texture = _sample(self.textures[1], cos * y - sin * x, cos * x + sin * y)
        front = self.palettes[1].astype(np.float32).take((texture * 255).astype(np.uint8), axis=0)

        for picture, i, j, shape, part in zip(back, top, left, front, cover, strict=True):
            behind = picture[i : i + box, j : j + box]
            behind[:] = behind + part * (shape - behind)
        return back

    def _background(self, drift: np.ndarray) -> np.ndarray:
        """The background's texture shifted by `drift` (T, 2), bilinear, (T, H, W, 3) uint8."""
        n = self.size
        twice = np.tile(self.textures[0], (2, 2))
        twice = np.pad(twice, ((0, 1), (0, 1)), mode="wrap")
        whole = np.floor(drift).astype(np.int64)
        part = (drift - whole).astype(np.float32)
        values = np.empty((len(drift), n, n), np.uint8)
        for value, (i, j), (v, u) in zip(values, whole % n, part, strict=True):
            view = twice[i : i + n + 1, j : j + n + 1]
            view = view[:-1] * (1 - v) + view[1:] * v
            value[:] = (view[:, :-1] * (1 - u) + view[:, 1:] * u) * np.float32(255)
        return self.palettes[0].take(values, axis=0)


ANGLES = 720  # directions in which an outline is stored


def _outline(rng: np.random.Generator) -> np.ndarray:
    """A closed outline as its radius in each direction: a polygon, a star, a cross, a blob."""
    theta = np.arange(ANGLES) * 2 * np.pi / ANGLES
    kind = rng.integers(5)
    if kind == 0:  # a blob: a few low harmonics
        waves = np.arange(1, 5)
        size, phase = rng.uniform(-0.35, 0.35, 4) / np.sqrt(waves), rng.uniform(0, 2 * np.pi, 4)
        radius = 1 + (size[:, None] * np.cos(waves[:, None] * theta + phase[:, None])).sum(0)
        radius = np.maximum(radius, 0.3)
    elif kind == 1:  # an ellipse
        flat = rng.uniform(0.4, 0.65)
        radius = flat / np.sqrt((flat * np.cos(theta)) ** 2 + np.sin(theta) ** 2)
    elif kind == 2:  # a regular polygon
        corners = int(rng.integers(3, 6))
        radius = _polygon(theta, np.ones(corners), np.arange(corners) * 2 * np.pi / corners)
    elif kind == 3:  # a star
        points = int(rng.integers(3, 7))
        radii = np.where(np.arange(2 * points) % 2, rng.uniform(0.4, 0.55), 1.0)
        radius = _polygon(theta, radii, np.arange(2 * points) * np.pi / points)
    else:  # a cross with arms of this half-width
        arm = rng.uniform(0.25, 0.4)
        corner = np.arctan2(arm, 1)
        angles = np.concatenate(
            [q * np.pi / 2 + np.array([-corner, corner, np.pi / 4]) for q in range(4)]
        )
        radius = _polygon(theta, np.tile([np.hypot(1, arm)] * 2 + [arm * np.sqrt(2)], 4), angles)
    return radius / radius.max()


def _polygon(theta: np.ndarray, radii: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Radius in the directions `theta` of the polygon with these corners, angles rising."""
    turn = (theta - angles[0]) % (2 * np.pi)
    corner = np.searchsorted(angles - angles[0], turn, side="right") - 1
    r1, r2 = radii[corner], np.roll(radii, -1)[corner]
    span = (np.roll(angles, -1)[corner] - angles[corner]) % (2 * np.pi)
    part = turn - (angles[corner] - angles[0])
    return r1 * r2 * np.sin(span) / (r1 * np.sin(part) + r2 * np.sin(span - part))


def _texture(rng: np.random.Generator, size: int, scale: float) -> np.ndarray:
    """A periodic pattern, (size, size) float32 from 0 to 1: noise, stripes, checks or rings of
    spots, about `scale` features across."""
    kind = rng.integers(3)
    if kind == 0:  # noise whose waves are not much shorter than size / scale
        waves = np.fft.rfft2(rng.standard_normal((size, size)))
        down, across = np.fft.fftfreq(size) * size, np.fft.rfftfreq(size) * size
        waves *= np.exp(-((down[:, None] ** 2 + across**2) / (2 * scale**2)))
        waves[0, 0] = 0
        pattern = np.fft.irfft2(waves, (size, size))
        pattern /= pattern.std()
    else:
        y, x = np.mgrid[:size, :size] * (2 * np.pi / size)
        turn = rng.uniform(0, 2 * np.pi)
        # whole numbers of waves, so that the pattern joins at the border
        a, b = np.rint(scale * np.sin(turn)), np.rint(scale * np.cos(turn))
        pattern = np.sin(a * y + b * x + rng.uniform(0, 2 * np.pi)) * 1.5
        if kind == 2:  # checks: two crossing sets of stripes
            pattern = pattern * np.sin(b * y - a * x + rng.uniform(0, 2 * np.pi)) * 1.5
    return (0.5 + 0.5 * np.tanh(1.2 * pattern)).astype(np.float32)


def _sample(texture: np.ndarray, y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Bilinear values of a periodic square texture at (y, x), in its pixels."""
    n = len(texture)
    top, left = np.floor(y), np.floor(x)
    v, u = y - top, x - left
    i, j = top.astype(np.int32) % n, left.astype(np.int32) % n
    below, right = (i + 1) % n * n, (j + 1) % n
    i *= n
    upper = texture.take(i + j) * (1 - u) + texture.take(i + right) * u
    lower = texture.take(below + j) * (1 - u) + texture.take(below + right) * u
    return upper * (1 - v) + lower * v


def _palettes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two colours for the background and two for the shape, as 256 steps from one to the other.

    They are drawn until each of the shape's is well apart from each of the background's.
    """
    while True:
        colours = rng.uniform(15, 240, (4, 3))
        apart = np.linalg.norm(colours[:2, None] - colours[None, 2:], axis=2).min()
        within = np.linalg.norm(colours[[0, 2]] - colours[[1, 3]], axis=1)
        if apart > 90 and within.min() > 50 and within.max() < 170:
            break
    steps = np.linspace(0, 1, 256)[:, None]
    mixed = [np.rint(a + steps * (b - a)).astype(np.uint8) for a, b in (colours[:2], colours[2:])]
    return mixed[0], mixed[1]


class VerbSet(VideoSet):
    """The synthetic set: `per_class` videos of each of `classes` (all eight verbs by default).

    split: "train", "val" or "test", which share neither shapes nor textures. frames, size (pixels,
    square) and fps are those of each video. window: see `verb_video`. Video i has the label
    i modulo the number of classes, and is a group of its own.
    """

    def __init__(
        self,
        split: str = "train",
        per_class: int = 100,
        seed: int = 0,
        frames: int = 20,
        size: int = 64,
        fps: float = 10.0,
        window: tuple[float, float] = (0.0, 1.0),
        classes: Sequence[str] | None = None,
    ):
        counts = {"per_class": per_class, "seed": seed, "frames": frames, "size": size}
        for option, count in counts.items():
            if isinstance(count, bool) or not isinstance(count, Integral):
                raise UserError(f"{option} must be a whole number, not {count!r}")
        if not _is_real(fps) or not 0 < fps < float("inf"):
            raise UserError(f"fps must be a number above 0, not {fps!r}")
        if isinstance(classes, str) or not isinstance(classes, Sequence | None):
            raise UserError(f"classes must be a list of verbs, not {classes!r}")
        self.classes = list(VERBS if classes is None else classes)
        for name in self.classes:
            if name not in VERBS:
                name = str(name)
                raise UserError(
                    f"no verb {name!r}: there are {', '.join(VERBS)}.{nearest(name, VERBS)}"
                )
        if split not in SPLITS:
            near = nearest(str(split), SPLITS)
            raise UserError(f"no split {split!r}: there are {', '.join(SPLITS)}.{near}")
        if per_class < 1 or not self.classes:
            raise UserError(f"verbs needs at least one class and one video of each: {per_class=}")
        if seed < 0:
            raise UserError(f"seed must not be negative: {seed}")
        _check_size(frames, size, window)
        self.frames, self.size, self.window = frames, size, (window[0], window[1])
        self.seed = len(SPLITS) * seed + SPLITS.index(split)
        self.skipped, self.source = [], "verbs"
        self.videos = []
        for index in range(per_class * len(self.classes)):
            name = f"verbs/{split}/{index:06d}"
            self.videos.append(Video(name, index % len(self.classes), name, name))
        self._index = {v.name: i for i, v in enumerate(self.videos)}
        self._info = VideoInfo.constant_rate(frames, fps, size, size)

    def probe(self, video: Video) -> VideoInfo:
        return self._info

    def read(
        self, video: Video, frames: np.ndarray | None = None, short_side: int | None = None
    ) -> np.ndarray:
        pictures = verb_video(
            self.seed,
            self._index[video.name],
            self.classes[video.label],
            frames=self.frames,
            size=self.size,
            window=self.window,
            only=frames,
        )
        return pictures if short_side is None else resize_short_side(pictures, short_side)


def write_verbs(
    folder: str | Path,
    n: int,
    seed: int = 0,
    *,
    frames: int = 20,
    size: int = 64,
    fps: int = 10,
    codec: str = "libx264",
) -> Path:
    """Write `n` videos of each verb as class folders of MP4 files, and return the folder."""
    folder = Path(folder)
    for index in range(n * len(VERBS)):
        label = VERBS[index % len(VERBS)]
        (folder / label).mkdir(parents=True, exist_ok=True)
        pictures = verb_video(seed, index, label, frames=frames, size=size)
        write_video(folder / label / f"{index:06d}.mp4", pictures, fps, codec)
    return folder


def _check_size(frames: int, size: int, window: tuple[float, float]) -> None:
    if frames < 2 or size < 16:
        raise UserError(
            f"verbs needs at least 2 frames of at least 16 pixels, not {frames} of {size}"
        )
    pair = isinstance(window, list | tuple) and len(window) == 2 and all(map(_is_real, window))
    if not pair or not 0 <= window[0] < window[1] <= 1:
        raise UserError(f"window must be two rising shares of the time, 0 to 1, not {window}")


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)
