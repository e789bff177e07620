"""Convolution with ReLU and max pooling as one operation: that of the three, and its gradients."""

import shutil

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import UserError, gradcheck, gradgradcheck, models, optim, tensor
from tinyvid.kernels.conv3d_relu_max_pool.cases import CASES
from tinyvid.models import c3d

SMALL = [case for case in CASES if not case.large]


def numbers(*shape, seed=0):
    values = np.random.default_rng(seed).standard_normal(shape)
    return tensor(values, requires_grad=True)


def composed(x, w, b, window, *convolution):
    return tinyvid.max_pool3d(tinyvid.conv3d(x, w, b, *convolution).relu(), window)


@pytest.mark.parametrize("case", SMALL, ids=lambda case: case.name)
def test_value_and_gradients_are_those_of_the_three(case):
    sizes = case.window, case.stride, case.padding, case.dilation, case.groups
    results = []
    for fn in (tinyvid.conv3d_relu_max_pool, composed):
        given = [numbers(*s, seed=i) for i, s in enumerate((case.x, case.w, case.w[:1]))]
        y = fn(*given, *sizes)
        gy = np.random.default_rng(9).standard_normal(y.shape)
        y.backward(gy)
        results.append([y.numpy(), *(t.grad.numpy() for t in given)])
    for got, want in zip(*results, strict=True):
        assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_derivatives_of_any_order():
    x, w, b = numbers(1, 2, 2, 4, 4), numbers(3, 2, 1, 3, 3, seed=1), numbers(3, seed=2)

    def fn(x, w, b):
        return tinyvid.conv3d_relu_max_pool(x, w, b, (1, 2, 2), padding=(0, 1, 1))

    gradcheck(fn, (x, w, b))
    gradgradcheck(fn, (x, w, b))
    gradcheck(lambda x, w: tinyvid.conv3d_relu_max_pool(x, w, None, (1, 2, 2)), (x, w))


def trained(device, **options):
    """Return the losses of C3D, narrow and on small clips, in three steps of training."""
    tinyvid.manual_seed(0)
    rng = np.random.default_rng(0)
    model = models.C3D(3, (3, 16, 16, 16), width=4, hidden=8, dropout=0.0, **options).to(device)
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    clips = rng.standard_normal((2, 3, 16, 16, 16)).astype(np.float32)
    x, labels = (tinyvid.tensor(a, device=device) for a in (clips, np.array([0, 2])))
    losses = []
    for _ in range(3):
        loss = tinyvid.cross_entropy(model(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "emulator",
            marks=pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler"),
        ),
    ],
)
def test_c3d_trains_with_it_as_without(device, monkeypatch):
    calls = []

    def counted(*args, **options):
        calls.append(options)
        return tinyvid.conv3d_relu_max_pool(*args, **options)

    monkeypatch.setattr(c3d, "conv3d_relu_max_pool", counted)
    want = trained("cpu")
    assert not calls
    assert trained(device, fuse_pool1=True) == pytest.approx(want, rel=2e-6)
    assert len(calls) == 3
    assert want[2] != pytest.approx(want[0], rel=1e-2)  # it learns


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_it_takes_the_first_layers_of_c3d_on_the_emulator():
    tinyvid.manual_seed(0)
    model = models.C3D(3, (3, 16, 16, 16), width=8, hidden=8)
    first = [model.trunk[i] for i in range(3)]  # conv1, relu1, pool1
    clips = np.random.default_rng(0).standard_normal((2, 3, 16, 16, 16)).astype(np.float32)
    want = tinyvid.tensor(clips)
    for layer in first:
        want = layer(want)
    gy = np.random.default_rng(1).standard_normal(want.shape).astype(np.float32)
    want.backward(gy)
    weights = [p.to("emulator").detach() for p in (first[0].weight, first[0].bias)]
    for weight in weights:
        weight.requires_grad = True
    x = tinyvid.tensor(clips, device="emulator")
    y = tinyvid.conv3d_relu_max_pool(x, *weights, first[2].kernel_size, padding=first[0].padding)
    y.backward(gy)
    assert_close(y.numpy(), want.numpy(), rtol=1e-5, atol=1e-6)
    for got, parameter in zip(weights, (first[0].weight, first[0].bias), strict=True):
        size = np.abs(parameter.grad.numpy()).max()
        assert_close(got.grad.numpy(), parameter.grad.numpy(), atol=1e-5 * size)


def test_what_is_refused():
    x, w = np.ones((1, 2, 3, 4, 4)), np.ones((3, 2, 2, 2, 2))
    with pytest.raises(UserError, match=r"weight must be \(K, C/groups, T, R, S\), not of shape"):
        tinyvid.conv3d_relu_max_pool(x, w[0])
    with pytest.raises(UserError, match="does not fit"):
        tinyvid.conv3d_relu_max_pool(x, w, None, (1, 4, 4))
    with pytest.raises(UserError, match=r"bias of shape \(2,\) for 3 output channels"):
        tinyvid.conv3d_relu_max_pool(x, w, np.ones(2))


@pytest.mark.parametrize("bias", [[1.0, -2.0, 3.0], np.array([1, -2, 3])])
def test_a_bias_of_another_type_is_cast_as_by_conv3d(bias):
    x, w = numbers(1, 2, 4, 6, 6).astype(np.float32), numbers(3, 2, 3, 3, 3).astype(np.float32)
    want = tinyvid.conv3d_relu_max_pool(x, w, np.array([1, -2, 3], np.float32)).numpy()
    got = tinyvid.conv3d_relu_max_pool(x, w, bias).numpy()
    assert got.dtype == np.float32
    assert_close(got, want)
