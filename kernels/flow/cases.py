"""The pairs of frames that tests and benchmarks go through, and the settings for them.

Where an image is flat nothing tells where it moves, and rounding grows as one by the gradient. So
these frames have a slope everywhere: a plane of whole grey values with some noise, moved by a
fraction of a pixel. In float32 they are exact, and what a variant rounds stays visible.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyvid.kernels.flow.settings import TVL1

FEW = TVL1(levels=2, warps=2, iterations=7)


@dataclass(frozen=True)
class Case:
    """Pairs of frames, `frames` = N H W; settings of TV-L1, and of Horn and Schunck's method."""

    name: str
    frames: tuple[int, int, int]
    settings: TVL1 = FEW
    alpha: float = 15.0
    iterations: int = 20
    large: bool = False

    def pair(self, array: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Return both frames, made of random arrays of a shape; of their dtype, and whole."""
        noise = array(*self.frames), array(*self.frames)
        _, height, width = self.frames
        plane = 6 * np.arange(width) + 4 * np.arange(height)[:, None]
        first = plane + np.rint(noise[0])
        return tuple(
            frame.astype(noise[0].dtype) for frame in (first, first + 3 + np.rint(noise[1] / 2))
        )


def _case(name: str, frames: tuple[int, int, int], **settings: Any) -> Case:
    return Case(name, frames, TVL1(**{"levels": 1, "warps": 1, "iterations": 1, **settings}))


CASES = [
    _case("least", (1, 2, 2)),
    _case("two iterations, no median", (1, 3, 5), iterations=2, medians=0),
    _case("a row of pixels more", (2, 2, 9), iterations=3),
    _case("two warps", (1, 7, 6), warps=2, iterations=2),
    _case("weak and loose", (1, 9, 8), weight=0.05, theta=0.5, tau=0.125, iterations=3, medians=2),
    Case("two levels", (1, 17, 33)),
    Case("pairs", (3, 16, 18)),
    Case("wide", (1, 5, 70)),
    Case("tall", (1, 70, 5)),
    # A tile of `cuda/tiled` has 24 x 24 pixels within its margins: one less, as many, one more.
    _case("one less than a tile", (1, 23, 23), iterations=5),
    _case("a tile", (1, 24, 24), iterations=4),
    _case("one more than a tile", (2, 25, 25), iterations=9),
    Case("two tiles and a bit", (1, 49, 50)),
    # A pair of the lecture's temporal stream, whose shorter side has 256 pixels.
    Case("temporal stream", (1, 256, 340), TVL1(), iterations=200, large=True),
]
