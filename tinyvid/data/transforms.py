"""Changes to whole clips: every frame of a clip gets the same crop, flip, rotation and colour.

A clip here is uint8 (T, H, W, 3) RGB; or (T, H, W, 2), flow as `tinyvid.flow.sets` has it, whose
displacements change with the picture: a mirror image moves the other way, and a picture scaled to
twice its width moves twice as far. Changes of colour pass it over. Random transforms draw their
parameters once from the generator they are given; whoever keeps its seed can repeat them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tinyvid.errors import UserError

LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601
FLOW = 2  # channels of flow, by which it is told from pictures
# The colour difference axes I and Q of NTSC: turning their plane about the luma axis turns hue.
RGB_TO_YIQ = np.array([LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True)
class Augment:
    """Random changes to a training clip, all off by default except the plain random crop.

    flip: probability of a mirror image; leave it 0 where classes are mirror images.
    scale: (smallest, largest) share of the picture's area to cut out and scale to the clip's
        size, with an aspect ratio within `ratio` (Szegedy et al. 2015, section 6); None cuts the
        clip's size out as it is.
    shift: cut up to this share of the clip's size beyond the border, which is repeated.
    rotate: degrees, to either side.
    brightness, contrast, saturation: factors from 1 - v to 1 + v; hue: turns, to either side.
    speed: 0.2 plays up to 1.2 times faster or slower.
    """

    flip: float = 0.0
    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    shift: float = 0.0
    rotate: float = 0.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    speed: float = 0.0

    def __post_init__(self) -> None:
        upper = {"flip": 1, "shift": 1, "rotate": 180, "hue": 0.5, "speed": 9}
        upper |= {"brightness": 1, "contrast": 1, "saturation": 1}
        for name, most in upper.items():
            if not 0 <= getattr(self, name) <= most:
                raise UserError(f"{name} must be from 0 to {most}, not {getattr(self, name)}")
        if self.scale is not None and not 0 < self.scale[0] <= self.scale[1] <= 1:
            raise UserError(f"scale must be two rising shares from 0 to 1, not {self.scale}")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise UserError(f"ratio must be two rising aspect ratios, not {self.ratio}")

    def __call__(
        self, frames: np.ndarray, size: tuple[int, int], rng: np.random.Generator
    ) -> np.ndarray:
        """Return the clip cut to `size` (height, width) and changed at random."""
        if self.rotate:
            frames = rotate(frames, rng.uniform(-self.rotate, self.rotate))
        if self.scale is None:
            frames = random_crop(frames, size, rng, self.shift)
        else:
            frames = random_resized_crop(frames, size, rng, self.scale, self.ratio, self.shift)
        if rng.random() < self.flip:
            frames = flip(frames)
        if frames.shape[-1] == FLOW:
            return frames
        brightness, contrast, saturation = (
            rng.uniform(1 - v, 1 + v) for v in (self.brightness, self.contrast, self.saturation)
        )
        hue = rng.uniform(-self.hue, self.hue)
        return colour(frames, brightness, contrast, saturation, hue)


def normalise(clips: np.ndarray, mean: Sequence[float], std: Sequence[float]) -> np.ndarray:
    """Return (clips / 255 - mean) / std as float32; the only place where clips become floats.

    `clips` is uint8 N C T H W; `mean` and `std` have one number for each channel, as shares of
    full brightness. The result has the same shape and channels-last memory: a transposed view
    of an N T H W C buffer. Raises UserError if channels do not match.
    """
    offset, scale = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    if clips.dtype != np.uint8 or clips.ndim != 5:
        raise UserError(f"clips must be uint8 N C T H W, not {clips.dtype} {clips.shape}")
    n, c, t, h, w = clips.shape
    if offset.shape != (c,) or scale.shape != (c,) or not (scale > 0).all():
        raise UserError(
            f"mean {list(mean)} and std {list(std)} must have one number for each of the "
            f"{c} channels of clips {clips.shape}, and no std may be 0"
        )
    rows = np.ascontiguousarray(clips.transpose(0, 2, 3, 4, 1)).reshape(n * t * h, w * c)
    # one multiplication and one subtraction over rows of w*c numbers, each far longer than c
    out = np.multiply(rows, np.tile(1 / (255 * scale), w).astype(np.float32), dtype=np.float32)
    out -= np.tile(offset / scale, w).astype(np.float32)
    return out.reshape(n, t, h, w, c).transpose(0, 4, 1, 2, 3)


def resize(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale to `size` (height, width), averaging over the area of each new pixel."""
    if frames.shape[1:3] == tuple(size):
        return frames
    if frames.shape[-1] == FLOW:  # as a picture without blue
        pictures = np.concatenate([frames, frames[..., :1]], axis=-1)
        factors = [new / old for new, old in zip(size[::-1], frames.shape[2:0:-1], strict=True)]
        return scale_flow(resize(pictures, size)[..., :FLOW], factors)
    from av import VideoFrame
    from av.video.reformatter import VideoReformatter

    from tinyvid.data.video import view_of

    converter = VideoReformatter()
    out = np.empty((len(frames), *size, 3), np.uint8)
    for i, picture in enumerate(frames):
        frame = VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
        out[i] = view_of(
            converter.reformat(
                frame, width=size[1], height=size[0], interpolation="AREA", threads=1
            )
        )
    return out


