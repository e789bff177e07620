"""Convolutions as differentiable operations: arguments, bias, dtypes, and what they refuse."""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, tensor

f32 = np.float32


def draw(*shape, seed=0):
    return tensor(np.random.default_rng(seed).normal(size=shape), requires_grad=True)


def correlate(x, w, bias, stride, padding, dilation, groups):
    """The sum over windows, position by position; padding is (low, high) an axis."""
    rank = w.ndim - 2
    x = np.pad(x, ((0, 0), (0, 0), *padding))
    k, c = w.shape[:2]
    sizes = [
        (n - d * (s - 1) - 1) // step + 1
        for n, s, d, step in zip(x.shape[2:], w.shape[2:], dilation, stride, strict=True)
    ]
    y = np.zeros((x.shape[0], k, *sizes))
    for at in np.ndindex(*sizes):
        window = tuple(
            slice(i * step, i * step + d * (s - 1) + 1, d)
            for i, s, d, step in zip(at, w.shape[2:], dilation, stride, strict=True)
        )
        for out in range(k):
            group = out // (k // groups)
            part = x[(slice(None), slice(group * c, group * c + c), *window)]
            y[(slice(None), out, *at)] = (part * w[out]).sum(tuple(range(1, rank + 2)))
    return y if bias is None else y + bias.reshape(-1, *[1] * rank)


def test_conv3d_by_hand():
    # a window of two frames: difference of neighbours in time, 1, 2, 4 -> 1, 2, plus the bias 10
    x = tensor(np.array([1.0, 2, 4], f32).reshape(1, 1, 3, 1, 1))
    w = tensor(np.array([-1.0, 1], f32).reshape(1, 1, 2, 1, 1))
    y = tinyvid.conv3d(x, w, tensor([10.0]))
    assert_close(y, np.array([11, 12], f32).reshape(1, 1, 2, 1, 1))


def test_conv2d_by_hand():
    x = tensor(np.arange(9, dtype=f32).reshape(1, 1, 3, 3))
    w = tensor(np.array([[1.0, 0], [0, 1]], f32).reshape(1, 1, 2, 2))
    # x[i, j] + x[i + 1, j + 1]: 0 + 4, 1 + 5; 3 + 7, 4 + 8
    assert_close(tinyvid.conv2d(x, w), np.array([[[[4, 6], [10, 12]]]], f32))


def test_conv2d_of_a_clip_takes_all_frames_as_channels():
    x = draw(2, 3, 4, 5, 6)
    w = draw(7, 12, 3, 3, seed=1)
    y = tinyvid.conv2d(x, w, padding=1)
    assert_close(y, tinyvid.conv2d(x.reshape(2, 12, 5, 6), w, padding=1).data, rtol=1e-12)
    gx, gw = tinyvid.grad((y * y).sum(), [x, w])
    assert gx.shape == x.shape
    assert gw.shape == w.shape


