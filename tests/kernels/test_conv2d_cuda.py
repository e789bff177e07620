"""2-D convolution and early fusion in CUDA C++, on the emulator: every step, and the first layer.

The kernels are those of 3-D convolution, which have tests of their own; here, what 2-D convolution
makes of images and clips: the views, the copies, the planes filled up. On whole numbers every order
of summation is exact, and outputs that no thread writes stay NaN (`launch.empty`).
"""

import shutil

import numpy as np
import pytest
from compare import assert_close
from conv_checks import PASSES, TAKES, arguments, expected, integers, layouts, reals, small

import tinyvid
from tinyvid import kernels, models, optim
from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels import files, launch
from tinyvid.kernels.conv2d import cpu, cuda, first_layer, reference
from tinyvid.kernels.conv2d.cases import CASES, UINT8_CASES, ConvCase
from tinyvid.kernels.conv2d.over_time import over_time, planes
from tinyvid.kernels.conv3d import cuda as conv3d
from tinyvid.kernels.emulator import options
from tinyvid.kernels.emulator.check import check
from tinyvid.kernels.inspection.compile import is_available
from tinyvid.kernels.inspection.facts import inspect

needs_compiler = pytest.mark.skipif(
    not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="the emulator needs a C++17 compiler",
)
by_step = pytest.mark.parametrize("step", cuda.STEPS)
by_pass = pytest.mark.parametrize("pass_", PASSES)
CASE = {case.name: case for case in CASES}
EXACT = ("naive", "tiled", "implicit_gemm")  # the others take float32 only


def run(step: str, pass_: str, given: dict, geometry, device="emulator", **more) -> np.ndarray:
    arrays = [given[letter] for letter in TAKES[pass_]]
    return getattr(cuda, pass_)(*arrays, geometry, step=step, device=device, **more)


def check_exact(step: str, pass_: str, case: ConvCase, dtype=np.float32, **more) -> None:
    """Small whole numbers are exact in bf16 too, and so are their sums in float32."""
    got = run(step, pass_, arguments(case, dtype), case.geometry, **more)
    assert_close(got, expected("conv2d", pass_, case, dtype))


# ---- which 3-D convolution it is -----------------------------------------------------------------


def test_a_clip_over_time_and_over_its_planes():
    geometry = conv_geometry((2, 4, 3, 8, 9), (6, 6, 3, 2), (2, 3), (1, 0), (1, 2), 2)
    lying, flat = over_time(geometry), planes(geometry)
    assert (lying.x, lying.w) == ((2, 4, 3, 8, 9), (6, 2, 3, 3, 2))
    assert (flat.x, flat.w) == ((2, 12, 1, 8, 9), (6, 6, 1, 3, 2))
    for solid in (lying, flat):
        assert solid.y == (*geometry.y[:2], 1, *geometry.y[2:])
        assert (solid.stride, solid.dilation) == ((1, 2, 3), (1, 1, 2))
        assert (solid.padding, solid.groups) == (((0, 0), (1, 1), (0, 0)), 2)
    # Three channels do not fall into two groups, their twelve planes do.
    cut = CASE["clip_groups_cut_channels"].geometry
    assert over_time(cut) == planes(cut)
    assert planes(CASE["clip_one_channel"].geometry, 4).x == (2, 8, 1, 4, 5)


def test_narrow_clips_are_not_multiplied_by_zeros():
    """Of matrix products; the other steps take the clip as it lies, but for dgrad."""
    geometry = CASE["example_early_fusion"].geometry  # 3 channels, 20 frames
    for pass_ in ("fprop", "wgrad"):
        for step, channels in (("naive", 3), ("tiled", 3), ("implicit_gemm", 60), ("bf16", 64)):
            assert cuda.solid(step, pass_, geometry, np.float32).x[1] == channels
    assert {cuda.solid(s, "dgrad", geometry, np.float32).x[1] for s in cuda.STEPS} == {60}
    wide = CASE["clip_many_channels"].geometry
    assert cuda.solid("implicit_gemm", "fprop", wide, np.float32) == over_time(wide)
    # A block of the tiled step has no room for filters of 16 x 7 x 7; it has for 7 x 7.
    deep = conv_geometry((1, 3, 16, 20, 20), (8, 48, 7, 7), 2)
    assert cuda.solid("tiled", "fprop", deep, np.float32) == planes(deep)
    assert cuda.unfit("tiled", "fprop", deep, np.float32) is None


# ---- every case ----------------------------------------------------------------------------------


