"""The convolutions with pooling that tests, gradient checks and benchmarks go through."""

from __future__ import annotations

from dataclasses import dataclass

from tinyvid.geometry import ConvGeometry, PoolGeometry, conv_geometry, pool_geometry

Size = tuple[int, int, int]


@dataclass(frozen=True)
class Case:
    """A convolution and the pooling of what it puts out, windows side by side.

    `x` is `N C D H W`, `w` is `K C/groups T R S`, `window` that of the pooling; the rest belongs to
    the convolution.
    """

    name: str
    x: tuple[int, int, int, int, int]
    w: tuple[int, int, int, int, int]
    window: Size
    stride: Size = (1, 1, 1)
    padding: Size = (0, 0, 0)
    dilation: Size = (1, 1, 1)
    groups: int = 1
    large: bool = False

    @property
    def geometry(self) -> ConvGeometry:
        return conv_geometry(self.x, self.w, self.stride, self.padding, self.dilation, self.groups)

    @property
    def pool(self) -> PoolGeometry:
        return pool_geometry(self.geometry.y, self.window)


CASES = [
    Case("few cells", (1, 1, 2, 2, 2), (1, 1, 1, 1, 1), (1, 2, 2)),
    Case("frames apart", (2, 3, 3, 6, 8), (5, 3, 3, 3, 3), (1, 2, 2), padding=(1, 1, 1)),
    Case("small, frames apart", (1, 2, 2, 4, 4), (3, 2, 1, 3, 3), (1, 2, 2), padding=(0, 1, 1)),
    Case("halves", (1, 4, 4, 6, 6), (8, 4, 3, 3, 3), (2, 2, 2), padding=(1, 1, 1)),
    Case("cells left over", (2, 3, 5, 7, 9), (4, 3, 2, 2, 2), (2, 2, 2)),
    Case("six cells a window", (1, 5, 3, 7, 8), (3, 5, 1, 3, 2), (1, 3, 2), padding=(0, 1, 0)),
    # 16 or 32 windows are a tile of rows; 32 and 64 channels one of columns.
    Case("over the tiles", (1, 4, 3, 12, 10), (33, 4, 1, 1, 1), (1, 2, 2)),
    Case("a wide tile", (1, 3, 2, 6, 6), (64, 3, 1, 3, 3), (2, 2, 2), padding=(0, 1, 1)),
    Case("two slabs", (1, 16, 2, 4, 4), (5, 16, 1, 3, 3), (1, 2, 2), padding=(0, 1, 1)),
    Case(
        "more slabs, odd channels", (1, 15, 2, 4, 6), (7, 15, 3, 3, 3), (2, 2, 2), padding=(1, 1, 1)
    ),
    Case("groups", (1, 8, 2, 5, 6), (12, 4, 2, 3, 3), (1, 2, 2), padding=(1, 1, 1), groups=2),
    Case(
        "stride and dilation",
        (1, 3, 7, 9, 9),
        (4, 3, 2, 2, 2),
        (1, 2, 2),
        (2, 1, 2),
        (1, 0, 1),
        (1, 3, 2),
    ),
    Case(
        "c3d conv1",
        (1, 3, 16, 112, 112),
        (64, 3, 3, 3, 3),
        (1, 2, 2),
        padding=(1, 1, 1),
        large=True,
    ),
    Case(
        "c3d conv2",
        (1, 64, 16, 56, 56),
        (128, 64, 3, 3, 3),
        (2, 2, 2),
        padding=(1, 1, 1),
        large=True,
    ),
]
