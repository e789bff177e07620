"""Moving pictures of clips, flows, filters and saliency, as animated WebP, which browsers loop.

Each has a still beside it, four of its frames row by row, for print and for people who have asked
their system for less motion.
"""

from __future__ import annotations

import io
import math
from pathlib import Path

import numpy as np

from tinyvid.checkpoint import write_atomically
from tinyvid.flow import colours, grey
from tinyvid.kernels.flow import tvl1_flow

SIDE = 128  # pixels of a moving picture's shorter side, at least
PAUSE = 500  # milliseconds at the end, so that the loop is seen
QUALITY = 80
GAP = 2


def save_moving(frames: np.ndarray, folder: Path, name: str, milliseconds: float) -> str:
    """Write `NAME.webp` and its still `NAME-still.webp` into the folder; return NAME.

    Args:
        frames: uint8 T H W 3; small ones are enlarged by whole pixels.
        milliseconds: that each is shown for.
    """
    factor = math.ceil(SIDE / min(frames.shape[1:3]))
    large = frames.repeat(factor, 1).repeat(factor, 2)
    shown = max(20, round(milliseconds))
    _save(large, folder / f"{name}.webp", [shown] * (len(large) - 1) + [shown + PAUSE])
    _save(still(large)[None], folder / f"{name}-still.webp", [shown])
    return name


def still(frames: np.ndarray) -> np.ndarray:
    """Return four frames, from the first to the last, row by row with a grey line between."""
    chosen = frames[np.rint(np.linspace(0, len(frames) - 1, 4)).astype(int)]
    _, h, w, c = frames.shape
    picture = np.full((2 * h + GAP, 2 * w + GAP, c), 128, np.uint8)
    for i, frame in enumerate(chosen):
        y, x = i // 2 * (h + GAP), i % 2 * (w + GAP)
        picture[y : y + h, x : x + w] = frame
    return picture


def _save(frames: np.ndarray, path: Path, durations: list[int]) -> None:
    from PIL import Image

    pictures = [Image.fromarray(np.ascontiguousarray(frame)) for frame in frames]
    content = io.BytesIO()
    more = {"save_all": True, "append_images": pictures[1:], "duration": durations, "loop": 0}
    pictures[0].save(content, "webp", quality=QUALITY, **(more if len(pictures) > 1 else {}))
    write_atomically(path, content.getvalue())


def flow_frames(frames: np.ndarray) -> np.ndarray:
    """Return the flow of a clip in colours, uint8 T H W 3: from each frame to the next.

    The last one, which has no next, repeats the one before; a clip of one frame does not move.
    """
    if len(frames) < 2:
        return np.full_like(frames, 255)
    luma = grey(frames)
    flows = tvl1_flow(luma[:-1], luma[1:])
    full = max(float(np.quantile(np.hypot(*flows.transpose(1, 0, 2, 3)), 0.99)), 0.5)
    shown = [colours(flow, full) for flow in flows]
    return np.stack([*shown, shown[-1]])


def heat(frames: np.ndarray, saliency: np.ndarray) -> np.ndarray:
    """Return the clip in grey with what counts most in bright colours, uint8 T H W 3.

    Args:
        frames: uint8 T H W 3.
        saliency: T H W, not negative; its largest hundredth has the full colour.
    """
    from matplotlib import colormaps

    top = float(np.quantile(saliency, 0.99)) or float(saliency.max()) or 1.0
    level = np.clip(saliency / top, 0, 1)[..., None]
    colour = 255 * colormaps["inferno"](level[..., 0])[..., :3]
    behind = 0.75 * grey(frames)[..., None]
    return np.rint(behind + level * (colour - behind)).astype(np.uint8)


def filter_frames(weights: np.ndarray, columns: int = 8) -> np.ndarray:
    """Return filters as a moving picture, one tile each, uint8 T H W 3; grey is 0.

    Args:
        weights: K 3 T R S. Each filter is scaled by its largest weight.
    """
    k, _, t, r, s = weights.shape
    largest = np.abs(weights).max(axis=(1, 2, 3, 4), keepdims=True)
    tiles = np.rint(127.5 + 127.5 * weights / np.where(largest > 0, largest, 1)).astype(np.uint8)
    factor = math.ceil(24 / min(r, s))
    tiles = tiles.transpose(0, 2, 3, 4, 1).repeat(factor, 2).repeat(factor, 3)  # (K, T, H, W, C)
    high, wide = r * factor + GAP, s * factor + GAP
    rows = math.ceil(k / columns)
    canvas = np.full((t, rows * high - GAP, min(k, columns) * wide - GAP, 3), 128, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * high, i % columns * wide
        canvas[:, y : y + r * factor, x : x + s * factor] = tile
    return canvas
