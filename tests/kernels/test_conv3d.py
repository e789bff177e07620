"""3-D convolution: the reference against sums by hand and brute force, variants against it."""

import numpy as np
import pytest
from compare import assert_close
from conv_checks import (
    PASSES,
    arguments,
    brute_force,
    check_finish,
    check_trilinear,
    check_variant,
    poisoned,
    reals,
    run,
    small,
    variants_of,
)

from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels.conv3d import cpu
from tinyvid.kernels.conv3d.cases import CASES, ConvCase
from tinyvid.kernels.threads import get_num_threads, set_num_threads

__all__ = ["poisoned"]  # a fixture

VARIANTS = variants_of("conv3d")
EVERY = ["reference", *VARIANTS]
by_case = pytest.mark.parametrize("case", small(CASES))
by_variant = pytest.mark.parametrize("variant", VARIANTS)
by_every = pytest.mark.parametrize("variant", EVERY)
by_pass = pytest.mark.parametrize("pass_", PASSES)
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def line(*numbers) -> np.ndarray:
    """Numbers along the last axis: (1, 1, 1, 1, len)."""
    return np.array(numbers, np.float64).reshape(1, 1, 1, 1, -1)


@by_every
def test_by_hand_along_a_line(variant):
    x, w, gy = line(1, 2, 3, 4), line(10, 1), line(1, 2, 3)
    geometry = conv_geometry(x.shape, w.shape)
    given = {"x": x, "w": w, "gy": gy}
    # y: 1*10 + 2*1, 2*10 + 3*1, 3*10 + 4*1
    assert_close(run("conv3d", "fprop", variant, given, geometry), line(12, 23, 34))
    # gx: 1*10, 1*1 + 2*10, 2*1 + 3*10, 3*1
    assert_close(run("conv3d", "dgrad", variant, given, geometry), line(10, 21, 32, 3))
    # gw: 1*1 + 2*2 + 3*3, 1*2 + 2*3 + 3*4
    assert_close(run("conv3d", "wgrad", variant, given, geometry), line(14, 20))


@by_every
def test_by_hand_bias_and_relu(variant):
    x, w = line(1, 2, 3, 4), np.array([10.0, 1, -1, 0]).reshape(2, 1, 1, 1, 2)
    geometry = conv_geometry(x.shape, w.shape)
    with kernels.use(conv3d_fprop=variant):
        y = kernels.conv3d_fprop(x, w, geometry, np.array([-23.0, 2]), True)
    # k=0: 12, 23, 34 less 23; k=1: -1, -2, -3 and 2
    assert_close(y, np.array([[0.0, 0, 11], [1, 0, 0]]).reshape(1, 2, 1, 1, 3))


@by_every
def test_by_hand_stride_padding_dilation(variant):
    # Taps two apart, windows three apart, one zero at each end: 0 1 2 3 4 5 0
    x, w, gy = line(1, 2, 3, 4, 5), line(10, 1), line(1, 2)
    geometry = conv_geometry(x.shape, w.shape, (1, 1, 3), (0, 0, 1), (1, 1, 2))
    given = {"x": x, "w": w, "gy": gy}
    # y: 0*10 + 2*1, 3*10 + 5*1
    assert_close(run("conv3d", "fprop", variant, given, geometry), line(2, 35))
    # gx: window 0 meets x[1] with tap 1; window 1 meets x[2] with tap 0 and x[4] with tap 1
    assert_close(run("conv3d", "dgrad", variant, given, geometry), line(0, 1 * 1, 2 * 10, 0, 2 * 1))
    # gw: 1*0 + 2*3, 1*2 + 2*5
    assert_close(run("conv3d", "wgrad", variant, given, geometry), line(6, 12))


@by_every
def test_by_hand_same_with_even_filter(variant):
    # "same" with two taps puts its one zero at the high end: 1 2 3 0
    x, w = line(1, 2, 3), line(10, 1)
    geometry = conv_geometry(x.shape, w.shape, padding="same")
    # y: 1*10 + 2*1, 2*10 + 3*1, 3*10 + 0*1
    got = run("conv3d", "fprop", variant, {"x": x, "w": w}, geometry)
    assert_close(got, line(12, 23, 30))


