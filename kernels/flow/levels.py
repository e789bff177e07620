"""TV-L1 from the smallest level to the largest, by the passes of a device: CUDA C++ or Numba."""

from __future__ import annotations

from typing import Any, Protocol

from tinyvid.kernels.flow.pyramid import SMALLEST
from tinyvid.kernels.flow.settings import TVL1


class Passes(Protocol):
    """The passes of TV-L1, of arrays of one device. Flows are N 2 H W, images N H W."""

    def halve(self, image: Any) -> Any:
        """Return every second pixel of the smoothed images."""

    def gradient(self, image: Any) -> Any:
        """Return N 3 H W: images, and their derivatives along x and y."""

    def zeros(self, image: Any, planes: int) -> Any:
        """Return N planes H W of zeros, for images N H W."""

    def enlarge(self, u: Any, image: Any) -> Any:
        """Return a flow at the size of images."""

    def linearise(self, image: Any, planes: Any, u: Any) -> Any:
        """Return N 4 H W, what the iterations need of the images, where the flow points."""

    def iterate(self, u: Any, p: Any, linear: Any, settings: TVL1) -> tuple[Any, Any]:
        """Return u, and p N 4 H W, after the iterations of a warp; it may write into them."""

    def median(self, u: Any) -> Any:
        """Return the medians of 3×3 pixels."""


def run(passes: Passes, first: Any, second: Any, settings: TVL1) -> Any:
    """Return the flow N 2 H W from `first` to `second`, N H W, as `reference.tvl1` defines it."""
    images = [(first, second)]
    while len(images) < settings.levels and min(images[-1][0].shape[1:]) >= 2 * SMALLEST:
        images.append((passes.halve(images[-1][0]), passes.halve(images[-1][1])))
    u = None
    for image, after in reversed(images):
        u = passes.zeros(image, 2) if u is None else passes.enlarge(u, image)
        p, planes = passes.zeros(image, 4), passes.gradient(after)
        for _ in range(settings.warps):
            linear = passes.linearise(image, planes, u)
            u, p = passes.iterate(u, p, linear, settings)
            for _ in range(settings.medians):
                u = passes.median(u)
    return u