@needs_compiler
@by_step
@by_pass
@pytest.mark.parametrize("case", small(CASES))
def test_every_case(step, pass_, case):
    assert cuda.unfit(step, pass_, case.geometry, np.float32) is None, "they take every case"
    check_exact(step, pass_, case)
    if step in EXACT:
        check_exact(step, pass_, case, np.float64)


# A clip that crosses the tiles: more than 128 cells, 32 filters and 16 planes; 13 are no chunks.
BORDERS = [
    ConvCase("cells", (1, 1, 13, 10, 13), (33, 13, 3, 3), padding=1),
    ConvCase("planes", (1, 3, 11, 5, 5), (3, 33, 2, 2)),
    ConvCase("wide", (1, 17, 2, 3, 4), (5, 34, 2, 3), padding=1),
    ConvCase("deep filter", (1, 3, 16, 15, 15), (3, 48, 7, 7), stride=4),
]


@needs_compiler
@by_step
@by_pass
@pytest.mark.parametrize("case", small(BORDERS))
def test_borders_of_tiles(step, pass_, case):
    check_exact(step, pass_, case)


@needs_compiler
@by_pass
@pytest.mark.parametrize("step", ["naive", "implicit_gemm"])
@pytest.mark.parametrize("name", ["plain", "clip", "clip_many_channels"])
def test_inputs_may_lie_in_any_order(step, pass_, name):
    case = CASE[name]
    given = arguments(case, np.float32)
    first, second = TAKES[pass_]
    for (order, a), (_, b) in zip(layouts(given[first]), layouts(given[second]), strict=True):
        before = a.copy(), b.copy()
        a.flags.writeable = b.flags.writeable = False
        got = run(step, pass_, {first: a, second: b}, case.geometry)
        assert_close(got, expected("conv2d", pass_, case, np.float32))
        assert np.array_equal(a, before[0]), order
        assert np.array_equal(b, before[1]), order


@needs_compiler
@pytest.mark.parametrize(("name", "step"), [("clip", "naive"), ("clip_many_channels", "tf32")])
def test_a_channels_last_clip_is_not_copied(name, step, monkeypatch):
    case, seen = CASE[name], []
    given = arguments(case, np.float32)
    x = np.moveaxis(np.moveaxis(given["x"], 1, -1).copy(), -1, 1)  # N T H W C in memory
    taken = cuda.conv3d.channels_last
    monkeypatch.setattr(cuda.conv3d, "channels_last", lambda *a: seen.append(taken(*a)) or seen[-1])
    run(step, "fprop", given | {"x": x}, case.geometry)
    assert np.shares_memory(seen[0], x)


@needs_compiler
def test_a_narrow_clip_is_copied_once(monkeypatch):
    case, made, seen = CASE["clip"], [], []
    given, plain = arguments(case, np.float32), launch.empty
    shape = cuda.solid("implicit_gemm", "fprop", case.geometry, np.float32).x
    assert shape[1] > case.geometry.x[1]  # filled up, and so not as it lies

    def empty(size, *more):
        array = plain(size, *more)
        if size == (shape[0], 1, *shape[3:], shape[1]):
            made.append(array)
        return array

    taken = cuda.conv3d.channels_last
    monkeypatch.setattr(launch, "empty", empty)
    monkeypatch.setattr(cuda.conv3d, "channels_last", lambda *a: seen.append(taken(*a)) or seen[-1])
    run("implicit_gemm", "fprop", given, case.geometry)
    assert len(made) == 1
    assert np.shares_memory(seen[0], made[0])


@pytest.mark.skipif(not is_available(), reason="needs NVRTC: pip install 'tinyvid[inspect]'")
@pytest.mark.parametrize("arch", ["sm_80", "sm_90"])
def test_a_tile_of_32_columns_multiplies_in_most_of_its_instructions(arch):
    """Less than the 85 % of wider ones: 72 to 79 %, see `tinyvid.kernels.conv2d.programs`."""
    step, dtype = conv3d.STEPS["implicit_gemm"], np.dtype(np.float32)
    narrow = [("example_early_fusion", "fprop"), ("example_early_fusion", "wgrad")]
    for name, pass_ in (*narrow, ("karpathy_early_fusion", "dgrad"), ("c3d_early_fusion", "fprop")):
        of_3d = cuda.solid("implicit_gemm", pass_, CASE[name].geometry, dtype)
        plan = step.plan(pass_, of_3d, dtype)
        facts = inspect(
            launch.KERNELS / "conv3d" / step.file,
            f"conv3d_{pass_}_implicit_gemm",
            arch,
            conv3d.constants("implicit_gemm", pass_, of_3d, dtype),
            plan.threads,
            plan.shared,
        )
        if name.startswith("c3d"):
            assert facts.loop.ffma_share > 0.85
        else:
            assert 0.715 < facts.loop.ffma_share < 0.795, (name, pass_)


