"""Optical flow: by hand, against the reference, on patterns that move as we say, on real frames."""

import numpy as np
import pytest
from compare import assert_close

from tinyvid.errors import UserError
from tinyvid.kernels import flow
from tinyvid.kernels.flow import (
    TVL1,
    cpu,
    cpu_horn_schunck,
    horn_schunck_flow,
    reference,
    tvl1_flow,
)
from tinyvid.kernels.flow.pyramid import correlate, enlarged, gradient, pyramid
from tinyvid.kernels.threads import get_num_threads, set_num_threads

FEW = TVL1(levels=2, warps=2, iterations=7)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def pattern(height, width, dx=0.0, dy=0.0, dtype=np.float64):
    """A sum of waves, moved by (dx, dy): 1 H W, from 0 to 255."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    y, x = y - dy, x - dx
    waves = np.sin(x / 3) * np.cos(y / 4) + np.sin((x + 2 * y) / 7) + np.cos((2 * x - y) / 9)
    return (127 + 40 * waves).astype(dtype)[None]


def frames(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    smooth = correlate(correlate(rng.uniform(0, 255, shape), (0.2,) * 5, -1), (0.2,) * 5, -2)
    return smooth.astype(dtype)


def error(found, dx, dy, border=4):
    inner = found[0, :, border:-border, border:-border]
    return float(np.hypot(inner[0] - dx, inner[1] - dy).mean())


# ---- the parts, by hand ----


def test_derivatives_are_exact_for_polynomials():
    x = np.arange(9.0)
    image = (x**3)[None, :] + 5 * (x**2)[:, None]
    gx, gy = gradient(image)
    assert_close(gx[:, 2:-2], np.broadcast_to(3 * x**2, (9, 9))[:, 2:-2].copy(), atol=1e-12)
    assert_close(gy[2:-2], np.broadcast_to(10 * x, (9, 9)).T[2:-2].copy(), atol=1e-12)


def test_correlate_repeats_the_border():
    got = correlate(np.array([[1.0, 2.0, 4.0]]), (1.0, 10.0, 100.0), -1)
    assert_close(got, np.array([[211.0, 421.0, 442.0]]))


def test_pyramid_halves_until_eight_pixels_are_left():
    shapes = [level.shape for level in pyramid(np.ones((2, 65, 34)), 9)]
    assert shapes == [(2, 65, 34), (2, 33, 17), (2, 17, 9)]
    assert [level.shape for level in pyramid(np.ones((1, 15, 40)), 9)] == [(1, 15, 40)]
    assert len(pyramid(np.ones((1, 64, 64)), 2)) == 2
    for level in pyramid(np.full((1, 40, 40), 7.0), 9):
        assert_close(level, np.full(level.shape, 7.0), atol=1e-12)


def test_enlarging_doubles_the_size_and_the_displacements():
    small = np.array([[[1.0, 3.0]], [[5.0, 5.0]]])  # (2, 1, 2)
    assert_close(enlarged(small, (1, 3)), np.array([[[2.0, 4.0, 6.0]], [[10.0, 10.0, 10.0]]]))
    assert_close(enlarged(small, (2, 4))[0], np.array([[2.0, 4.0, 6.0, 6.0]] * 2))


def test_warp_takes_from_where_the_flow_points():
    image = np.arange(12.0).reshape(1, 1, 3, 4) ** 2
    u = np.zeros((1, 2, 3, 4))
    assert_close(reference.warp(image, u), image)
    u[:, 0] = 1
    assert_close(reference.warp(image, u), image[..., [1, 2, 3, 3]])
    u[:, 0], u[:, 1] = 0, -1
    assert_close(reference.warp(image, u), image[..., [0, 0, 1], :])
    line = (np.arange(8.0) ** 2).reshape(1, 1, 1, 8).repeat(4, axis=2)
    half = reference.warp(line, np.full((1, 2, 4, 8), 0.5))[0, 0, 1, 1:6]
    assert_close(half, (np.arange(1, 6) + 0.5) ** 2)  # exact for parabolas


def test_median_by_hand():
    u = np.array([[[[1.0, 9.0, 2.0], [3.0, 8.0, 4.0], [5.0, 7.0, 6.0]]]])
    want = np.array([[[[3.0, 3.0, 4.0], [5.0, 5.0, 6.0], [5.0, 6.0, 6.0]]]])
    assert_close(reference.median(u), want)
    both = np.concatenate([u[0], -u[0]])
    out = np.empty_like(both)
    cpu._median(both, out, 0, 3)
    assert_close(out, np.concatenate([want[0], -want[0]]))


def test_the_step_stops_where_the_image_agrees_or_at_the_limit():
    rho, square = np.array([2.0, -2.0, 2.0, 100.0, 5.0]), np.array([4.0, 4.0, 1e-12, 4.0, 1.0])
    assert_close(reference._step(rho, square, 3.0), np.array([-0.5, 0.5, 0.0, -3.0, -3.0]))


def test_divergence_is_the_negative_adjoint_of_the_gradient(rng):
    u, p = rng.normal(size=(2, 2, 5, 7)), rng.normal(size=(2, 2, 2, 5, 7))
    p[:, :, 0, :, -1] = p[:, :, 1, -1, :] = 0  # as the iterations keep them
    left = (reference._forward(u) * p).sum()
    assert left == pytest.approx(-(u * reference._divergence(p)).sum())


# ---- whole flows ----


@pytest.mark.parametrize("method", [tvl1_flow, horn_schunck_flow])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nothing_moves_between_equal_frames(method, dtype):
    for frame in (np.full((2, 9, 20), 77, dtype), frames((2, 20, 9), dtype)):
        found = method(frame, frame)
        assert_close(found, np.zeros((2, 2, *frame.shape[1:]), dtype), atol=1e-4)
    brighter = method(np.full((1, 9, 9), 10, dtype), np.full((1, 9, 9), 200, dtype))
    assert_close(brighter, np.zeros((1, 2, 9, 9), dtype))  # flat: nothing tells where to


@pytest.mark.parametrize(("dx", "dy"), [(0.6, 0.0), (0.0, -0.8), (-0.5, 0.25)])
def test_small_motions_are_found(dx, dy):
    first, second = pattern(40, 48), pattern(40, 48, dx, dy)
    assert error(tvl1_flow(first, second), dx, dy) < 0.02
    assert error(horn_schunck_flow(first, second, alpha=2.0), dx, dy) < 0.08


@pytest.mark.parametrize(("dx", "dy"), [(4.5, -3.0), (-6.0, 5.0)])
def test_large_motions_are_found_through_the_pyramid(dx, dy):
    first, second = pattern(64, 80), pattern(64, 80, dx, dy)
    assert error(tvl1_flow(first, second), dx, dy, border=12) < 0.05
    alone = tvl1_flow(first, second, TVL1(levels=1))
    assert error(alone, dx, dy, border=12) > 0.2


def test_an_edge_of_the_motion_stays_sharp():
    """The left half moves to the right, the right half stays."""
    first = frames((1, 32, 64), np.float64, 3)
    second = first.copy()
    second[..., 1:32] = first[..., :31]
    found = tvl1_flow(first, second)[0, 0]
    assert abs(np.median(found[4:-4, 8:28]) - 1) < 0.05
    assert abs(np.median(found[4:-4, 36:56])) < 0.05
    blurred = horn_schunck_flow(first, second)[0, 0]
    true = np.where(np.arange(64) < 32, 1.0, 0.0)
    wrong = [np.abs(u - true)[4:-4, 22:42].mean() for u in (found, blurred)]
    assert wrong[0] < 0.7 * wrong[1]


# ---- against the reference ----

SHAPES = [(1, 2, 2), (0, 9, 9), (2, 5, 3), (1, 17, 33), (3, 16, 18), (1, 70, 19)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "atol"), [(np.float64, 1e-9), (np.float32, 5e-3)])
def test_compiled_agrees_with_the_reference(shape, dtype, atol):
    first, second = frames(shape, dtype), frames(shape, dtype, 1)
    second = (first + 0.2 * (second - first)).astype(dtype)
    for settings in (FEW, TVL1(levels=1, warps=1, iterations=1, medians=0)):
        want = reference.tvl1(first.astype(np.float64), second.astype(np.float64), settings)
        got = tvl1_flow(first, second, settings)
        assert_close(got, want.astype(dtype), atol=atol)
        assert want.size == 0 or np.abs(want).max() > 1e-3


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("dtype", "atol"), [(np.float64, 1e-12), (np.float32, 1e-5)])
@pytest.mark.parametrize("iterations", [1, 10, 27])
def test_horn_schunck_compiled_agrees_with_the_reference(shape, dtype, atol, iterations):
    first, second = frames(shape, dtype), frames(shape, dtype, 1)
    second = (first + 0.2 * (second - first)).astype(dtype)
    exact = first.astype(np.float64), second.astype(np.float64)
    want = reference.horn_schunck(*exact, 15.0, iterations)
    got = horn_schunck_flow(first, second, 15.0, iterations)
    assert_close(got, want.astype(dtype), atol=atol)
    assert want.size == 0 or np.abs(want).max() > 1e-3


def test_the_comparison_catches_a_planted_fault(monkeypatch):
    first, second = frames((1, 33, 20), np.float64), frames((1, 33, 20), np.float64, 1)
    want = reference.tvl1(first, second, FEW)
    assert_close(tvl1_flow(first, second, FEW), want, atol=1e-8)
    monkeypatch.setattr(reference, "median", lambda u: u)
    wrong = reference.tvl1(first, second, FEW)
    with pytest.raises(AssertionError, match="elements differ"):
        assert_close(tvl1_flow(first, second, FEW), wrong, atol=1e-8)


@pytest.mark.parametrize("rows", [1, 3, 10, 64])
@pytest.mark.parametrize("together", [1, 4])
def test_bands_and_threads_change_nothing(monkeypatch, rows, together):
    first, second = frames((1, 37, 21), np.float32), frames((1, 37, 21), np.float32, 1)
    want = tvl1_flow(first, second, FEW)
    linear = horn_schunck_flow(first, second, iterations=25)
    for module in (cpu, cpu_horn_schunck):
        monkeypatch.setattr(module, "ROWS", rows)
        monkeypatch.setattr(module, "TOGETHER", together)
    before = get_num_threads()
    try:
        for threads in (1, 3):
            set_num_threads(threads)
            assert_close(tvl1_flow(first, second, FEW), want)
            assert_close(horn_schunck_flow(first, second, iterations=25), linear)
    finally:
        set_num_threads(before)


def test_pairs_of_a_batch_do_not_see_each_other():
    first, second = frames((3, 20, 20), np.float32), frames((3, 20, 20), np.float32, 1)
    both = tvl1_flow(first, second, FEW)
    for i in range(3):
        assert_close(tvl1_flow(first[i : i + 1], second[i : i + 1], FEW)[0], both[i])
    mirrored = first.transpose(0, 2, 1)
    assert_close(
        tvl1_flow(mirrored, second, FEW), tvl1_flow(np.ascontiguousarray(mirrored), second, FEW)
    )


# ---- what is refused ----


@pytest.mark.parametrize("method", [tvl1_flow, horn_schunck_flow])
def test_frames_that_do_not_fit_are_named(method):
    good = np.zeros((1, 8, 8), np.float32)
    bad = good.copy()
    bad[0, 3, 3] = np.nan
    for first, second, message in (
        (good, good[:, :7], r"of one size"),
        (good, good.astype(np.float64), "first is float32"),
        (good.astype(np.uint8), good, "float32 or float64 array, not uint8"),
        (good[0], good[0], r"\(8, 8\): it must be N H W"),
        (good[:, :1], good[:, :1], "at least 2 pixels"),
        (good, bad, "second has values that are not finite"),
        ([1], good, "not list"),
    ):
        with pytest.raises(UserError, match=message):
            method(first, second)
    with pytest.raises(UserError, match="alpha=0"):
        horn_schunck_flow(good, good, alpha=0)


@pytest.mark.parametrize(
    "wrong",
    [{"weight": 0.0}, {"theta": -1.0}, {"tau": 0.3}, {"levels": 0}, {"warps": 1.5},
     {"iterations": 0}, {"medians": -1}, {"weight": float("nan")}],
)  # fmt: skip
def test_settings_out_of_range(wrong):
    with pytest.raises(UserError, match=f"{next(iter(wrong))}="):
        TVL1(**wrong)


def test_real_frames_with_a_known_flow(shared_data):
    import matplotlib.image

    folder = shared_data / "rubberwhale"
    grey = [
        (matplotlib.image.imread(folder / f"frame{i}.png")[..., :3] @ (76.245, 149.685, 29.07))
        .astype(np.float32)[None]
        for i in (10, 11)
    ]  # fmt: skip
    raw = np.fromfile(folder / "flow10.flo", np.float32)
    width, height = raw[1:3].view(np.int32)
    true = raw[3:].reshape(height, width, 2).transpose(2, 0, 1)
    known = (np.abs(true) < 1e9).all(axis=0)
    found = flow.tvl1_flow(*grey)[0]
    assert np.hypot(*(found - true))[known].mean() < 0.15