def resize_short_side(frames: np.ndarray, side: int) -> np.ndarray:
    """Scale so that the shorter side has `side` pixels and the shape stays."""
    from tinyvid.data.video import scaled_size

    _, height, width, _ = frames.shape
    return resize(frames, scaled_size(height, width, side))


def crop(frames: np.ndarray, top: int, left: int, size: tuple[int, int]) -> np.ndarray:
    """Cut `size` (height, width) out; beyond the border the border's pixels are repeated."""
    height, width = frames.shape[1:3]
    if top >= 0 and left >= 0 and top + size[0] <= height and left + size[1] <= width:
        return frames[:, top : top + size[0], left : left + size[1]]
    rows = np.clip(np.arange(top, top + size[0]), 0, height - 1)
    columns = np.clip(np.arange(left, left + size[1]), 0, width - 1)
    return frames[:, rows[:, None], columns]


def centre_crop(frames: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Cut `size` out of the middle."""
    _, height, width, _ = frames.shape
    return crop(frames, (height - size[0]) // 2, (width - size[1]) // 2, size)


def three_crops(frames: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """Cut `size` out at the beginning, middle and end of the longer side, centred on the other."""
    spare = [f - s for f, s in zip(frames.shape[1:3], size, strict=True)]
    along = 0 if spare[0] > spare[1] else 1
    crops = []
    for third in (0, spare[along] // 2, spare[along]):
        corner = [s // 2 for s in spare]
        corner[along] = third
        crops.append(crop(frames, corner[0], corner[1], size))
    return crops


def random_crop(
    frames: np.ndarray, size: tuple[int, int], rng: np.random.Generator, shift: float = 0.0
) -> np.ndarray:
    """Cut `size` out anywhere, up to the share `shift` of it beyond the border."""
    corner = [
        int(rng.integers(-round(shift * s), max(0, f - s) + round(shift * s) + 1))
        for f, s in zip(frames.shape[1:3], size, strict=True)
    ]
    return crop(frames, corner[0], corner[1], size)


def random_resized_crop(
    frames: np.ndarray,
    size: tuple[int, int],
    rng: np.random.Generator,
    scale: tuple[float, float] = (0.5, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
    shift: float = 0.0,
) -> np.ndarray:
    """Cut out a share `scale` of the largest area of the clip's shape, its aspect ratio changed
    by a factor within `ratio` (log-uniform), and scale it to `size`."""
    height, width = frames.shape[1:3]
    largest = min(height / size[0], width / size[1])
    zoom = largest * np.sqrt(rng.uniform(*scale))
    stretch = np.exp(rng.uniform(np.log(ratio[0]), np.log(ratio[1])) / 2)
    box = (
        int(np.clip(round(size[0] * zoom / stretch), 1, height)),
        int(np.clip(round(size[1] * zoom * stretch), 1, width)),
    )
    return resize(random_crop(frames, box, rng, shift), size)


def flip(frames: np.ndarray) -> np.ndarray:
    """Return the mirror image, left and right swapped: of pictures a view, of flow with the
    horizontal displacements negated."""
    mirrored = frames[:, :, ::-1]
    return scale_flow(mirrored, (-1, 1)) if frames.shape[-1] == FLOW else mirrored


def scale_flow(flows: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Return flow, uint8 (T, H, W, 2), with x and y displacements times these factors; what then
    is beyond the bound is cut."""
    scaled = np.rint((flows.astype(np.float32) - 128) * np.array(factors, np.float32)) + 128
    return np.clip(scaled, 1, 255).astype(np.uint8)


def rotate(frames: np.ndarray, degrees: float) -> np.ndarray:
    """Turn counter-clockwise about the centre, bilinear; the border's pixels are repeated."""
    height, width = frames.shape[1:3]
    corners, weights = _rotation(height, width, float(degrees))
    flat = frames.reshape(len(frames), height * width, 3)
    out = np.full((len(frames), height * width, 3), 0.5, np.float32)
    for index, weight in zip(corners, weights, strict=True):
        out += flat[:, index] * weight
    return out.astype(np.uint8).reshape(frames.shape)


@lru_cache(maxsize=1)
def _rotation(height: int, width: int, degrees: float) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """The four neighbours in the source of each pixel, as flat indices, and their weights."""
    angle = np.deg2rad(degrees)
    y, x = np.mgrid[:height, :width] - np.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    source_y = np.cos(angle) * y + np.sin(angle) * x + (height - 1) / 2
    source_x = np.cos(angle) * x - np.sin(angle) * y + (width - 1) / 2
    source_y, source_x = np.clip(source_y, 0, height - 1), np.clip(source_x, 0, width - 1)
    top = np.minimum(source_y.astype(np.int64), max(0, height - 2))
    left = np.minimum(source_x.astype(np.int64), max(0, width - 2))
    down, right = source_y - top, source_x - left
    corners, weights = [], []
    for dy, dx in ((0, 0), (0, 1), (1, 0), (1, 1)):
        row, column = np.minimum(top + dy, height - 1), np.minimum(left + dx, width - 1)
        corners.append((row * width + column).ravel())
        weight = (down if dy else 1 - down) * (right if dx else 1 - right)
        weights.append(weight.astype(np.float32).reshape(-1, 1))
    return corners, weights


def colour(
    frames: np.ndarray,
    brightness: float = 1.0,
    contrast: float = 1.0,
    saturation: float = 1.0,
    hue: float = 0.0,
) -> np.ndarray:
    """Change the colours of a whole clip: factors, and a turn of the hue (1 is the full circle).

    Brightness scales all, contrast scales differences from the clip's mean luma, saturation the
    differences from a pixel's own luma. Together they are one affine map of each pixel.
    """
    gain = brightness * contrast
    if gain == 1 and contrast == 1 and saturation == 1 and hue == 0:
        return frames
    mean = frames.mean(axis=(0, 1, 2)) @ LUMA if contrast != 1 else 0.0
    offset = brightness * (1 - contrast) * mean
    if saturation == 1 and hue == 0:  # a function of one byte: a table of 256 entries
        table = _to_uint8(np.arange(256) * gain + offset)
        looked_up = frames.tobytes().translate(table.tobytes())
        return np.frombuffer(looked_up, np.uint8).reshape(frames.shape)
    turn = np.exp(2j * np.pi * hue) * saturation
    plane = np.array([[1, 0, 0], [0, turn.real, -turn.imag], [0, turn.imag, turn.real]])
    matrix = gain * np.linalg.inv(RGB_TO_YIQ) @ plane @ RGB_TO_YIQ
    return _to_uint8(frames.astype(np.float32) @ matrix.T.astype(np.float32) + np.float32(offset))


def _to_uint8(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