@needs_compiler
@by_pass
def test_results_lie_channels_last(pass_):
    got = run("naive", pass_, arguments(CASE["plain"], np.float32), CASE["plain"].geometry)
    assert np.moveaxis(got, 1, -1).flags.c_contiguous
    if pass_ == "dgrad":
        got = run("naive", pass_, arguments(CASE["clip"], np.float32), CASE["clip"].geometry)
        assert got.transpose(0, 3, 4, 1, 2).flags.c_contiguous, "the planes of a clip are not last"


@needs_compiler
@by_step
@by_pass
def test_checker_finds_nothing(step, pass_):
    for name in ("clip_one_channel", "clip_groups_cut_channels"):
        given = arguments(CASE[name], np.float32)
        report = check(lambda n=name, g=given: run(step, pass_, g, CASE[n].geometry), ["shuffled"])
        assert report.launches > 0
        assert report.findings == []


@needs_compiler
def test_sizes_compiled_in():
    check_exact("implicit_gemm", "fprop", CASE["clip_stride"], specialised=True)


@needs_compiler
@pytest.mark.parametrize("name", ["plain", "clip", "clip_groups_cut_channels"])
@by_step
def test_bias_and_relu(step, name):
    case = CASE[name]
    bias = np.arange(case.w[0], dtype=np.float32) - 2
    want = expected("conv2d", "fprop", case, np.float32) + bias[:, None, None]
    given = arguments(case, np.float32)
    got = run(step, "fprop", given, case.geometry, bias=bias, relu=True)
    assert (want < 0).any()
    assert_close(got, np.maximum(want, np.float32(0)))


@needs_compiler
@by_pass
def test_no_clips(pass_):
    geometry = conv_geometry((0, 3, 4, 5, 6), (5, 12, 3, 3))
    given = {letter: np.zeros(getattr(geometry, letter[-1]), np.float32) for letter in ("x", "w")}
    given["gy"] = np.zeros(geometry.y, np.float32)
    got = run("implicit_gemm", pass_, given, geometry)
    letter = {"fprop": "y", "dgrad": "x", "wgrad": "w"}[pass_]
    assert_close(got, np.zeros(getattr(geometry, letter), np.float32))


@needs_compiler
def test_runs_agree_to_the_bit():
    case = ConvCase("cut", (2, 3, 5, 12, 12), (16, 15, 3, 3), padding=1)
    given = arguments(case, np.float32, reals)
    for pass_ in PASSES:
        results = []
        for workers, schedule in ((1, "forward"), (2, "shuffled")):
            with options(workers=workers, schedule=schedule):
                results.append(run("implicit_gemm", pass_, given, case.geometry))
        assert np.array_equal(*results)


@needs_compiler
def test_a_clip_read_in_the_wrong_order_is_found(monkeypatch):
    in_3d = cuda._in_3d
    monkeypatch.setattr(
        cuda, "_in_3d", lambda a, *rest: in_3d(a[:, :, ::-1] if a.ndim == 5 else a, *rest)
    )
    for step in cuda.STEPS:
        with pytest.raises(AssertionError, match="elements differ"):
            check_exact(step, "fprop", CASE["clip"])


# ---- the registry, errors, launches --------------------------------------------------------------


@needs_compiler
def test_registry_on_the_emulator():
    case = CASE["clip"]
    given = arguments(case, np.float32)
    for pass_ in PASSES:
        kernel = getattr(kernels, f"conv2d_{pass_}")
        args = [given[letter] for letter in TAKES[pass_]]
        assert kernel.select(*args, case.geometry, device="emulator").name == "cuda/implicit_gemm"
        got = kernel(*args, case.geometry, device="emulator").view(np.ndarray)
        assert_close(got, expected("conv2d", pass_, case, np.float32))