@by_every
def test_by_hand_axes_channels_and_groups(variant):
    # Two groups of two channels of 2x2x2 cells: channel c holds 8c, 8c+1, ... 8c+7.
    x = np.arange(32.0).reshape(1, 4, 2, 2, 2)
    w = np.zeros((2, 2, 1, 1, 2))
    w[0, 1, 0, 0, 1] = 1  # k=0 takes, of group 0, channel 1, the right neighbour
    w[1, 0, 0, 0, 0] = 2  # k=1 takes twice, of group 1, channel 2 (its first), the cell itself
    geometry = conv_geometry(x.shape, w.shape, groups=2)
    got = run("conv3d", "fprop", variant, {"x": x, "w": w}, geometry)
    # (d, h) = (0,0) (0,1) (1,0) (1,1): channel 1's right cells are 9, 11, 13, 15;
    # channel 2's left cells are 16, 18, 20, 22.
    want = np.array([[9.0, 11, 13, 15], [32, 36, 40, 44]]).reshape(1, 2, 2, 2, 1)
    assert_close(got, want)


@pytest.mark.parametrize("axis", [2, 3, 4])
@by_every
def test_one_tap_shifts_its_own_axis(variant, axis):
    x = reals((2, 1, 3, 4, 5), np.float64, 0)
    w = np.zeros((1, 1, 2, 2, 2))
    w[0, 0][tuple(int(axis == i) for i in (2, 3, 4))] = 1
    got = run("conv3d", "fprop", variant, {"x": x, "w": w}, conv_geometry(x.shape, w.shape))
    want = np.roll(x, -1, axis)[:, :, :2, :3, :4]
    assert_close(got, want)


@pytest.mark.parametrize("case", small([case for case in CASES if case.geometry.macs < 100_000]))
def test_reference_against_brute_force(case):
    given = arguments(case, np.float64)
    want = brute_force(case, **given)
    for pass_ in PASSES:
        assert_close(run("conv3d", pass_, "reference", given, case.geometry), want[pass_])


@by_every
@by_case
def test_trilinear_identity(case, variant):
    check_trilinear("conv3d", case, dict.fromkeys(PASSES, variant))


@by_variant
@by_dtype
@by_pass
@by_case
@pytest.mark.usefixtures("poisoned")
def test_variant_against_reference(case, pass_, dtype, variant):
    check_variant("conv3d", pass_, variant, case, dtype)


@by_variant
@by_case
@pytest.mark.usefixtures("poisoned")
def test_bias_and_relu(case, variant):
    check_finish("conv3d", variant, case, np.float32)
    check_finish("conv3d", variant, case, np.float64)


@pytest.mark.usefixtures("poisoned")
def test_checks_catch_planted_faults(monkeypatch):
    case = ConvCase("fault", (2, 3, 4, 5, 6), (4, 3, 3, 3, 3), padding=1)

    def fails(pass_):
        with pytest.raises(AssertionError):
            check_variant("conv3d", pass_, "cpu/im2col", case, np.float32)
        with pytest.raises(AssertionError):
            check_trilinear("conv3d", case, dict.fromkeys(PASSES, "cpu/im2col"))

    windows = cpu.windows
    with monkeypatch.context() as patch:  # padding of the last axis one short
        patch.setattr(
            cpu,
            "windows",
            lambda g: [
                axis._replace(offsets=tuple(o + (i == 2) for o in axis.offsets))
                for i, axis in enumerate(windows(g))
            ],
        )
        fails("fprop")
    phases = cpu.phases
    with monkeypatch.context() as patch:  # the filter not turned round along one axis
        patch.setattr(
            cpu,
            "phases",
            lambda g, axis: [
                phase._replace(taps=phase.taps[::-1] if axis == 0 else phase.taps)
                for phase in phases(g, axis)
            ],
        )
        fails("dgrad")
    with monkeypatch.context() as patch:  # the last row left out
        chunks = cpu.row_chunks
        patch.setattr(cpu, "row_chunks", lambda p: [slice(c.start, c.stop - 1) for c in chunks(p)])
        fails("wgrad")


_THREADED = [
    ConvCase("many_chunks", (2, 9, 5, 24, 21), (10, 9, 3, 3, 3), padding=1),
    ConvCase("strided", (1, 6, 9, 40, 33), (8, 3, 3, 3, 3), (2, 2, 1), 1, groups=2),
    *[case for case in CASES if case.name in ("rows_over_sums", "columns_over_sums")],
]


