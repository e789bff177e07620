"""3-D pooling: the reference against numbers worked by hand and brute force, then the variants."""

import math

import numpy as np
import pytest
from compare import assert_close

from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.geometry import pool_geometry
from tinyvid.kernels.pool3d import argmax_dtype, reference
from tinyvid.kernels.pool3d.cases import CASES, Case
from tinyvid.kernels.threads import get_num_threads, set_num_threads

MAX_KERNELS = (kernels.max_pool3d_fprop, kernels.max_pool3d_dgrad, kernels.max_pool3d_gather)
AVG_KERNELS = (kernels.avg_pool3d_fprop, kernels.avg_pool3d_dgrad)
SMALL = [case for case in CASES if not case.large]
# Those that the reference's loops get through in about a second.
CHECKED = [c for c in CASES if math.prod(c.geometry.y[2:]) * math.prod(c.window) <= 30_000]
NAN, INF = math.nan, math.inf


def named(cases: list[Case]):
    return pytest.mark.parametrize("case", cases, ids=lambda case: case.name)


def averaged(cases: list[Case]) -> list[Case]:
    """Those that average pooling takes."""
    return [case for case in cases if case.dilation == (1, 1, 1)]


def divisor_of(case: Case) -> tuple[bool, int | None]:
    return case.count_include_pad, case.divisor_override