def test_messages_name_the_kernel(monkeypatch):
    case = CASE["clip"]
    given = arguments(case, np.float32)
    x, w, geometry = given["x"], given["w"], case.geometry
    with pytest.raises(UserError, match=r"conv2d_fprop: w has shape \(5, 12, 3\)"):
        cuda.fprop(x, w[..., 0], geometry, device="emulator")
    with pytest.raises(
        UserError, match=r"conv2d_fprop: bias must be \(5,\) of float32, not \(3,\)"
    ):
        cuda.fprop(x, w, geometry, np.zeros(3, np.float32), device="emulator")
    with pytest.raises(UserError, match=r"conv2d_wgrad: device 'cuda' takes CuPy arrays"):
        cuda.wgrad(given["gy"], x, geometry)
    with pytest.raises(UserError, match=r"conv2d_fprop: 'cuda/bf16' .* takes float32, not float64"):
        cuda.bf16_fprop(x.astype(np.float64), w.astype(np.float64), geometry, device="emulator")
    many = conv_geometry((1, 1, 2, 2**15, 2**15), (1, 2, 1, 1))
    assert "more cells than 2**30" in cuda.unfit("naive", "fprop", many)

    def full(*_):
        raise MemoryError

    monkeypatch.setattr(launch, "empty", full)
    with pytest.raises(UserError, match=r"conv2d_fprop: out of memory .*\(2, 3, 4, 5, 6\) float32"):
        cuda.fprop(x, w, geometry, device="emulator")


def test_launches_of_the_files_of_3d_convolution_hold_those_of_2d():
    for file in ("naive.cu", "implicit_gemm.cu", "tensor_core.cu", "first_layer.cu"):
        names = [name for name, _ in files.launches_of(launch.KERNELS / "conv3d" / file)]
        assert "conv2d fprop clip" in names
        assert "conv2d wgrad plain" in names


# ---- the first layer, of bytes -------------------------------------------------------------------

# Whole numbers: x - 10, 2 x - 40, x.
MEAN, STD = (10 / 255, 20 / 255, 0.0), (1 / 255, 1 / 510, 1 / 255)
FITTING = [c for c in UINT8_CASES if first_layer.unfit(c.geometry) is None]
by_uint8_pass = pytest.mark.parametrize("pass_", ["fprop", "wgrad"])


def bytes_of(pass_: str, case: ConvCase, dtype) -> tuple[list, tuple]:
    """The arrays of a pass, and the bias and ReLU, which fprop takes."""
    x = np.random.default_rng(0).integers(0, 256, case.x, dtype=np.uint8)
    if pass_ == "wgrad":
        return [integers(case.geometry.y, dtype, 2), x], ()
    return [x, integers(case.w, dtype, 1)], (integers(case.w[:1], dtype, 3), True)


def exact(pass_: str, case: ConvCase) -> np.ndarray:
    arrays, more = bytes_of(pass_, case, np.float64)
    run = getattr(reference, f"uint8_{pass_}")
    return np.rint(run(*arrays, MEAN, STD, case.geometry, *more))


@pytest.mark.parametrize("of", [cpu, reference])
def test_frames_share_the_mean_and_std_of_their_channel(of):
    # Shares of 255: frames 0.2 and 1 of a channel with mean 0.2 and std 0.1, frames 0 and 0.4 of
    # one with mean 0.4 and std 0.2: u = 0, 8, -2, 0.
    x = np.array([51, 255, 0, 102], np.uint8).reshape(1, 2, 2, 1, 1)
    w = np.array([1000.0, 100, 10, 1]).reshape(1, 4, 1, 1)
    geometry = conv_geometry(x.shape, w.shape)
    y = of.uint8_fprop(x, w, (0.2, 0.4), (0.1, 0.2), geometry)
    assert_close(y, np.full((1, 1, 1, 1), 800.0 - 20), atol=1e-9)
    gw = of.uint8_wgrad(np.ones((1, 1, 1, 1)), x, (0.2, 0.4), (0.1, 0.2), geometry)
    assert_close(gw, np.array([0.0, 8, -2, 0]).reshape(w.shape), atol=1e-12)


@by_uint8_pass
@pytest.mark.parametrize("case", small(UINT8_CASES))
def test_bytes_on_the_cpu(pass_, case):
    C = case.x[1]
    mean, std = (0.4, 0.45, 0.5, 0.55)[:C], (0.2, 0.22, 0.25, 0.3)[:C]
    arrays, more = bytes_of(pass_, case, np.float64)
    got = getattr(kernels, f"conv2d_uint8_{pass_}")(*arrays, mean, std, case.geometry, *more)
    want = getattr(reference, f"uint8_{pass_}")(*arrays, mean, std, case.geometry, *more)
    assert_close(got, want, atol=1e-11)


@needs_compiler
@by_uint8_pass
@pytest.mark.parametrize("case", small(FITTING))
def test_bytes_on_the_emulator(pass_, case):
    for dtype, atol in ((np.float32, 0), (np.float64, 1e-9)):
        arrays, more = bytes_of(pass_, case, dtype)
        for schedule, copies in (("forward", "late"), ("shuffled", "early")):
            with options(schedule=schedule, copies=copies):
                got = getattr(kernels, f"conv2d_uint8_{pass_}")(
                    *arrays, MEAN, STD, case.geometry, *more, device="emulator"
                )
            assert_close(got.view(np.ndarray), exact(pass_, case).astype(dtype), atol=atol)


