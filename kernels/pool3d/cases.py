"""The poolings that tests, gradient checks and benchmarks go through.

Awkward sizes first (1, primes, window = input, overlap, gaps, overhang), then, marked `large`,
the layers of the lecture's networks.
"""

from __future__ import annotations

from dataclasses import dataclass

from tinyvid.geometry import PoolGeometry, pool_geometry

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """One pooling. `x` is `N C D H W`; the rest is what `pool_geometry` takes.

    `count_include_pad` and `divisor_override` are for average pooling, which skips the cases
    with a dilation.
    """

    name: str
    x: tuple[int, int, int, int, int]
    window: Size
    stride: Size | None = None
    padding: Size = (0, 0, 0)
    dilation: Size = (1, 1, 1)
    ceil_mode: bool = False
    count_include_pad: bool = True
    divisor_override: int | None = None
    large: bool = False

    @property
    def geometry(self) -> PoolGeometry:
        return pool_geometry(
            self.x, self.window, self.stride, self.padding, self.dilation, self.ceil_mode
        )


CASES = [
    Case("single cell", (1, 1, 1, 1, 1), (1, 1, 1)),
    Case("window of one cell", (2, 3, 3, 2, 5), (1, 1, 1)),
    Case("halves", (2, 5, 4, 6, 8), (2, 2, 2)),
    Case("frames apart", (1, 17, 3, 4, 6), (1, 2, 2)),
    Case("time only", (2, 3, 5, 3, 2), (3, 1, 1), (2, 1, 1)),
    Case("primes, cells left over", (3, 7, 5, 7, 11), (2, 3, 2)),
    Case("window = input", (2, 4, 3, 5, 4), (3, 5, 4)),
    Case("window of 294 cells", (1, 2, 6, 8, 9), (6, 7, 7), (1, 1, 1)),
    Case("stride > window", (1, 3, 7, 8, 9), (2, 1, 2), (3, 4, 3)),
    Case("overlap", (2, 3, 5, 6, 7), (3, 3, 3), (1, 2, 1)),
    Case("padding", (1, 2, 4, 5, 6), (3, 2, 3), (2, 2, 2), (1, 1, 1)),
    Case(
        "padding not counted",
        (1, 5, 4, 5, 6),
        (3, 2, 3),
        (1, 2, 3),
        (1, 1, 1),
        count_include_pad=False,
    ),
    Case("dilation", (2, 3, 7, 6, 9), (2, 3, 2), (1, 1, 2), dilation=(3, 2, 4)),
    Case(
        "dilation with padding", (1, 4, 7, 7, 8), (3, 3, 2), (2, 1, 3), (1, 1, 1), (2, 3, 5), True
    ),
    Case("overhang", (2, 3, 5, 7, 8), (2, 3, 3), (2, 2, 3), ceil_mode=True),
    Case("overhang with padding", (1, 3, 2, 7, 7), (2, 2, 3), (2, 2, 2), (1, 1, 1), ceil_mode=True),
    Case(
        "overhang, padding not counted",
        (1, 3, 2, 7, 7),
        (2, 2, 3),
        (2, 3, 2),
        (1, 1, 1),
        ceil_mode=True,
        count_include_pad=False,
    ),
    Case("divisor given", (2, 3, 4, 5, 6), (2, 2, 3), (1, 2, 2), (1, 0, 1), divisor_override=-3),
    Case("many channels", (1, 67, 3, 4, 5), (2, 3, 2), (1, 1, 1), (1, 1, 1)),
    # Multiples of four channels, which some variants take at a time.
    Case("four channels", (1, 4, 2, 3, 4), (2, 2, 2)),
    Case("four channels of few cells, overlap", (1, 4, 3, 2, 4), (2, 2, 3), (1, 1, 2), (0, 1, 1)),
    Case("eight channels", (2, 8, 4, 6, 8), (2, 2, 2)),
    Case("twelve channels, frames apart", (1, 12, 3, 5, 7), (1, 2, 2)),
    Case("four channels, overlap", (2, 4, 5, 6, 7), (3, 3, 3), (2, 1, 2), (1, 1, 1)),
    Case(
        "eight channels, gaps and padding",
        (1, 8, 5, 7, 9),
        (2, 1, 2),
        (3, 4, 3),
        (1, 0, 1),
        ceil_mode=True,
        count_include_pad=False,
    ),
    Case(
        "eight channels, stride over dilation",
        (1, 8, 7, 9, 8),
        (2, 2, 1),
        (4, 3, 2),
        (1, 0, 0),
        (3, 2, 1),
    ),
    Case("four channels, window of 294 cells", (1, 4, 6, 7, 8), (6, 7, 7), divisor_override=2),
    Case("worked example pool", (1, 12, 20, 64, 64), (4, 4, 4), large=True),
    Case("worked example GAP", (1, 24, 5, 16, 16), (5, 16, 16), large=True),
    Case("c3d pool1", (1, 64, 16, 112, 112), (1, 2, 2), large=True),
    Case("c3d pool2", (1, 128, 16, 56, 56), (2, 2, 2), large=True),
    Case("c3d pool4", (1, 512, 4, 14, 14), (2, 2, 2), large=True),
    Case("c3d pool5", (1, 512, 2, 7, 7), (2, 2, 2), large=True),
    Case("c3d pool5 padded", (1, 512, 2, 7, 7), (2, 2, 2), padding=(0, 1, 1), large=True),
    Case("karpathy overlapping", (1, 96, 4, 55, 55), (1, 3, 3), (1, 2, 2), large=True),
]