def random(shape, dtype=np.float64, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def tied(shape, seed=0) -> np.ndarray:
    """Small integers, so that most windows have several equal maxima, with some infinities."""
    values = np.array([-INF, -2, -1, 0, 1, 2, 2, INF])
    return np.random.default_rng(seed).choice(values, shape)


def along_w(values, dtype=np.float64) -> np.ndarray:
    """One row of cells as a whole input."""
    return np.array(values, dtype).reshape(1, 1, 1, 1, -1)


VARIANTS = ["reference", "cpu/channels_last"]
every_variant = pytest.mark.parametrize("variant", VARIANTS)


# ---------------------------------------------------------------- numbers worked by hand


@every_variant
def test_max_of_two_frames_by_hand(variant):
    # frames  [1 5 2]   [7 0 2]   one window of 2x2x2 at w = 0, another at w = 1
    #         [3 4 6]   [1 7 6]
    x = np.array([[[1, 5, 2], [3, 4, 6]], [[7, 0, 2], [1, 7, 6]]], np.float32)[None, None]
    geometry = pool_geometry(x.shape, 2, 1)
    with kernels.use(max_pool3d=variant):
        y, argmax = kernels.max_pool3d_fprop(x, geometry)
        # w = 0: 1 5 3 4 | 7 0 1 7: the first 7 is the fifth cell, offset 4
        # w = 1: 5 2 4 6 | 0 2 7 6: 7 is the seventh cell, offset 6
        assert_close(y, np.array([7, 7], np.float32).reshape(1, 1, 1, 1, 2))
        assert_close(argmax, np.array([4, 6], np.uint8).reshape(1, 1, 1, 1, 2))
        gy = np.array([10, 3], np.float32).reshape(y.shape)
        gx = np.zeros_like(x)
        gx[0, 0, 1, 0, 0], gx[0, 0, 1, 1, 1] = 10, 3  # offset 4 is (1, 0, 0); 6 is (1, 1, 0) + 1
        assert_close(kernels.max_pool3d_dgrad(gy, argmax, geometry), gx)
        # 1 2 3 .. 12 read at the same places: the 7th and the 11th
        counted = np.arange(1, 13, dtype=np.float32).reshape(x.shape)
        want = np.array([7, 11], np.float32).reshape(y.shape)
        assert_close(kernels.max_pool3d_gather(counted, argmax, geometry), want)


@every_variant
def test_overlapping_windows_add_up_by_hand(variant):
    # windows of 3, stride 1, over 1 9 2 8: both have the 9, at offset 1 and 0
    geometry = pool_geometry((1, 1, 1, 1, 4), (1, 1, 3), 1)
    with kernels.use(max_pool3d=variant):
        _, argmax = kernels.max_pool3d_fprop(along_w([1, 9, 2, 8]), geometry)
        assert argmax.ravel().tolist() == [1, 0]
        gx = kernels.max_pool3d_dgrad(along_w([0.5, 0.25]), argmax, geometry)
    assert_close(gx, along_w([0, 0.75, 0, 0]))


@every_variant
@pytest.mark.parametrize(
    ("cells", "best", "at"),
    [
        ([-INF, -INF, -INF, -INF], -INF, 0),  # even so an offset inside the window
        ([1, NAN, 5, 2], NAN, 1),
        ([NAN, 7, NAN, 9], NAN, 2),  # as in PyTorch, the last NaN
        ([3, 3, 3, 3], 3, 0),
        ([-0.0, 0.0, -1, -1], 0.0, 0),  # zeros are equal
        ([-INF, 1, INF, INF], INF, 2),
    ],
)
def test_what_wins(variant, cells, best, at):
    for channels in (1, 40):  # more than a vector of channels
        x = np.repeat(along_w(cells), channels, axis=1)
        with kernels.use(max_pool3d=variant):
            y, argmax = kernels.max_pool3d_fprop(x, pool_geometry(x.shape, (1, 1, 4)))
        assert np.array_equal(y, np.full_like(y, best), equal_nan=True)
        assert_close(argmax, np.full_like(argmax, at))


@every_variant
def test_no_argmax_points_into_padding(variant):
    # windows of 2, stride 1, padding 1 over two -inf: [pad x0] [x0 x1] [x1 pad]
    x = along_w([-INF, -INF])
    geometry = pool_geometry(x.shape, (1, 1, 2), 1, (0, 0, 1))
    with kernels.use(max_pool3d=variant):
        y, argmax = kernels.max_pool3d_fprop(x, geometry)
        assert np.isneginf(y).all()
        assert argmax.ravel().tolist() == [1, 0, 0]
        assert np.isneginf(kernels.max_pool3d_gather(x, argmax, geometry)).all()


@every_variant
def test_divisors_by_hand(variant):
    # windows of 3, stride 2, padding 1, ceil_mode, over 1 2 4 8 16 32:
    #   [pad 1 2] [2 4 8] [8 16 32] [32 pad overhang]
    # With the padding they count 3, 3, 3 and 2 cells (what overhangs never counts), without
    # it 2, 3, 3 and 1.
    x = along_w([1, 2, 4, 8, 16, 32])
    geometry = pool_geometry(x.shape, (1, 1, 3), (1, 1, 2), (0, 0, 1), ceil_mode=True)
    sums = np.array([3, 14, 56, 32.0])
    gy = along_w([6, 12, 18, 24])
    with kernels.use(avg_pool3d=variant):
        for options, divisors in [
            ((True, None), [3, 3, 3, 2]),
            ((False, None), [2, 3, 3, 1]),
            ((True, 4), [4, 4, 4, 4]),
            ((False, -2), [-2, -2, -2, -2]),
        ]:
            y = kernels.avg_pool3d_fprop(x, geometry, *options)
            assert_close(y, along_w(sums / divisors), rtol=1e-15)
            # cells 1 3 5 are in two windows, but for the last ones: 0:{0} 1:{0,1} 2:{1}
            # 3:{1,2} 4:{2} 5:{2,3}
            a, b, c, d = gy.ravel() / divisors
            gx = kernels.avg_pool3d_dgrad(gy, geometry, *options)
            assert_close(gx, along_w([a, a + b, b, b + c, c, c + d]), rtol=1e-15)


# ---------------------------------------------------------------- brute force


def brute_force_max(x, case):
    """Element by element, with the padding and the overhang really there, as -inf."""
    pad = [(0, 0), (0, 0)] + [
        (p, p + k * d) for p, k, d in zip(case.padding, case.window, case.dilation, strict=True)
    ]
    padded = np.pad(x, pad, constant_values=-INF)
    real = np.pad(np.ones(x.shape, bool), pad)
    stride = case.stride or case.window
    y, argmax = np.full(case.geometry.y, NAN), np.full(case.geometry.y, -1)
    for n, c, *out in np.ndindex(*y.shape):
        best, at = None, None
        for offset, tap in enumerate(np.ndindex(*case.window)):
            cell = (
                n,
                c,
                *(
                    o * s + k * d
                    for o, s, k, d in zip(out, stride, tap, case.dilation, strict=True)
                ),
            )
            if real[cell] and (best is None or padded[cell] > best):
                best, at = padded[cell], offset
        y[(n, c, *out)], argmax[(n, c, *out)] = best, at
    return y, argmax


@named(SMALL)
def test_max_reference_against_brute_force(case):
    x = tied(case.x)
    y, argmax = reference.max_fprop(x, case.geometry)
    want, at = brute_force_max(x, case)
    assert_close(y, want)
    assert_close(argmax, at.astype(argmax_dtype(case.geometry)))


@named(SMALL)
def test_max_gradient_reference_against_brute_force(case):
    geometry = case.geometry
    _, argmax = reference.max_fprop(tied(case.x), geometry)
    gy, x = random(geometry.y), random(case.x, seed=1)
    stride = case.stride or case.window
    gx, y = np.zeros(case.x), np.zeros(geometry.y)
    for n, c, *out in np.ndindex(*geometry.y):
        tap = np.unravel_index(argmax[(n, c, *out)], case.window)
        axes = zip(out, stride, tap, case.dilation, case.padding, strict=True)
        cell = (n, c, *(o * s + k * d - p for o, s, k, d, p in axes))
        assert min(cell) >= 0
        gx[cell] += gy[(n, c, *out)]
        y[(n, c, *out)] = x[cell]
    assert_close(reference.max_dgrad(gy, argmax, geometry), gx, rtol=1e-13, atol=1e-14)
    assert_close(reference.max_gather(x, argmax, geometry), y)


def average_matrix(case: Case) -> np.ndarray:
    """Average pooling of one channel as a matrix (windows, cells), one element at a time."""
    geometry, stride = case.geometry, case.stride or case.window
    matrix = np.zeros((math.prod(geometry.y[2:]), *case.x[2:]))
    for row, out in enumerate(np.ndindex(*geometry.y[2:])):
        inside, counted = [], 0
        for tap in np.ndindex(*case.window):
            cell = [
                o * s + k - p for o, s, k, p in zip(out, stride, tap, case.padding, strict=True)
            ]
            axes = list(zip(cell, case.x[2:], case.padding, strict=True))
            counted += all(-p <= i < size + p for i, size, p in axes)
            if all(0 <= i < size for i, size, _ in axes):
                inside.append(tuple(cell))
        divisor = case.divisor_override or (counted if case.count_include_pad else len(inside))
        for cell in inside:
            matrix[(row, *cell)] = 1 / divisor
    return matrix.reshape(len(matrix), -1)


@named(averaged(SMALL))
def test_avg_reference_against_a_matrix(case):
    geometry, matrix = case.geometry, average_matrix(case)
    n, c = case.x[:2]
    x, gy = random(case.x), random(geometry.y)
    y = reference.avg_fprop(x, geometry, *divisor_of(case))
    assert_close(y, (x.reshape(n, c, -1) @ matrix.T).reshape(geometry.y), rtol=1e-12, atol=1e-13)
    gx = reference.avg_dgrad(gy, geometry, *divisor_of(case))
    assert_close(gx, (gy.reshape(n, c, -1) @ matrix).reshape(case.x), rtol=1e-12, atol=1e-13)


# ---------------------------------------------------------------- variants


def layouts(array: np.ndarray) -> list[np.ndarray]:
    """The same values in C order, channels-last, and with holes and a reversed axis."""
    last = np.ascontiguousarray(array.transpose(0, 2, 3, 4, 1)).transpose(0, 4, 1, 2, 3)
    holes = np.full((*array.shape[:4], 2 * array.shape[4]), 77, array.dtype)[..., ::-2]
    holes[...] = array
    return [array, last, holes]


def frozen(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def is_channels_last(array: np.ndarray) -> bool:
    return array.transpose(0, 2, 3, 4, 1).flags.c_contiguous


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@named(CHECKED)
def test_max_variant_against_the_reference(case, dtype):
    geometry = case.geometry
    x, gy = random(case.x, dtype), random(geometry.y, dtype, 1)
    want, at = reference.max_fprop(x, geometry)
    want_gx = reference.max_dgrad(gy, at, geometry)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-14}
    for x_, gy_, at_ in zip(layouts(x), layouts(gy), layouts(at), strict=True):
        inputs = [frozen(a) for a in (x_, gy_, at_)]
        with kernels.use(max_pool3d="cpu/channels_last"):
            y, argmax = kernels.max_pool3d_fprop(inputs[0], geometry)
            gx = kernels.max_pool3d_dgrad(inputs[1], inputs[2], geometry)
            gathered = kernels.max_pool3d_gather(inputs[0], inputs[2], geometry)
        assert_close(y, want)
        assert_close(argmax, at)
        assert_close(gx, want_gx, **close)
        assert_close(gathered, want)
        assert all(map(is_channels_last, (y, argmax, gx, gathered)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@named(averaged(CHECKED))
def test_avg_variant_against_the_reference(case, dtype):
    geometry, divisor = case.geometry, divisor_of(case)
    x, gy = random(case.x, dtype), random(geometry.y, dtype, 1)
    want = reference.avg_fprop(x, geometry, *divisor)
    want_gx = reference.avg_dgrad(gy, geometry, *divisor)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == np.float32 else {"rtol": 1e-13, "atol": 1e-14}
    for x_, gy_ in zip(layouts(x), layouts(gy), strict=True):
        with kernels.use(avg_pool3d="cpu/channels_last"):
            y = kernels.avg_pool3d_fprop(frozen(x_), geometry, *divisor)
            gx = kernels.avg_pool3d_dgrad(frozen(gy_), geometry, *divisor)
        assert_close(y, want, **close)
        assert_close(gx, want_gx, **close)
        assert is_channels_last(y)
        assert is_channels_last(gx)


@every_variant
@named(SMALL)
def test_adjoints(variant, case):
    """<gather(x), gy> = <x, dgrad(gy)>, and <avg(x), gy> = <x, avg_dgrad(gy)>."""
    geometry = case.geometry
    x, gy = random(case.x), random(geometry.y, seed=1)
    with kernels.use(max_pool3d=variant, avg_pool3d=variant):
        _, argmax = kernels.max_pool3d_fprop(random(case.x, seed=2), geometry)
        pairs = [
            (
                kernels.max_pool3d_gather(x, argmax, geometry),
                kernels.max_pool3d_dgrad(gy, argmax, geometry),
            )
        ]
        if case.dilation == (1, 1, 1):
            pairs.append(
                (
                    kernels.avg_pool3d_fprop(x, geometry, *divisor_of(case)),
                    kernels.avg_pool3d_dgrad(gy, geometry, *divisor_of(case)),
                )
            )
    for y, gx in pairs:
        assert np.vdot(y, gy) == pytest.approx(np.vdot(x, gx), rel=1e-11, abs=1e-12)


def test_the_adjoint_identity_catches_one_wrong_cell():
    case = next(c for c in CASES if c.name == "overlap")
    x, gy = random(case.x), random(case.geometry.y, seed=1)
    gx = reference.avg_dgrad(gy, case.geometry, True, None)
    gx[0, 0, 2, 3, 4] *= 1.001
    y = reference.avg_fprop(x, case.geometry, True, None)
    assert np.vdot(y, gy) != pytest.approx(np.vdot(x, gx), rel=1e-11, abs=1e-12)


@pytest.fixture
def threads():
    """Restore the number of threads after a test that sets it."""
    before = get_num_threads()
    yield set_num_threads
    set_num_threads(before)


def test_results_do_not_depend_on_threads(threads):
    # 4 * 6 * 20 lines of 20 * 32 cells: several chunks for each pass
    geometry = pool_geometry((4, 32, 6, 40, 40), 3, 2, 1)
    x, gy = random(geometry.x, np.float32), random(geometry.y, np.float32, 1)

    def run():
        y, argmax = kernels.max_pool3d_fprop(x, geometry)
        return (
            y,
            argmax,
            kernels.max_pool3d_dgrad(gy, argmax, geometry),
            kernels.max_pool3d_gather(x, argmax, geometry),
            kernels.avg_pool3d_fprop(x, geometry, False, None),
            kernels.avg_pool3d_dgrad(gy, geometry, False, None),
        )

    results = []
    for count in (1, 2, 3):
        threads(count)
        results.append(run())
    for other in results[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(results[0], other, strict=True))


@every_variant
def test_an_empty_batch_and_an_unread_cell(variant):
    geometry = pool_geometry((0, 3, 4, 4, 4), 2)
    with kernels.use(max_pool3d=variant, avg_pool3d=variant):
        y, argmax = kernels.max_pool3d_fprop(np.zeros(geometry.x), geometry)
        assert y.shape == argmax.shape == (0, 3, 2, 2, 2)
        assert kernels.max_pool3d_dgrad(y, argmax, geometry).shape == geometry.x
        # windows of 1 with stride 2 never read cell 1
        geometry = pool_geometry((1, 1, 1, 1, 3), 1, 2)
        at = np.zeros(geometry.y, np.uint8)
        ones = np.ones(geometry.y)
        assert_close(kernels.max_pool3d_dgrad(ones, at, geometry), along_w([1, 0, 1]))
        assert_close(kernels.avg_pool3d_dgrad(ones, geometry, True, None), along_w([1, 0, 1]))


# ---------------------------------------------------------------- PyTorch, where it is installed


@named(SMALL)
def test_max_against_torch(case):
    torch = pytest.importorskip("torch")
    x, gy = random(case.x), random(case.geometry.y, seed=1)
    x[x > 1.5] = NAN  # some windows have several
    options = (case.stride, case.padding, case.dilation, case.ceil_mode)
    y_, indices = torch.nn.functional.max_pool3d(
        torch.from_numpy(x), case.window, *options, return_indices=True
    )
    y, argmax = kernels.max_pool3d_fprop(x, case.geometry)
    assert np.array_equal(y, y_.numpy(), equal_nan=True)
    cells = np.arange(math.prod(case.x[2:]), dtype=np.float64).reshape(1, 1, *case.x[2:])
    places = kernels.max_pool3d_gather(np.broadcast_to(cells, case.x), argmax, case.geometry)
    assert_close(places.astype(np.int64), indices.numpy())
    if case.name == "window of 294 cells":
        assert argmax.dtype == np.int32
    leaf = torch.from_numpy(x).requires_grad_()
    torch.nn.functional.max_pool3d(leaf, case.window, *options).backward(torch.from_numpy(gy))
    gx = kernels.max_pool3d_dgrad(gy, argmax, case.geometry)
    assert_close(gx, leaf.grad.numpy(), rtol=1e-13, atol=1e-14)


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("count_include_pad", [False, True])
@pytest.mark.parametrize("divisor_override", [None, 5])
def test_avg_against_torch(ceil_mode, count_include_pad, divisor_override):
    torch = pytest.importorskip("torch")
    for window, stride, padding in [
        ((2, 3, 2), (2, 2, 3), (1, 1, 1)),
        ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
        ((2, 2, 4), (3, 1, 3), (0, 1, 2)),
        ((5, 7, 6), (1, 1, 1), (0, 0, 0)),
        ((1, 2, 3), (2, 3, 4), (0, 1, 0)),
    ]:
        x = random((2, 3, 5, 7, 6))
        leaf = torch.from_numpy(x).requires_grad_()
        options = (ceil_mode, count_include_pad, divisor_override)
        want = torch.nn.functional.avg_pool3d(leaf, window, stride, padding, *options)
        geometry = pool_geometry(x.shape, window, stride, padding, 1, ceil_mode)
        y = kernels.avg_pool3d_fprop(x, geometry, *options[1:])
        assert_close(y, want.detach().numpy(), rtol=1e-12, atol=1e-13)
        gy = random(geometry.y, seed=1)
        want.backward(torch.from_numpy(gy))
        gx = kernels.avg_pool3d_dgrad(gy, geometry, *options[1:])
        assert_close(gx, leaf.grad.numpy(), rtol=1e-12, atol=1e-13)


# ---------------------------------------------------------------- errors

GEOMETRY = pool_geometry((1, 2, 4, 4, 4), 2)
DILATED = pool_geometry((1, 2, 4, 4, 4), 2, 1, 0, 2)
X, GY, ARGMAX = np.zeros(GEOMETRY.x), np.zeros(GEOMETRY.y), np.zeros(GEOMETRY.y, np.uint8)


@pytest.mark.parametrize(
    ("kernel", "args", "message"),
    [
        (MAX_KERNELS[0], (GY, GEOMETRY), r"x has shape \(1, 2, 2, 2, 2\), not \(1, 2, 4, 4, 4\)"),
        (MAX_KERNELS[0], (X.astype(np.int64), GEOMETRY), "x is int64; it must be float32"),
        (MAX_KERNELS[0], (X.tolist(), GEOMETRY), "x must be an array, not a list"),
        (MAX_KERNELS[0], (X, (2, 2, 2)), "geometry must come from pool_geometry, not be a tuple"),
        (MAX_KERNELS[1], (X, ARGMAX, GEOMETRY), "gy has shape"),
        (MAX_KERNELS[1], (GY, ARGMAX.astype(np.int32), GEOMETRY), "argmax must be the uint8 array"),
        (MAX_KERNELS[1], (GY, None, GEOMETRY), "argmax must be the uint8 array"),
        (MAX_KERNELS[2], (X, ARGMAX[:, :1], GEOMETRY), r"argmax .* of shape \(1, 1, 2, 2, 2\)"),
        (MAX_KERNELS[2], (GY, ARGMAX, GEOMETRY), "x has shape"),
        (AVG_KERNELS[0], (X, DILATED, True, None), "takes no dilation"),
        (AVG_KERNELS[0], (X, GEOMETRY, 1, None), "count_include_pad=1 must be True or False"),
        (AVG_KERNELS[0], (X, GEOMETRY, True, 0), "divisor_override=0 must be None or an int"),
        (AVG_KERNELS[1], (GY, GEOMETRY, True, 2.5), r"divisor_override=2\.5 must be None"),
        (AVG_KERNELS[1], (X, GEOMETRY, True, None), "avg_pool3d_dgrad: gy has shape"),
    ],
)
def test_errors(kernel, args, message):
    with pytest.raises(UserError, match=message):
        kernel(*args)


def test_a_window_wholly_in_padding_is_refused():
    # taps at -1 and 1 of an input of one cell
    with pytest.raises(UserError, match="lies wholly in padding"):
        pool_geometry((1, 1, 4, 4, 1), 2, 1, 1, (1, 1, 2))
    assert pool_geometry((1, 1, 4, 4, 2), 2, 1, 1, (1, 1, 2)).y == (1, 1, 5, 5, 2)
