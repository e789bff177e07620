"""Convolution and pooling in NumPy, one filter tap after the other: as fast as plain NumPy goes.

The sums of the references in another order: those loop over outputs too, and would take minutes
for a layer of a real network. In float64 this is what large results are compared with; in float32
it is the peer `numpy`. Arrays of any rank: spatial axes are those after the first two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np

from tinyvid.geometry import ConvGeometry, PoolGeometry
from tinyvid.kernels.pool3d import argmax_dtype

Index = tuple[slice, ...]


def planes(x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """Return a clip N C T H W as N C*T H W where the filter has two axes; else x."""
    return x.reshape(len(x), -1, *x.shape[-geometry.rank :])


def conv_fprop(x: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """y[n,k] = sum over c and taps of x[n,c], moved by the tap, * w[k,c,tap].

    Only the spatial sizes are taken from the geometry: N, C and K may be others.
    """
    x = planes(x, geometry)
    padded, cells = _padded(x, geometry, 0)
    y = np.zeros((len(w), len(x), *geometry.y[2:]), x.dtype)  # (K, N, Z, P, Q)
    for tap, seen in cells:
        for cs, ks in _groups(geometry, x.shape[1], len(w)):
            y[ks] += np.tensordot(w[_at(ks, tap)], padded[:, cs][seen], ((1,), (1,)))
    return y.swapaxes(0, 1)


def conv_dgrad(gy: np.ndarray, w: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """gx[n,c], moved by the tap, = sum over k and taps of gy[n,k] * w[k,c,tap].

    Of a clip in two dimensions, channel c*T + t of gx is its plane (c, t).
    """
    channels = w.shape[1] * geometry.groups
    empty = np.zeros((len(gy), channels, *_spatial(geometry)), gy.dtype)
    padded, cells = _padded(empty, geometry, 0)
    for tap, seen in cells:
        for cs, ks in _groups(geometry, channels, len(w)):
            part = np.tensordot(w[_at(ks, tap)], gy[:, ks], ((0,), (1,)))  # (C, N, ...)
            padded[:, cs][seen] += part.swapaxes(0, 1)
    return padded[_inside(geometry)]


def conv_wgrad(gy: np.ndarray, x: np.ndarray, geometry: ConvGeometry) -> np.ndarray:
    """gw[k,c,tap] = sum over n and outputs of gy[n,k] * x[n,c], moved by the tap."""
    x = planes(x, geometry)
    padded, cells = _padded(x, geometry, 0)
    filters, channels = gy.shape[1], x.shape[1]
    gw = np.empty((filters, channels // geometry.groups, *geometry.w[2:]), gy.dtype)
    summed = (0, *range(2, gy.ndim))
    for tap, seen in cells:
        for cs, ks in _groups(geometry, channels, filters):
            part = np.tensordot(gy[:, ks], padded[:, cs][seen], (summed, summed))
            gw[_at(ks, tap)] = part
    return gw


def max_fprop(x: np.ndarray, geometry: PoolGeometry) -> tuple[np.ndarray, np.ndarray]:
    """y = max over the window's taps of x; argmax = the number of the tap where it stands."""
    padded, cells = _padded(x, geometry, -np.inf)
    y = np.full(geometry.y, -np.inf, x.dtype)
    argmax = np.zeros(geometry.y, argmax_dtype(geometry))
    for number, (_, seen) in enumerate(cells):
        larger = padded[seen] > y
        np.copyto(y, padded[seen], where=larger)
        argmax[larger] = number
    return y, argmax