# (x, w, arguments, padding as pairs)
CASES = {
    "plain 3-D": ((2, 3, 4, 5, 6), (4, 3, 2, 3, 3), {}, 0),
    "int arguments": (
        (1, 2, 5, 6, 7),
        (2, 2, 3, 3, 3),
        {"stride": 2, "padding": 1},
        ((1, 1),) * 3,
    ),
    "an argument an axis": (
        (1, 2, 5, 6, 7),
        (2, 2, 2, 3, 2),
        {"stride": (1, 2, 3), "padding": (0, 1, 2), "dilation": [2, 1, 2]},
        ((0, 0), (1, 1), (2, 2)),
    ),
    "same, odd": ((1, 1, 4, 4, 4), (1, 1, 3, 1, 5), {"padding": "same"}, ((1, 1), (0, 0), (2, 2))),
    "same, even": ((1, 1, 4, 4, 4), (2, 1, 2, 4, 1), {"padding": "same"}, ((0, 1), (1, 2), (0, 0))),
    "valid": ((1, 1, 3, 3, 3), (1, 1, 3, 3, 3), {"padding": "valid"}, 0),
    "groups": ((2, 4, 3, 4, 4), (6, 2, 2, 2, 2), {"groups": 2}, 0),
    "depthwise": ((1, 3, 3, 3, 3), (6, 1, 2, 1, 2), {"groups": 3}, 0),
    "plain 2-D": ((2, 3, 5, 6), (4, 3, 3, 2), {}, 0),
    "2-D": (
        (1, 4, 6, 7),
        (2, 2, 3, 3),
        {"stride": (2, 1), "padding": (1, 2), "dilation": 2, "groups": 2},
        ((1, 1), (2, 2)),
    ),
    "2-D same, even": ((1, 2, 5, 4), (3, 2, 2, 4), {"padding": "same"}, ((0, 1), (1, 2))),
}


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_values_and_derivatives(name, biased):
    x_shape, w_shape, options, padding = CASES[name]
    rank = len(w_shape) - 2
    function = {2: tinyvid.conv2d, 3: tinyvid.conv3d}[rank]
    args = [draw(*x_shape), draw(*w_shape, seed=1)]
    if biased:
        args.append(draw(w_shape[0], seed=2))

    def each(value):
        return (value,) * rank if isinstance(value, int) else tuple(value)

    want = correlate(
        args[0].data,
        args[1].data,
        args[2].data if biased else None,
        each(options.get("stride", 1)),
        padding or ((0, 0),) * rank,
        each(options.get("dilation", 1)),
        options.get("groups", 1),
    )
    run = lambda x, w, b=None: function(x, w, b, **options)  # noqa: E731
    assert_close(run(*args), want, rtol=1e-11, atol=1e-12)
    gradcheck(run, args, mode="random")
    gradgradcheck(run, args, mode="random")


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", ["plain 3-D", "groups", "2-D"])
def test_the_relu_on_the_way_out_is_that_of_an_operation(name, biased):
    x_shape, w_shape, options, _ = CASES[name]
    function = {4: tinyvid.conv2d, 5: tinyvid.conv3d}[len(w_shape)]
    shapes = [x_shape, w_shape, w_shape[:1]][: 3 if biased else 2]
    args = [draw(*shape, seed=i) for i, shape in enumerate(shapes)]
    run = lambda x, w, b=None: function(x, w, b, **options, relu=True)  # noqa: E731
    by_relu = lambda x, w, b=None: function(x, w, b, **options).relu()  # noqa: E731
    results = []
    for f in (run, by_relu):
        y = f(*args)
        first = tinyvid.grad((y * y).sum(), args, create_graph=True)
        second = tinyvid.grad(sum((g * g).sum() for g in first), args)
        results.append([y, *first, *second])
    assert 0 < (results[0][0].numpy() == 0).mean() < 1
    for got, want in zip(*results, strict=True):
        assert_close(got, want.data, rtol=1e-10, atol=1e-10)
    gradcheck(run, args, mode="random")
    gradgradcheck(run, args, mode="random")


def test_a_frozen_input_or_filter_gets_no_gradient_through_the_relu():
    x, w, b = draw(1, 2, 3, 3, 3), draw(3, 2, 2, 2, 2, seed=1), draw(3, seed=2)
    want = tinyvid.grad(tinyvid.conv3d(x, w, b, relu=True).sum(), [x, w, b])
    for i in range(3):
        args = [t.detach() if i == j else t for j, t in enumerate((x, w, b))]
        y = tinyvid.conv3d(*args, relu=True)
        others = [j for j in range(3) if j != i]
        for j, got in zip(others, tinyvid.grad(y.sum(), [args[j] for j in others]), strict=True):
            assert_close(got, want[j].data)
    with tinyvid.no_grad():
        assert not tinyvid.conv3d(x, w, b, relu=True).requires_grad


@pytest.mark.filterwarnings("ignore:Using padding=.same.:UserWarning")
def test_against_torch():
    torch = pytest.importorskip("torch")
    for name, (x_shape, w_shape, options, _) in CASES.items():
        x, w, b = draw(*x_shape), draw(*w_shape, seed=1), draw(w_shape[0], seed=2)
        op = f"conv{len(w_shape) - 2}d"
        arrays = [torch.from_numpy(t.data.copy()) for t in (x, w, b)]
        want = getattr(torch.nn.functional, op)(*arrays, **options).numpy()
        got = getattr(tinyvid, op)(x, w, b, **options)
        assert got.shape == want.shape, name
        assert_close(got, want, rtol=1e-10, atol=1e-12)


