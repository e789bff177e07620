"""What the tests of 2-D and 3-D convolution share: data, a brute-force loop, layouts."""

from collections.abc import Iterator
from functools import cache

import numpy as np
import pytest
from compare import assert_close
from numba.core.compiler_lock import global_compiler_lock
from numba.core.dispatcher import Dispatcher

from tinyvid import kernels
from tinyvid.kernels.conv3d.cases import ConvCase

PASSES = ("fprop", "dgrad", "wgrad")


def integers(shape: tuple[int, ...], dtype, seed: int) -> np.ndarray:
    """Small whole numbers: their sums are exact, so every order of summation agrees."""
    return np.random.default_rng(seed).integers(-4, 5, shape).astype(dtype)


def reals(shape: tuple[int, ...], dtype, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def arguments(case: ConvCase, dtype, make=integers) -> dict[str, np.ndarray]:
    shapes = {"x": case.x, "w": case.w, "gy": case.geometry.y}
    return {letter: make(shape, dtype, seed) for seed, (letter, shape) in enumerate(shapes.items())}


TAKES = {"fprop": ("x", "w"), "dgrad": ("gy", "w"), "wgrad": ("gy", "x")}


def run(op: str, pass_: str, variant: str, given: dict[str, np.ndarray], geometry) -> np.ndarray:
    kernel = getattr(kernels, f"{op}_{pass_}")
    with kernels.use(**{kernel.name: variant}):
        return kernel(*(given[letter] for letter in TAKES[pass_]), geometry)


def brute_force(case: ConvCase, x, w, gy) -> dict[str, np.ndarray]:
    """Return each pass's result, one product of three numbers at a time.

    Padding is made of real zeros here, and sizes are worked out anew.
    """
    rank = len(case.w) - 2

    def each(value):
        return (value,) * rank if isinstance(value, int) else value

    stride, dilation = each(case.stride), each(case.dilation)
    if case.padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, case.w[2:], strict=True)]
        padding = [(total // 2, total - total // 2) for total in totals]
    else:
        padding = [(p, p) for p in each(case.padding)]

    planes = np.zeros((x.shape[0], w.shape[1] * case.groups, *x.shape[-rank:]), x.dtype)
    if x.ndim == rank + 3:  # a clip: plane (c, t) is channel c * T + t
        for c in range(x.shape[1]):
            for t in range(x.shape[2]):
                planes[:, c * x.shape[2] + t] = x[:, c, t]
    else:
        planes[...] = x
    padded = np.pad(planes, [(0, 0), (0, 0), *padding])
    y, gpadded, gw = np.zeros_like(gy), np.zeros_like(padded), np.zeros_like(w)
    for n, k, *out in np.ndindex(*gy.shape):
        group = k // (w.shape[0] // case.groups)
        for c, *tap in np.ndindex(*w.shape[1:]):
            cell = [o * s + t * d for o, s, t, d in zip(out, stride, tap, dilation, strict=True)]
            at_x, at_w, at_y = (n, group * w.shape[1] + c, *cell), (k, c, *tap), (n, k, *out)
            y[at_y] += padded[at_x] * w[at_w]
            gpadded[at_x] += gy[at_y] * w[at_w]
            gw[at_w] += gy[at_y] * padded[at_x]
    inside = [
        slice(low, low + size) for (low, _), size in zip(padding, x.shape[-rank:], strict=True)
    ]
    return {"fprop": y, "dgrad": gpadded[(..., *inside)].reshape(x.shape), "wgrad": gw}


def layouts(array: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the array as it may lie in memory, read-only, as a tensor's data is."""
    yield "contiguous", array
    yield "channels-last", np.moveaxis(np.moveaxis(array, 1, -1).copy(), -1, 1)
    yield "transposed", array.T.copy().T
    filling = np.nan if array.dtype.kind == "f" else 0
    wide = np.full((*array.shape[:-1], 2 * array.shape[-1] + 1), filling, array.dtype)
    wide[..., 1::2] = array
    yield "sliced", wide[..., 1::2]
    backwards = tuple(slice(None, None, -1) for _ in array.shape)
    yield "negative strides", array[backwards].copy()[backwards]
    shifted = np.empty(array.nbytes + 1, np.uint8)[1:].view(array.dtype).reshape(array.shape)
    shifted[...] = array
    yield "unaligned", shifted


def check_variant(op: str, pass_: str, variant: str, case: ConvCase, dtype) -> None:
    """Assert that a variant agrees with the reference, however its inputs lie in memory."""
    given = arguments(case, dtype)
    want = expected(op, pass_, case, dtype)
    for name, *pair in zip(
        *[[name for name, _ in layouts(given["x"])]],
        *[[a for _, a in layouts(given[letter])] for letter in TAKES[pass_]],
        strict=True,
    ):
        before = [array.copy() for array in pair]
        for array in pair:
            array.flags.writeable = False
        got = run(op, pass_, variant, dict(zip(TAKES[pass_], pair, strict=True)), case.geometry)
        assert_close(got, want)
        assert np.moveaxis(got, 1, -1).flags.c_contiguous, (
            f"{name}: the output is not channels-last"
        )
        for array, copy in zip(pair, before, strict=True):
            assert_close(array, copy)


@cache
def expected(op: str, pass_: str, case: ConvCase, dtype) -> np.ndarray:
    return run(op, pass_, "reference", arguments(case, dtype), case.geometry)


def check_trilinear(op: str, case: ConvCase, variants: dict[str, str]) -> None:
    """Assert <gy, conv(x, w)> = <dgrad(gy, w), x> = <wgrad(gy, x), w>."""
    given = arguments(case, np.float64, reals)
    y, gx, gw = (run(op, pass_, variants[pass_], given, case.geometry) for pass_ in PASSES)
    form = np.vdot(given["gy"], y)
    size = np.linalg.norm(given["gy"]) * np.linalg.norm(y)
    assert np.vdot(gx, given["x"]) == pytest.approx(form, abs=1e-12 * size)
    assert np.vdot(gw, given["w"]) == pytest.approx(form, abs=1e-12 * size)


def check_finish(op: str, variant: str, case: ConvCase, dtype) -> None:
    """Assert that fprop adds its bias, takes the ReLU, does both, and keeps NaN."""
    x, w, _ = arguments(case, dtype).values()
    bias = np.arange(case.w[0], dtype=dtype) - case.w[0] // 2
    wide = np.full(2 * bias.size, np.nan, dtype)
    wide[::2] = bias
    fprop = getattr(kernels, f"{op}_fprop")
    plain = expected(op, "fprop", case, dtype)
    biased = plain + bias.reshape(-1, *[1] * (plain.ndim - 2))
    zero = dtype(0)
    assert (biased < 0).any() or biased.size < 2
    with kernels.use(**{fprop.name: variant}):
        assert_close(fprop(x, w, case.geometry, bias), biased)
        assert_close(fprop(x, w, case.geometry, wide[::2]), biased)
        assert_close(fprop(x, w, case.geometry, None, True), np.maximum(plain, zero))
        got = fprop(x, w, case.geometry, bias, True)
        assert_close(got, np.maximum(biased, zero))
        assert np.moveaxis(got, 1, -1).flags.c_contiguous
        bias[0] = np.nan
        assert np.isnan(fprop(x, w, case.geometry, bias, True)[:, 0]).all()


def small(cases: list[ConvCase]) -> list:
    """The cases that a reference can take, as test parameters."""
    return [pytest.param(case, id=case.name) for case in cases if not case.large]


def variants_of(op: str) -> list[str]:
    """The variants that run here and take every case, but for the reference."""
    variants = getattr(kernels, f"{op}_fprop").variants.values()
    return [v.name for v in variants if v.target == "cpu" and v.unfit is None]


@pytest.fixture
def poisoned(monkeypatch):
    """Fill every `np.empty` with NaN, so that an element never written fails.

    A function that Numba compiles meanwhile finds NumPy's own: any other it does not know, and
    would not forget.
    """
    empty, compile_ = np.empty, Dispatcher.compile

    def poison(*args, **kwargs):
        array = empty(*args, **kwargs)
        if array.dtype.kind == "f":
            array.fill(np.nan)
        return array

    def with_numpys_own(self, signature):
        with global_compiler_lock:  # other threads compile before or after
            now, np.empty = np.empty, empty
            try:
                return compile_(self, signature)
            finally:
                np.empty = now

    monkeypatch.setattr(np, "empty", poison)
    monkeypatch.setattr(Dispatcher, "compile", with_numpys_own)