def max_dgrad(gy: np.ndarray, argmax: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    """gx, moved by the tap, = sum over taps of gy where argmax names the tap."""
    padded, cells = _padded(np.zeros(geometry.x, gy.dtype), geometry, 0)
    for number, (_, seen) in enumerate(cells):
        padded[seen] += np.where(argmax == number, gy, 0)
    return padded[_inside(geometry)]


def max_gather(x: np.ndarray, argmax: np.ndarray, geometry: PoolGeometry) -> np.ndarray:
    """y = x, moved by the tap that argmax names."""
    padded, cells = _padded(x, geometry, 0)
    y = np.full(geometry.y, np.nan, x.dtype)  # stays where argmax names no tap
    for number, (_, seen) in enumerate(cells):
        np.copyto(y, padded[seen], where=argmax == number)
    return y


def avg_fprop(
    x: np.ndarray, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> np.ndarray:
    """y = sum over the window's taps of x / divisor."""
    padded, cells = _padded(x, geometry, 0)
    y = np.zeros(geometry.y, x.dtype)
    for _, seen in cells:
        y += padded[seen]
    return y / _divisor(geometry, count_include_pad, divisor_override).astype(x.dtype)


def avg_dgrad(
    gy: np.ndarray, geometry: PoolGeometry, count_include_pad: bool, divisor_override: int | None
) -> np.ndarray:
    """gx, moved by the tap, = sum over taps of gy / divisor."""
    share = gy / _divisor(geometry, count_include_pad, divisor_override).astype(gy.dtype)
    padded, cells = _padded(np.zeros(geometry.x, gy.dtype), geometry, 0)
    for _, seen in cells:
        padded[seen] += share
    return padded[_inside(geometry)]


def _divisor(geometry: PoolGeometry, with_padding: bool, override: int | None) -> np.ndarray:
    """Return what each window is divided by, as an array of the output's spatial axes."""
    if override is not None:
        return np.array(override)
    counts = []
    pairs = zip(_spatial(geometry), geometry.padding, strict=True)
    for axis, (size, (low, high)) in enumerate(pairs):
        first = np.arange(geometry.y[2 + axis]) * geometry.stride[axis] - low
        end = first + geometry.window[axis]
        least, most = (-low, size + high) if with_padding else (0, size)
        counts.append(np.minimum(end, most) - np.maximum(first, least))
    return np.asarray(math.prod(np.ix_(*counts)))


Geometry = ConvGeometry | PoolGeometry


def _window(geometry: Geometry) -> tuple[int, ...]:
    return geometry.w[2:] if isinstance(geometry, ConvGeometry) else geometry.window


def _spatial(geometry: Geometry) -> tuple[int, ...]:
    return geometry.x[-len(_window(geometry)) :]


def _padded(
    x: np.ndarray, geometry: Geometry, value: float
) -> tuple[np.ndarray, Iterator[tuple[tuple[int, ...], Index]]]:
    """Return x with a border that every window fits into, and (tap, the cells it sees) of each."""
    border = [(0, 0), (0, 0)]
    axes = zip(
        _spatial(geometry),
        geometry.y[2:],
        _window(geometry),
        geometry.stride,
        geometry.padding,
        geometry.dilation,
        strict=True,
    )
    for size, out, taps, stride, (low, _), dilation in axes:
        needed = (out - 1) * stride + (taps - 1) * dilation + 1
        border.append((low, max(0, needed - size - low)))
    return np.pad(x, border, constant_values=value), _cells(geometry)


def _cells(geometry: Geometry) -> Iterator[tuple[tuple[int, ...], Index]]:
    for tap in product(*map(range, _window(geometry))):
        starts = [t * d for t, d in zip(tap, geometry.dilation, strict=True)]
        yield (
            tap,
            (
                slice(None),
                slice(None),
                *(
                    slice(start, start + (out - 1) * stride + 1, stride)
                    for start, out, stride in zip(
                        starts, geometry.y[2:], geometry.stride, strict=True
                    )
                ),
            ),
        )


def _inside(geometry: Geometry) -> Index:
    """Return where the input lies in its padded form."""
    places = zip(_spatial(geometry), geometry.padding, strict=True)
    return (slice(None), slice(None), *(slice(low, low + size) for size, (low, _) in places))


def _at(ks: slice, tap: tuple[int, ...]) -> Any:
    """Return where a filter tap of the filters `ks` stands in w."""
    return (ks, slice(None), *tap)


def _groups(geometry: ConvGeometry, channels: int, filters: int) -> Iterator[tuple[slice, slice]]:
    """Yield each group's input channels and output channels."""
    C, K = channels // geometry.groups, filters // geometry.groups
    for g in range(geometry.groups):
        yield slice(g * C, (g + 1) * C), slice(g * K, (g + 1) * K)
