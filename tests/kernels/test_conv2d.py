"""2-D convolution and early fusion: by hand, by brute force, and variants by the reference."""

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
    integers,
    poisoned,
    reals,
    run,
    small,
    variants_of,
)

from tinyvid import kernels
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels.conv2d.cases import CASES, ConvCase
from tinyvid.kernels.threads import get_num_threads, set_num_threads

__all__ = ["poisoned"]  # a fixture

VARIANTS = variants_of("conv2d")
by_case = pytest.mark.parametrize("case", small(CASES))
by_every = pytest.mark.parametrize("variant", ["reference", *VARIANTS])
by_variant = pytest.mark.parametrize("variant", VARIANTS)
by_pass = pytest.mark.parametrize("pass_", PASSES)
by_dtype = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@by_every
def test_by_hand(variant):
    x = np.array([[1.0, 2, 3], [4, 5, 6], [7, 8, 9]]).reshape(1, 1, 3, 3)
    w = np.array([[1000.0, 100], [10, 1]]).reshape(1, 1, 2, 2)
    gy = np.array([[1.0, 0], [0, 2]]).reshape(1, 1, 2, 2)
    geometry = conv_geometry(x.shape, w.shape)
    given = {"x": x, "w": w, "gy": gy}
    # y reads the four digits of each window.
    got = run("conv2d", "fprop", variant, given, geometry)
    assert_close(got, np.array([[1245.0, 2356], [4578, 5689]]).reshape(1, 1, 2, 2))
    # gx: the filter laid down at (0, 0), and twice at (1, 1); they overlap in the middle.
    got = run("conv2d", "dgrad", variant, given, geometry)
    want = [[1000.0, 100, 0], [10, 1 + 2000, 200], [0, 20, 2]]
    assert_close(got, np.array(want).reshape(1, 1, 3, 3))
    # gw: window (0, 0) plus twice window (1, 1): 1 + 2*5, 2 + 2*6, 4 + 2*8, 5 + 2*9
    got = run("conv2d", "wgrad", variant, given, geometry)
    assert_close(got, np.array([[11.0, 14], [20, 23]]).reshape(1, 1, 2, 2))


@by_every
def test_by_hand_bias_and_relu(variant):
    x, w = np.array([1.0, 2, 3]).reshape(1, 1, 1, 3), np.array([1.0, -1]).reshape(2, 1, 1, 1)
    with kernels.use(conv2d_fprop=variant):
        y = kernels.conv2d_fprop(x, w, conv_geometry(x.shape, w.shape), np.array([-2.0, 2]), True)
    assert_close(y, np.array([[0.0, 0, 1], [1, 0, 0]]).reshape(1, 2, 1, 3))


@by_every
def test_by_hand_channel_of_a_clip(variant):
    # A clip of C=2, T=3 whose plane (c, t) holds 10c + t, and 1x1 filters that pick channels.
    x = np.array([[0.0, 1, 2], [10, 11, 12]]).reshape(1, 2, 3, 1, 1)
    w = np.zeros((3, 6, 1, 1))
    for k, channel in enumerate((1, 3, 5)):  # channel c*3 + t: planes (0,1), (1,0), (1,2)
        w[k, channel] = 1
    got = run("conv2d", "fprop", variant, {"x": x, "w": w}, conv_geometry(x.shape, w.shape))
    assert_close(got, np.array([1.0, 10, 12]).reshape(1, 3, 1, 1))


@by_case
def test_reference_against_brute_force(case):
    given = arguments(case, np.float64)
    want = brute_force(case, **given)
    for pass_ in PASSES:
        assert_close(run("conv2d", pass_, "reference", given, case.geometry), want[pass_])


@by_every
@by_case
def test_trilinear_identity(case, variant):
    check_trilinear("conv2d", case, dict.fromkeys(PASSES, variant))


@by_variant
@by_dtype
@by_pass
@by_case
@pytest.mark.usefixtures("poisoned")
def test_variant_against_reference(case, pass_, dtype, variant):
    check_variant("conv2d", pass_, variant, case, dtype)


@by_variant
@by_case
@pytest.mark.usefixtures("poisoned")
def test_bias_and_relu(case, variant):
    check_finish("conv2d", variant, case, np.float32)
    check_finish("conv2d", variant, case, np.float64)


def test_checks_catch_a_clip_read_in_the_wrong_order(monkeypatch):
    case = next(case for case in CASES if case.name == "clip")
    from tinyvid.kernels.conv2d import cpu

    def frames_first(x, w, geometry, fprop=cpu.fprop):  # channel t*C + c
        return fprop(x.swapaxes(1, 2).reshape(x.shape), w, geometry)

    monkeypatch.setattr(kernels.conv2d_fprop.variants["cpu/im2col"], "_function", frames_first)
    with pytest.raises(AssertionError, match="elements differ"):
        check_variant("conv2d", "fprop", "cpu/im2col", case, np.float32)
    with pytest.raises(AssertionError):
        check_trilinear("conv2d", case, dict.fromkeys(PASSES, "cpu/im2col"))