def test_messages_of_the_first_layer_name_the_kernel():
    case = next(c for c in UINT8_CASES if c.name == "clip")
    (x, w), _ = bytes_of("fprop", case, np.float32)
    for args, words in [
        ((x.astype(np.float32), w, MEAN, STD), "x must be an array of uint8, not float32"),
        ((x[:, :2], w, MEAN, STD), r"x has shape \(2, 2, 4, 5, 6\), not \(2, 3, 4, 5, 6\)"),
        ((x, w, MEAN * 4, STD * 4), "a number for each of the 3 channels"),
    ]:
        with pytest.raises(UserError, match=f"conv2d_uint8_fprop: .*{words}"):
            kernels.conv2d_uint8_fprop(*args, case.geometry)
    with pytest.raises(UserError, match="conv2d_uint8_fprop: device 'cuda' takes CuPy arrays"):
        first_layer.fprop(x, w, MEAN, STD, case.geometry)
    grey = next(c for c in UINT8_CASES if c.name == "clip_grey").geometry
    assert "of 3 channels in one group, not of 1 in 1" in first_layer.unfit(grey)


@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (2, 3, 4, 6, 5)])
def test_the_operation_is_conv2d_of_what_is_normalised(shape):
    x = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    u = tinyvid.Tensor(reference.normalised(x, mean, std, np.float64))
    w, b = (
        tinyvid.Tensor(reals(s, np.float64, i), requires_grad=True)
        for i, s in enumerate(((4, 3 * shape[2] if len(shape) == 5 else 3, 3, 3), (4,)))
    )
    got = tinyvid.ops.conv2d_uint8(x, w, b, mean, std, 2, 1, relu=True)
    want = tinyvid.conv2d(u, w, b, 2, 1).relu()
    assert_close(got, want.data, atol=1e-12)
    g = tinyvid.Tensor(reals(got.shape, np.float64, 5))
    for one, other in zip(tinyvid.grad(got, [w, b], g), tinyvid.grad(want, [w, b], g), strict=True):
        assert_close(one, other.data, atol=1e-11)
    with pytest.raises(UserError, match=r"conv2d_uint8: weight must be \(K, C/groups, R, S\)"):
        tinyvid.ops.conv2d_uint8(x, tinyvid.Tensor(np.ones((4, 3, 1, 1, 1))))


# ---- networks, and the path of a GPU -------------------------------------------------------------


def losses_of(device: str, steps: int) -> list[float]:
    """Train early fusion; return the loss before each step.

    Six clips, as normalising two leaves of each number little but its sign.
    """
    tinyvid.manual_seed(0)
    model = models.build("early_fusion", 3, clip=(3, 4, 16, 16)).to(device)
    clips = reals((6, 3, 4, 16, 16), np.float32, 0)
    x, labels = (tinyvid.tensor(a, device=device) for a in (clips, np.arange(6) % 3))
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    losses = []
    for _ in range(steps):
        loss = tinyvid.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@needs_compiler
def test_early_fusion_trains_on_the_emulator_as_on_the_cpu():
    want = losses_of("cpu", 3)
    assert losses_of("emulator", 3) == pytest.approx(want, rel=1e-5)
    assert want[2] != pytest.approx(want[0], rel=1e-2)


@needs_compiler
def test_the_path_of_a_gpu(cupy):
    """On the stand-in for CuPy: a clip of 15 planes, filled up to 16, and one of bytes."""
    case = ConvCase("clip", (2, 3, 5, 4, 5), (4, 15, 2, 3), padding=1)
    given = {letter: cupy.asarray(a) for letter, a in arguments(case, np.float32).items()}
    for pass_ in PASSES:
        got = run("implicit_gemm", pass_, given, case.geometry, device="cuda", specialised=False)
        assert_close(got.get(), expected("conv2d", pass_, case, np.float32))
    for pass_ in ("fprop", "wgrad"):
        arrays, more = bytes_of(pass_, case, np.float32)
        there = [cupy.asarray(a) for a in arrays]
        finish = [cupy.asarray(a) if isinstance(a, np.ndarray) else a for a in more]
        got = getattr(first_layer, pass_)(
            *there, MEAN, STD, case.geometry, *finish, specialised=False
        )
        assert_close(got.get(), exact(pass_, case).astype(np.float32))