@by_variant
@by_dtype
@by_pass
@pytest.mark.parametrize("case", small(_THREADED))
def test_equal_to_the_bit_for_any_number_of_threads(case, pass_, dtype, variant):
    given = arguments(case, dtype, reals)
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            set_num_threads(threads)
            results.append(run("conv3d", pass_, variant, given, case.geometry))
    finally:
        set_num_threads(before)
    assert np.isfinite(results[0]).all()
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@by_variant
@by_pass
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_reach_the_output(bad, pass_, variant):
    case = ConvCase("bad", (2, 2, 3, 4, 5), (3, 2, 2, 2, 2), padding=(0, 1, 1), stride=(1, 2, 1))
    given = {
        letter: np.abs(a) + 1 for letter, a in arguments(case, np.float32).items()
    }  # no product with zero
    for letter, at in (("x", (1, 0, 1, 2, 3)), ("gy", (0, 1, 1, 1, 2))):
        given[letter][at] = bad
    with np.errstate(invalid="ignore"):
        want = run("conv3d", pass_, "reference", given, case.geometry)
    got = run("conv3d", pass_, variant, given, case.geometry)  # and no warning
    assert 0 < np.isfinite(want).sum() < want.size or pass_ == "wgrad"
    assert np.array_equal(got, want, equal_nan=True)


@by_every
def test_empty_batch(variant):
    geometry = conv_geometry((0, 2, 3, 3, 3), (3, 2, 2, 2, 2))
    given = {"x": np.ones(geometry.x), "w": np.ones(geometry.w), "gy": np.ones(geometry.y)}
    assert run("conv3d", "fprop", variant, given, geometry).shape == (0, 3, 2, 2, 2)
    assert run("conv3d", "dgrad", variant, given, geometry).shape == geometry.x
    assert_close(run("conv3d", "wgrad", variant, given, geometry), np.zeros(geometry.w))


@pytest.mark.parametrize(
    "shapes", [((2, 0, 5, 5), (3, 0, 3, 3)), ((2, 0, 4, 5, 5), (3, 0, 1, 1, 1))]
)
def test_sums_over_no_channels_are_zero(shapes):
    op, geometry = f"conv{len(shapes[0]) - 2}d", conv_geometry(*shapes)
    given = {"x": np.ones(geometry.x), "w": np.ones(geometry.w), "gy": np.ones(geometry.y)}
    for pass_, shape in (("fprop", geometry.y), ("dgrad", geometry.x), ("wgrad", geometry.w)):
        assert_close(run(op, pass_, "cpu/im2col", given, geometry), np.zeros(shape))


@by_case
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_against_torch(case):
    torch = pytest.importorskip("torch")
    given = arguments(case, np.float64)
    x, w = (torch.tensor(given[letter], requires_grad=True) for letter in "xw")
    options = (case.stride, case.padding, case.dilation, case.groups)
    y = torch.nn.functional.conv3d(x, w, None, *options)
    y.backward(torch.from_numpy(given["gy"]))
    for pass_, want in (("fprop", y.detach()), ("dgrad", x.grad), ("wgrad", w.grad)):
        assert_close(run("conv3d", pass_, "reference", given, case.geometry), want.numpy())


def test_wrong_arguments():
    geometry = conv_geometry((1, 2, 3, 4, 5), (3, 2, 1, 2, 3))
    x, w = np.ones(geometry.x), np.ones(geometry.w)
    for args, words in [
        ((x[..., 1:], w, geometry), r"conv3d_fprop: x has shape \(1, 2, 3, 4, 4\), not \(1, 2, 3"),
        ((x, w[:1], geometry), r"w has shape \(1, 2, 1, 2, 3\), not \(3, 2, 1, 2, 3\)"),
        ((x.astype(int), w, geometry), "x is int64 and w is float64; both must be float32, or"),
        ((x.astype(np.float32), w, geometry), "x is float32 and w is float64"),
        ((x.astype(np.float16), w.astype(np.float16), geometry), "x is float16"),
        ((x.astype(">f8"), w.astype(">f8"), geometry), "byte order"),
        ((x.tolist(), w, geometry), "x must be an array, not a list"),
        ((x, w, None), "geometry must come from conv_geometry, not be a NoneType"),
        ((x, w, conv_geometry((1, 2, 4, 5), (3, 2, 2, 3))), "for a filter of 2 axes, not 3"),
    ]:
        with pytest.raises(UserError, match=words):
            kernels.conv3d_fprop(*args)
    with pytest.raises(UserError, match=r"conv3d_dgrad: gy has shape \(1, 2, 3, 4, 5\)"):
        kernels.conv3d_dgrad(x, w, geometry)
    with pytest.raises(UserError, match=r"conv3d_wgrad: x has shape \(3, 2, 1, 2, 3\)"):
        kernels.conv3d_wgrad(np.ones(geometry.y), w, geometry)