@by_variant
@by_pass
def test_clip_equals_its_planes(pass_, variant):
    """Early fusion of a clip is the plain convolution of its C*T planes."""
    case = ConvCase("clip", (2, 3, 4, 6, 5), (4, 12, 3, 3), padding=1, stride=2)
    given = arguments(case, np.float64)
    planes = ConvCase("planes", (2, 12, 6, 5), case.w, padding=1, stride=2)
    same = given | {"x": given["x"].reshape(planes.x)}
    got = run("conv2d", pass_, variant, given, case.geometry)
    want = run("conv2d", pass_, variant, same, planes.geometry)
    assert_close(got, want.reshape(got.shape))


@pytest.mark.usefixtures("poisoned")
def test_a_channels_last_clip_is_not_copied(monkeypatch):
    from tinyvid.kernels.conv2d import cpu, over_time

    # Fewer are copied, so that patches are gathered in longer runs.
    channels = over_time.FEW_CHANNELS
    clip = np.moveaxis(reals((2, 3, 5, 4, channels), np.float32, 0), -1, 1)  # N T H W C in memory
    geometry = conv_geometry(clip.shape, (4, channels * 3, 3, 3))
    read = []
    Patches = cpu.conv3d.Patches
    monkeypatch.setattr(
        cpu.conv3d, "Patches", lambda source, *args: read.append(source) or Patches(source, *args)
    )
    run(
        "conv2d",
        "fprop",
        "cpu/im2col",
        {"x": clip, "w": reals(geometry.w, np.float32, 1)},
        geometry,
    )
    assert np.shares_memory(read[0], clip)


@pytest.mark.parametrize("channels", [2, 16])
@pytest.mark.parametrize("variant", ["cpu/im2col", "cpu/direct"])
def test_dgrad_of_a_clip_multiplies_as_that_of_its_planes(monkeypatch, variant, channels):
    """A filter over time would meet each of T places with one tap of T, and the rest with zeros."""
    from tinyvid.kernels.conv2d import cpu, direct

    made = []
    for module, filters in ((cpu.conv3d, 1), (direct.conv3d, 2)):

        def counted(*args, at=filters, correlate=module._correlate):
            out = next(array for array in args[at + 1 :] if isinstance(array, np.ndarray))
            groups, terms, columns = args[at].shape
            made.append(out.size // (groups * columns) * terms * columns * groups)
            return correlate(*args)

        monkeypatch.setattr(module, "_correlate", counted)
    clip = ConvCase("clip", (2, channels, 4, 6, 5), (3, channels * 4, 3, 3), padding=1)
    given = arguments(clip, np.float32)
    run("conv2d", "dgrad", variant, given, clip.geometry)
    assert made == [2 * 6 * 5 * 9 * 3 * channels * 4]


@by_variant
@by_pass
def test_equal_to_the_bit_for_any_number_of_threads(pass_, variant):
    case = ConvCase("clip", (3, 3, 7, 41, 40), (12, 21, 3, 3), padding=1)
    given = arguments(case, np.float32, reals)
    before, results = get_num_threads(), []
    try:
        for threads in (1, 2, 3, 2):
            set_num_threads(threads)
            results.append(run("conv2d", pass_, variant, given, case.geometry))
    finally:
        set_num_threads(before)
    for other in results[1:]:
        assert np.array_equal(results[0], other)


@by_variant
def test_nan_reaches_the_output(variant):
    case = ConvCase("nan", (1, 2, 3, 5, 6), (2, 6, 3, 3), padding=1)
    x, w = integers(case.x, np.float32, 0), np.ones(case.w, np.float32)
    x[0, 1, 2, 0, 2] = np.nan
    got = run("conv2d", "fprop", variant, {"x": x, "w": w}, case.geometry)
    want = np.zeros((5, 6), bool)
    want[0:2, 1:4] = True  # the windows that hold (0, 2)
    assert np.array_equal(np.isnan(got), np.broadcast_to(want, got.shape))


@by_case
@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
def test_against_torch(case):
    torch = pytest.importorskip("torch")
    given = arguments(case, np.float64)
    x, w = (torch.tensor(given[letter], requires_grad=True) for letter in "xw")
    planes = x.reshape(x.shape[0], -1, *x.shape[-2:])
    options = (case.stride, case.padding, case.dilation, case.groups)
    y = torch.nn.functional.conv2d(planes, w, None, *options)
    y.backward(torch.from_numpy(given["gy"]))
    for pass_, want in (("fprop", y.detach()), ("dgrad", x.grad), ("wgrad", w.grad)):
        assert_close(run("conv2d", pass_, "reference", given, case.geometry), want.numpy())


def test_wrong_arguments():
    geometry = conv_geometry((1, 2, 3, 4, 5), (3, 6, 2, 3))
    x, w = np.ones(geometry.x), np.ones(geometry.w)
    with pytest.raises(UserError, match=r"conv2d_fprop: x has shape \(1, 6, 4, 5\), not \(1, 2, 3"):
        kernels.conv2d_fprop(x.reshape(1, 6, 4, 5), w, geometry)
    with pytest.raises(UserError, match="gy is float64 and x is float32"):
        kernels.conv2d_wgrad(np.ones(geometry.y), x.astype(np.float32), geometry)
    with pytest.raises(
        UserError, match=r"conv2d_fprop: bias must be \(3,\) of float64, not a list"
    ):
        kernels.conv2d_fprop(x, w, geometry, [1.0, 2, 3])
    with pytest.raises(UserError, match="for a filter of 3 axes, not 2"):
        kernels.conv2d_fprop(x, w, conv_geometry((1, 2, 3, 4, 5), (3, 2, 1, 2, 3)))