def test_the_bias_gradient_of_many_positions_keeps_float32_s_digits():
    x = tensor(np.zeros((2, 1, 8, 64, 64), f32))
    w, b = tensor(np.zeros((3, 1, 1, 1, 1), f32)), tensor(np.zeros(3, f32), requires_grad=True)
    y = tinyvid.conv3d(x, w, b)
    g = (np.random.default_rng(0).random(y.shape) + 1).astype(f32)
    g = np.moveaxis(np.ascontiguousarray(np.moveaxis(g, 1, -1)), -1, 1)
    y.backward(g)
    assert_close(b.grad, g.sum((0, 2, 3, 4), dtype=np.float64).astype(f32), rtol=3e-7)


def test_third_derivative():
    # y = w · x for one element: f = y³ has ∂²f/∂x² = 6 w³ x and ∂³f/∂x³ = 6 w³
    x = tensor(np.full((1, 1, 1, 1, 1), 2.0), requires_grad=True)
    w = tensor(np.full((1, 1, 1, 1, 1), 3.0))
    f = (tinyvid.conv3d(x, w) ** 3).sum()
    first = tinyvid.grad(f, x, create_graph=True)
    second = tinyvid.grad(first.sum(), x, create_graph=True)
    third = tinyvid.grad(second.sum(), x)
    assert_close(second, np.full(x.shape, 324.0), rtol=1e-12)
    assert_close(third, np.full(x.shape, 162.0), rtol=1e-12)


def test_what_is_refused():
    def ones(*shape, dtype=f32):
        return tensor(np.ones(shape, dtype))

    clip, w = ones(1, 2, 4, 4, 4), ones(3, 2, 3, 3, 3)
    refused = [
        (lambda: tinyvid.conv3d(clip, ones(3, 2, 3, 3)), r"conv3d: weight.*\(3, 2, 3, 3\)"),
        (lambda: tinyvid.conv2d(clip, w), r"conv2d: weight"),
        (lambda: tinyvid.conv3d(ones(2, 4, 4, 4), w), r"\(2, 4, 4, 4\).*\(N, C, D, H, W\)"),
        (lambda: tinyvid.conv3d(clip, ones(3, 1, 3, 3, 3)), "has 2 channels"),
        (lambda: tinyvid.conv3d(clip, w, groups=2), "groups=2"),
        (lambda: tinyvid.conv3d(clip, w, ones(2)), r"bias of shape \(2,\) for 3"),
        (lambda: tinyvid.conv3d(clip, ones(3, 2, 5, 3, 3)), "does not fit"),
        (lambda: tinyvid.conv3d(clip, w, stride=0), "stride=0"),
        (lambda: tinyvid.conv3d(clip, w, padding="full"), "padding='full'"),
        (lambda: tinyvid.conv3d(clip, w, stride=2, padding="same"), "'same' needs stride 1"),
        (lambda: tinyvid.conv3d(clip, w, padding=(1, 1)), "padding"),
        (lambda: tinyvid.conv3d(ones(1, 2, 4, 4, 4, dtype=np.float64), w), "float64"),
        (lambda: tinyvid.conv3d(ones(1, 2, 4, 4, 4, dtype=np.uint8), w), "uint8"),
    ]
    for call, message in refused:
        with pytest.raises(UserError, match=message):
            call()


@pytest.mark.parametrize("device", ["cpu", "emulator"])
def test_the_bias_and_the_relu_of_the_first_layer_are_those_of_operations(device):
    clips = np.random.default_rng(0).integers(0, 256, (2, 3, 2, 4, 3), dtype=np.uint8)
    mean, std = (0.4, 0.45, 0.5), (0.2, 0.22, 0.25)
    of_channel = (1, 3, 1, 1, 1)
    floats = (clips / 255.0 - np.reshape(mean, of_channel)) / np.reshape(std, of_channel)
    results = []
    for fused in (True, False):
        w, b = draw(4, 3, 1, 2, 2), draw(4, seed=1)
        w_there, b_there = w.to(device), b.to(device)
        with tinyvid.kernels.use(conv3d="reference"), tinyvid.kernels.use(conv3d_uint8="reference"):
            if fused:
                x = tinyvid.tensor(clips, device=device)
                y = tinyvid.conv3d_uint8(x, w_there, b_there, mean, std, relu=True)
            else:
                y = tinyvid.conv3d(tensor(floats).to(device), w_there, b_there).relu()
            (y * y).sum().backward()
        results.append((y.numpy(), w.grad.numpy(), b.grad.numpy()))
    assert 0 < (results[0][0] == 0).mean() < 1
    for got, want in zip(*results, strict=True):
        assert_close(got, want, rtol=1e-9, atol=1e-9)
