"""Pooling as differentiable operations: every argument, 2-D forms, adaptive forms."""

import itertools
import math

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, tensor

f32 = np.float32


def apart(*shape, seed=0):
    """Values at least 0.1 apart, so that no maximum changes within a difference."""
    n = math.prod(shape)
    values = np.random.default_rng(seed).permutation(n) / 10.0
    return tensor(values.reshape(shape), requires_grad=True)


def test_max_pool3d_by_hand():
    x = tensor(np.array([1.0, 3, 2, 0], f32).reshape(1, 1, 1, 1, 4), requires_grad=True)
    y, at = tinyvid.max_pool3d(x, (1, 1, 2), return_indices=True)
    assert_close(y, np.array([3, 2], f32).reshape(1, 1, 1, 1, 2))
    assert_close(at, np.array([1, 2]).reshape(1, 1, 1, 1, 2))
    y.backward(np.array([10, 20], f32).reshape(y.shape))
    assert_close(x.grad, np.array([0, 10, 20, 0], f32).reshape(x.shape))


def test_avg_pool3d_by_hand():
    x = tensor(np.array([1.0, 3, 2, 6], f32).reshape(1, 1, 1, 1, 4))
    pool = lambda *a, **k: tinyvid.avg_pool3d(x, (1, 1, 2), *a, **k).data.ravel()  # noqa: E731
    assert_close(pool(), np.array([2, 4], f32))
    assert_close(pool(1), np.array([2, 2.5, 4], f32))
    assert_close(pool(2, (0, 0, 1)), np.array([0.5, 2.5, 3], f32))  # 0 + 1, 3 + 2, 6 + 0
    assert_close(pool(2, (0, 0, 1), count_include_pad=False), np.array([1, 2.5, 6], f32))
    assert_close(pool(2, divisor_override=4), np.array([1, 2], f32))
    assert_close(pool(3, ceil_mode=True), np.array([2, 6], f32))  # the second window overhangs


