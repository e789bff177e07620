"""TV-L1 and Horn-Schunck as their papers write them, in NumPy.

**TV-L1** (Zach, Pock, Bischof 2007; Sanchez, Meinhardt-Llopis, Facciolo 2013, algorithm 1) looks
for the flow u = (u1, u2) that makes the sum over all pixels of

    |grad u1| + |grad u2| + lambda |rho(u)|,
    rho(u) = I1(x + u0) + (u - u0) . grad I1(x + u0) - I0(x)

least, where rho is linear around the flow u0 of the last warp. Both terms have kinks. A second
flow v, held to u by |u - v|² / (2 theta), divides the problem in two that can be solved:

    v: a step along the gradient, per pixel, whose length is known              (equation 15)
    u: total variation denoising of v, by Chambolle's dual variables p          (equations 13, 14)

The flow of a smaller image, twice as long, is where the next larger one begins. A median filter
takes single wrong pixels out of the flow (Wedel et al. 2009; Sun, Roth, Black 2010).

**Horn-Schunck** (1981) makes the sum of alpha² (|grad u1|² + |grad u2|²) + (grad I . u + I_t)²
least: no kinks, so linear equations, and edges of the motion that blur.
"""

from __future__ import annotations

import numpy as np

from tinyvid.kernels.flow.pyramid import enlarged, gradient, pyramid
from tinyvid.kernels.flow.settings import TVL1


def tvl1(first: np.ndarray, second: np.ndarray, settings: TVL1) -> np.ndarray:
    """Return the flow from `first` to `second`, see `tinyvid.kernels.flow.tvl1_flow`."""
    s = settings
    levels = zip(pyramid(first, s.levels), pyramid(second, s.levels), strict=True)
    u: np.ndarray | None = None
    for i0, i1 in reversed(list(levels)):
        n, h, w = i0.shape
        u = np.zeros((n, 2, h, w), i0.dtype) if u is None else enlarged(u, (h, w))
        p = np.zeros((n, 2, 2, h, w), i0.dtype)  # of u1 and u2, each along x and y
        g1 = np.stack(gradient(i1), axis=1)  # (N, 2, H, W)
        for _ in range(s.warps):
            g = warp(g1, u)
            constant = warp(i1[:, None], u)[:, 0] - (g * u).sum(axis=1) - i0
            for _ in range(s.iterations):
                rho = constant + (g * u).sum(axis=1)
                v = u + _step(rho, (g * g).sum(axis=1), s.weight * s.theta)[:, None] * g
                u = v + s.theta * _divergence(p)
                rate, forward = s.tau / s.theta, _forward(u)
                length = np.sqrt((forward**2).sum(axis=2, keepdims=True))
                p = (p + rate * forward) / (1 + rate * length)
            for _ in range(s.medians):
                u = median(u)
    assert u is not None
    return u


def _step(rho: np.ndarray, square: np.ndarray, limit: float) -> np.ndarray:
    """How far to go along the gradient, whose squared length is `square`: to where rho is 0, but
    not further than `limit`; nowhere where the image is flat."""
    flat = square <= 1e-10
    to_zero = -rho / np.where(flat, 1, square)
    return np.where(flat, 0, np.clip(to_zero, -limit, limit)).astype(rho.dtype)


def _forward(u: np.ndarray) -> np.ndarray:
    """(N, 2, H, W) -> the differences to the next pixel along x and y (N, 2, 2, H, W); 0 at the
    border."""
    out = np.zeros((*u.shape[:2], 2, *u.shape[2:]), u.dtype)
    out[:, :, 0, :, :-1] = u[..., :, 1:] - u[..., :, :-1]
    out[:, :, 1, :-1, :] = u[..., 1:, :] - u[..., :-1, :]
    return out


def _divergence(p: np.ndarray) -> np.ndarray:
    """The negative adjoint of `_forward`: differences to the pixel before; 0 beyond the border."""
    out = p[:, :, 0] + p[:, :, 1]
    out[..., :, 1:] -= p[:, :, 0, :, :-1]
    out[..., 1:, :] -= p[:, :, 1, :-1, :]
    return out


def warp(images: np.ndarray, u: np.ndarray) -> np.ndarray:
    """Return images (N, C, H, W) at x + u(x), by cubic convolution; the border is repeated."""
    n, _, h, w = images.shape
    y, x = np.mgrid[:h, :w]
    at_x, at_y = x + u[:, 0], y + u[:, 1]  # (N, H, W)
    left, above = np.floor(at_x).astype(np.int64), np.floor(at_y).astype(np.int64)
    out = np.zeros_like(images)
    pair = np.arange(n)[:, None, None]
    for j, weight_y in enumerate(_cubic(at_y - above)):
        for i, weight_x in enumerate(_cubic(at_x - left)):
            row = np.clip(above - 1 + j, 0, h - 1)
            column = np.clip(left - 1 + i, 0, w - 1)
            found = images[pair, :, row, column]  # (N, H, W, C)
            out += (weight_y * weight_x)[:, None] * found.transpose(0, 3, 1, 2)
    return out


def _cubic(t: np.ndarray) -> list[np.ndarray]:
    """The weights of the four neighbours of a point, t beyond the second (Keys 1981, a = -1/2)."""
    return [
        (-t + 2 * t**2 - t**3) / 2,
        (2 - 5 * t**2 + 3 * t**3) / 2,
        (t + 4 * t**2 - 3 * t**3) / 2,
        (-(t**2) + t**3) / 2,
    ]


def median(u: np.ndarray) -> np.ndarray:
    """Return the median of each pixel's 3×3 neighbourhood; the border is repeated."""
    h, w = u.shape[-2:]
    padded = np.pad(u, [(0, 0)] * (u.ndim - 2) + [(1, 1), (1, 1)], mode="edge")
    around = [padded[..., y : y + h, x : x + w] for y in range(3) for x in range(3)]
    return np.sort(np.stack(around), axis=0)[4]


def horn_schunck(
    first: np.ndarray, second: np.ndarray, alpha: float, iterations: int
) -> np.ndarray:
    """Return the flow from `first` to `second`, see `tinyvid.kernels.flow.horn_schunck_flow`."""
    gx, gy = gradient((first + second) / 2)
    change = second - first
    u = np.zeros((len(first), 2, *first.shape[1:]), first.dtype)
    for _ in range(iterations):  # Jacobi's, on the equations of section 12 of the paper
        mean = _around(u)
        pull = (gx * mean[:, 0] + gy * mean[:, 1] + change) / (alpha**2 + gx**2 + gy**2)
        u = mean - np.stack([gx, gy], axis=1) * pull[:, None]
    return u


def _around(u: np.ndarray) -> np.ndarray:
    """The mean of the eight neighbours: those beside a pixel count 1/6, the others 1/12."""
    h, w = u.shape[-2:]
    padded = np.pad(u, [(0, 0), (0, 0), (1, 1), (1, 1)], mode="edge")
    out = np.zeros_like(u)
    for y in range(3):
        for x in range(3):
            if (y, x) != (1, 1):
                out += padded[..., y : y + h, x : x + w] / (6 if 1 in (y, x) else 12)
    return out
