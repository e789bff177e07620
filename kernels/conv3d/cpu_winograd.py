"""3-D convolution on the processor by Winograd's algorithm: `cpu/winograd`.

The output is cut into tiles of m outputs along each axis; for each tile and pair of channels,
F(4, 3) along all axes makes 216 products where the definition has 1728. Between the transforms
(`winograd_tiles.py`) stands a matrix product at each of the 216 positions:

    fprop   M[a] = V[a] U[a]       V: tiles of x (tiles, C)       U: filters (C, K)
    dgrad   the same of gy, with the taps turned round and the channels exchanged
    wgrad   M[a] = Y[a]' V[a]      Y: tiles of gy (tiles, K)

Transformed arrays are several times as large as what they are made of, so they never exist but in
blocks that stay in cache. Few filters are transformed once, and each thread takes blocks of tiles
through all steps. Many are transformed anew for each block of tiles, which all threads share while
each takes panels of filters through all steps. That costs about as much as it would to read the
transformed filters, which are 8 times as large, back from memory: so nothing is kept between calls,
and nothing can be out of date.

Rounding: sums of transformed values are larger than those of the definition. In float32, for x of
unit variance and w such that y is, too, errors of y stay below 5e-5, and below 1e-5 where
`precision("exact")` allows F(2, 3) only; those of `cpu/im2col` stay below 5e-6. A NaN or an
infinity makes all outputs NaN of the tiles that it meets, not only those whose filters meet it.
"""

from __future__ import annotations

import math
from itertools import product

import numpy as np

from tinyvid.geometry import ConvGeometry, Ints
from tinyvid.kernels.conv3d.cpu import channels_first, channels_last
from tinyvid.kernels.conv3d.winograd_blocks import (
    multiply,
    put_filters,
    put_gradients,
    put_taps,
    put_tiles,
    put_together,
)
from tinyvid.kernels.conv3d.winograd_plan import LANES, ROWS, Plan, plan
from tinyvid.kernels.memory import empty
from tinyvid.kernels.threads import Scratch, chunks_of, parallel_for


def fprop(
    x: np.ndarray,
    w: np.ndarray,
    geometry: ConvGeometry,
    bias: np.ndarray | None = None,
    relu: bool = False,
) -> np.ndarray:
    """Return y; see `tinyvid.kernels.conv3d`."""
    cut = plan("fprop", geometry, x.itemsize)
    y = empty(_moved(geometry.y), x.dtype)
    _Correlation(channels_last(x), _Filters(w, cut, False), y, cut, bias, relu).run()
    return channels_first(y)


def dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gx; see `tinyvid.kernels.conv3d`."""
    cut = plan("dgrad", geometry, gy.itemsize)
    gx = empty(_moved(geometry.x), gy.dtype)
    _Correlation(channels_last(gy), _Filters(w, cut, True), gx, cut).run()
    return channels_first(gx)


def wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return gw; see `tinyvid.kernels.conv3d`."""
    gy, x = channels_last(gy), channels_last(x)
    cut = plan("wgrad", geometry, gy.itemsize)
    gw = np.zeros(_moved(geometry.w), gy.dtype)
    K, C = gw.shape[0], gw.shape[4]
    scratch = Scratch()
    V, Y = (_Tiles(cut, n, empty(_Tiles.size(cut, n), gy.dtype)) for n in (C, K))
    columns = cut.panels * LANES
    pitch = (cut.depth + ROWS) * columns + LANES

    for block in chunks_of(cut.tiles, cut.block):
        tiles = block.stop - block.start

        def transform(part, first=block.start, tiles=tiles):
            part = slice(part.start, min(part.stop, tiles))
            tile = scratch.get("tile", (cut.positions * LANES,), gy.dtype)
            V.take(x, first, part, tile)
            Y.take_gradients(gy, first, part, tile)

        def work(item, first=block.start, tiles=tiles):
            k, c = item
            tile = scratch.get("tile", (cut.positions * LANES,), gy.dtype)
            M = scratch.get("products", (cut.positions * pitch,), gy.dtype)
            rows, panels = k.stop - k.start, -(-(c.stop - c.start) // LANES)
            multiply(
                M,
                Y.memory[k.start :],
                V.memory[c.start :],
                (cut.positions, rows, tiles, panels),
                (pitch, Y.pitch, V.pitch),
                (columns, 1, Y.width, LANES, V.width),
                False,
            )
            put_taps(
                gw.reshape(-1),
                M,
                (cut.positions, pitch, columns),
                (k.start, k.stop, c.start, c.stop, C),
                cut.taps,
                cut.m,
                cut.reach,
                first > 0,
                tile,
            )

        parallel_for(transform, cut.parts)
        parallel_for(work, list(product(chunks_of(K, cut.depth), chunks_of(C, columns))))
    return channels_first(gw)


class _Correlation:
    """What fprop and dgrad do: x with filters, both as they are for fprop, into y."""

    def __init__(self, x, filters, y, cut: Plan, bias=None, relu: bool = False):
        self.x, self.filters, self.y, self.cut = x, filters, y, cut
        self.K, self.C = y.shape[4], x.shape[4]
        self.panels = -(-self.K // LANES)
        self.bias = np.zeros(self.panels * LANES, x.dtype)
        if bias is not None:
            self.bias[: self.K] = bias
        self.relu = bool(relu)
        self.scratch = Scratch()

    def run(self) -> None:
        cut, C = self.cut, self.C
        blocks = chunks_of(cut.tiles, cut.block)
        if cut.kept:
            pitch = self.panels * C * LANES + LANES
            U = empty(cut.positions * pitch, self.x.dtype)

            def transform_panel(panel: int) -> None:
                to = U[panel * C * LANES :]
                self.filters.transform(to, pitch, panel, 1, slice(0, C), self.tile())

            parallel_for(transform_panel, range(self.panels))
            parallel_for(lambda block: self.take_block(block, U, pitch), blocks)
            return
        V = _Tiles(cut, C, empty(_Tiles.size(cut, C), self.x.dtype))
        groups = chunks_of(self.panels, cut.panels)
        for block in blocks:
            tiles = block.stop - block.start

            def transform(part, first=block.start, tiles=tiles):
                part = slice(part.start, min(part.stop, tiles))
                V.take(self.x, first, part, self.tile())

            def multiply(group, block=block):
                self.take_panels(V, block, group)

            parallel_for(transform, cut.parts)
            parallel_for(multiply, groups)

    def take_block(self, block: slice, U: np.ndarray, pitch: int) -> None:
        """Take a block of tiles through all steps, with filters that were transformed before."""
        cut, C = self.cut, self.C
        V = _Tiles(cut, C, self.scratch.get("tiles", (_Tiles.size(cut, C),), self.x.dtype))
        tiles = block.stop - block.start
        V.take(self.x, block.start, slice(0, tiles), self.tile())
        M, of_m = self.products(self.panels)
        self.multiply(M, of_m, V, slice(0, C), U, pitch, tiles, self.panels)
        self.put_together(M, of_m, block, slice(0, self.panels))

    def take_panels(self, V, block: slice, group: slice) -> None:
        """Take panels of filters through all steps, with tiles that were transformed before."""
        cut = self.cut
        panels = group.stop - group.start
        M, of_m = self.products(panels)
        pitch = panels * cut.depth * LANES + LANES
        U = self.scratch.get("filters", (cut.positions * pitch,), self.x.dtype)
        for channels in chunks_of(self.C, cut.depth):
            self.filters.transform(U, pitch, group.start, panels, channels, self.tile())
            self.multiply(M, of_m, V, channels, U, pitch, block.stop - block.start, panels)
        self.put_together(M, of_m, block, group)

    def tile(self) -> np.ndarray:
        return self.scratch.get("tile", (self.cut.positions * LANES,), self.x.dtype)

    def products(self, panels: int) -> tuple[np.ndarray, int]:
        """Return memory for products of a block with so many panels, and its pitch."""
        pitch = (self.cut.block + ROWS) * panels * LANES + LANES
        return self.scratch.get("products", (self.cut.positions * pitch,), self.x.dtype), pitch

    def multiply(self, M, of_m, V, channels: slice, U, of_u, tiles: int, panels: int) -> None:
        depth = channels.stop - channels.start
        multiply(
            M,
            V.memory[channels.start :],
            U,
            (self.cut.positions, tiles, depth, panels),
            (of_m, V.pitch, of_u),
            (panels * LANES, V.width, 1, depth * LANES, LANES),
            channels.start > 0,
        )

    def put_together(self, M, pitch: int, block: slice, group: slice) -> None:
        cut = self.cut
        columns = (group.stop - group.start) * LANES
        put_together(
            self.y.reshape(-1),
            self.y.shape,
            M,
            (cut.positions, pitch, columns, group.start * LANES),
            self.bias,
            self.relu,
            cut.m,
            cut.reach,
            cut.counts,
            block.start,
            block.stop - block.start,
            self.tile(),
        )


class _Tiles:
    """Transformed tiles of a block: (positions, tiles, channels up to a whole vector)."""

    def __init__(self, cut: Plan, channels: int, memory: np.ndarray):
        self.cut, self.memory = cut, memory
        self.width = -(-channels // LANES) * LANES
        self.pitch = len(memory) // cut.positions

    @staticmethod
    def size(cut: Plan, channels: int) -> int:
        """Return how many numbers of memory they need.

        Matrix products read ROWS at a time, beyond the last tile. Between positions there is a
        gap, else they would be a multiple of 4096 bytes apart, which caches dislike.
        """
        return cut.positions * ((cut.block + ROWS) * -(-channels // LANES) * LANES + LANES)

    def take(self, x, first: int, part: slice, tile) -> None:
        """Transform a part of the block that begins with the tile `first`, of x."""
        cut, to = self.cut, self.memory[part.start * self.width :]
        at, count = first + part.start, part.stop - part.start
        shape, x = x.shape, x.reshape(-1)
        put_tiles(to, self.pitch, x, shape, cut.m, cut.reach, cut.counts, cut.low, at, count, tile)

    def take_gradients(self, gy, first: int, part: slice, tile) -> None:
        """Transform a part of the block that begins with the tile `first`, of gy."""
        cut, to = self.cut, self.memory[part.start * self.width :]
        at, count = first + part.start, part.stop - part.start
        shape, gy = gy.shape, gy.reshape(-1)
        put_gradients(to, self.pitch, gy, shape, cut.m, cut.reach, cut.counts, at, count, tile)


class _Filters:
    """The filters `K C T R S`, as they lie in memory; for dgrad turned round."""

    def __init__(self, w: np.ndarray, cut: Plan, turned: bool):
        self.cut = cut
        (K, C), taps = w.shape[:2], math.prod(w.shape[2:])
        if w.flags.c_contiguous and w.flags.aligned:
            self.memory, (k, c, tap) = w.reshape(-1), (taps * C, taps, 1)
        else:
            self.memory, (k, c, tap) = channels_last(w).reshape(-1), (taps * C, 1, C)
        if turned:
            self.start, self.steps, self.sizes = (taps - 1) * tap, (c, k, -tap), (C, K)
        else:
            self.start, self.steps, self.sizes = 0, (k, c, tap), (K, C)

    def transform(self, U, pitch: int, panel: int, panels: int, channels: slice, tile) -> None:
        """Write the transform of panels, and some channels, to U."""
        put_filters(
            U,
            pitch,
            self.memory,
            self.start,
            self.steps,
            self.sizes[0],
            (panel * LANES, panels, channels.start, channels.stop),
            self.cut.taps,
            self.cut.m,
            self.cut.reach,
            tile,
        )


def _moved(shape: Ints) -> Ints:
    """Return the shape N C D H W as N D H W C."""
    return (shape[0], *shape[2:], shape[1])