MAX = {
    "plain": {"kernel_size": 2},
    "stride": {"kernel_size": 2, "stride": 1},
    "an argument an axis": {"kernel_size": (2, 3, 1), "stride": (1, 2, 2), "padding": (1, 1, 0)},
    "overlap": {"kernel_size": 3, "stride": 2, "padding": 1},
    "dilation": {"kernel_size": 2, "stride": 1, "dilation": (1, 2, 3)},
    "ceil": {"kernel_size": 3, "stride": 2, "ceil_mode": True},
    "ceil and padding": {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
    "whole": {"kernel_size": (4, 5, 6)},
}


def windows(shape, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """Give (output position, cells inside the input, cells with padding) of each window."""
    axes = []
    for axis, n in enumerate(shape):
        k, s, p, d = (
            v if isinstance(v, int) else v[axis]
            for v in (kernel_size, kernel_size if stride is None else stride, padding, dilation)
        )
        room = n + 2 * p - d * (k - 1) - 1
        count = (math.ceil if ceil_mode else math.floor)(room / s) + 1
        if ceil_mode and (count - 1) * s >= n + p:
            count -= 1
        starts = [i * s - p for i in range(count)]
        cells = [[c for c in range(a, a + d * k, d) if 0 <= c < n] for a in starts]
        padded = [len([c for c in range(a, a + d * k, d) if c < n + p]) for a in starts]
        axes.append(list(zip(range(count), cells, padded, strict=True)))
    for parts in itertools.product(*axes):
        places, cells, padded = zip(*parts, strict=True)
        yield places, np.ix_(*cells), math.prod(padded)


@pytest.mark.parametrize("name", MAX)
def test_max_pool3d_window_by_window(name):
    x = apart(2, 2, 4, 5, 6)
    y, at = tinyvid.max_pool3d(x, **MAX[name], return_indices=True)
    index = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    want, places = np.full(y.shape, np.nan), np.full(y.shape, -1)
    for place, cells, _ in windows((4, 5, 6), **MAX[name]):
        inside = x.data[(slice(None), slice(None))][:, :, cells[0], cells[1], cells[2]]
        flat = inside.reshape(2, 2, -1)
        want[(..., *place)] = flat.max(-1)
        places[(..., *place)] = index[cells].ravel()[flat.argmax(-1)]
    assert_close(y, want)
    assert_close(at, places)
    run = lambda x: tinyvid.max_pool3d(x, **MAX[name])  # noqa: E731
    gradcheck(run, (x,), mode="random")
    gradgradcheck(lambda x: run(x * x), (x,), mode="random")


AVG = {
    "plain": {"kernel_size": 2},
    "an argument an axis": {"kernel_size": (2, 3, 2), "stride": (1, 2, 2), "padding": (1, 1, 0)},
    "ceil": {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
    "ceil, large stride": {"kernel_size": 2, "stride": 3, "padding": 1, "ceil_mode": True},
}


@pytest.mark.parametrize("divisor", [None, 5, -3])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("name", AVG)
def test_avg_pool3d_window_by_window(name, count_include_pad, divisor):
    x = apart(2, 1, 4, 5, 6)
    run = lambda x: tinyvid.avg_pool3d(  # noqa: E731
        x, **AVG[name], count_include_pad=count_include_pad, divisor_override=divisor
    )
    y = run(x)
    want = np.full(y.shape, np.nan)
    for place, cells, padded in windows((4, 5, 6), **AVG[name]):
        inside = x.data[:, :, cells[0], cells[1], cells[2]].reshape(2, 1, -1)
        count = divisor or (padded if count_include_pad else inside.shape[-1])
        want[(..., *place)] = inside.sum(-1) / count
    assert_close(y, want, rtol=1e-12)
    gradcheck(run, (x,), mode="random")
    gradgradcheck(lambda x: run(x * x), (x,), mode="random")


# The 2-D forms


TWO = [
    {"kernel_size": 2},
    {"kernel_size": (3, 2), "stride": (2, 1), "padding": (1, 0)},
    {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True},
]


@pytest.mark.parametrize("options", TWO, ids=str)
def test_2d_forms_are_clips_of_one_frame(options):
    x = apart(2, 3, 5, 6)
    lift = {
        k: v if isinstance(v, bool) else ({"padding": 0}.get(k, 1), *np.broadcast_to(v, 2).tolist())
        for k, v in options.items()
    }
    clip = x.reshape(2, 3, 1, 5, 6)
    y, at = tinyvid.max_pool2d(x, **options, return_indices=True)
    want, places = tinyvid.max_pool3d(clip, **lift, return_indices=True)
    assert_close(y, want.data[:, :, 0])
    assert_close(at, places.data[:, :, 0])
    assert_close(tinyvid.max_pool2d(x, **options), y.data)
    assert_close(tinyvid.avg_pool2d(x, **options), tinyvid.avg_pool3d(clip, **lift).data[:, :, 0])
    gradcheck(lambda x: tinyvid.max_pool2d(x, **options), (x,), mode="random")
    gradcheck(lambda x: tinyvid.avg_pool2d(x, **options), (x,), mode="random")


# Adaptive forms


SIZES = [1, 2, 3, (4, 5, 6), (3, 4, 5), (2, 1, 4), (None, 2, None), (5, 7, 8), [1, None, 3]]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_adaptive_pools_window_by_window(kind, size):
    x = apart(2, 2, 4, 5, 6)
    run = lambda x: getattr(tinyvid, f"adaptive_{kind}_pool3d")(x, size)  # noqa: E731
    y = run(x)
    sizes = [
        n if s is None else s
        for s, n in zip((size,) * 3 if isinstance(size, int) else size, (4, 5, 6), strict=True)
    ]
    want = np.full((2, 2, *sizes), np.nan)
    for at in np.ndindex(*sizes):
        window = tuple(
            slice(i * n // m, math.ceil((i + 1) * n / m))
            for i, n, m in zip(at, (4, 5, 6), sizes, strict=True)
        )
        inside = x.data[(slice(None), slice(None), *window)]
        want[(..., *at)] = (inside.mean if kind == "avg" else inside.max)((2, 3, 4))
    assert_close(y, want, rtol=1e-12)
    gradcheck(run, (x,), mode="random")
    gradgradcheck(lambda x: run(x * x), (x,), mode="random")


@pytest.mark.parametrize("size", [1, 3, (2, 4), (None, 3)], ids=str)
def test_adaptive_2d(size):
    x = apart(2, 3, 5, 7)
    three = (1, size, size) if isinstance(size, int) else (1, *size)
    for kind in ("avg", "max"):
        want = getattr(tinyvid, f"adaptive_{kind}_pool3d")(x.reshape(2, 3, 1, 5, 7), three)
        got = getattr(tinyvid, f"adaptive_{kind}_pool2d")(x, size)
        assert_close(got, want.data[:, :, 0], rtol=1e-12)


def test_against_torch():
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    x = apart(2, 2, 4, 5, 6)
    X = torch.from_numpy(x.data.copy())
    for options in MAX.values():
        want, at = functional.max_pool3d(X, **options, return_indices=True)
        y, places = tinyvid.max_pool3d(x, **options, return_indices=True)
        assert_close(y, want.numpy())
        assert_close(places, at.numpy())
    for options, count in itertools.product(AVG.values(), (False, True)):
        want = functional.avg_pool3d(X, **options, count_include_pad=count)
        got = tinyvid.avg_pool3d(x, **options, count_include_pad=count)
        assert_close(got, want.numpy(), rtol=1e-12)
    for size in SIZES:
        for kind in ("avg", "max"):
            name = f"adaptive_{kind}_pool3d"
            want = getattr(functional, name)(X, size)
            assert_close(getattr(tinyvid, name)(x, size), want.numpy(), rtol=1e-12)


def test_what_is_refused():
    x, image = tensor(np.ones((1, 1, 4, 4, 4))), tensor(np.ones((1, 1, 4, 4)))
    refused = [
        (lambda: tinyvid.max_pool3d(image, 2), r"\(1, 1, 4, 4\).*\(N, C, D, H, W\)"),
        (lambda: tinyvid.max_pool3d(x, 5), "does not fit"),
        (lambda: tinyvid.max_pool3d(x, 2, padding=2), "padding=2 must be at most half"),
        (lambda: tinyvid.max_pool3d(x, 0), "kernel_size=0"),
        (lambda: tinyvid.avg_pool3d(x, 2, stride=0), "stride=0"),
        (lambda: tinyvid.avg_pool3d(x, 2, divisor_override=0), "divisor_override must not be 0"),
        (lambda: tinyvid.max_pool2d(x, 2), r"\(N, C, H, W\).*\(1, 1, 4, 4, 4\)"),
        (lambda: tinyvid.max_pool2d(image, (1, 2, 3)), r"kernel_size=\(1, 2, 3\)"),
        (lambda: tinyvid.avg_pool2d(image, 2, 0), "stride=0"),
        (lambda: tinyvid.adaptive_avg_pool3d(image, 2), r"3 axes, not shape \(1, 1, 4, 4\)"),
        (lambda: tinyvid.adaptive_max_pool3d(x, (2, 2)), "output_size"),
        (lambda: tinyvid.adaptive_avg_pool2d(image, (2, 2, 2)), "output_size"),
        (lambda: tinyvid.adaptive_avg_pool3d(x, 0), "output_size=0"),
    ]
    for call, message in refused:
        with pytest.raises(UserError, match=message):
            call()
