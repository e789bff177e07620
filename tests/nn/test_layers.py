"""Layers: worked by hand, against PyTorch where it is installed, and their gradients.

Gradients are compared with central differences here, of every parameter and of the input, in
float64; nothing of the engine but the forward pass goes into the expectation.
"""

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import nn
from tinyvid.errors import UserError

LAYERS = {
    "linear": (lambda n: n.Linear(5, 3), (2, 4, 5)),
    "linear, no bias": (lambda n: n.Linear(5, 3, bias=False), (2, 5)),
    "conv2d": (lambda n: n.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=1), (2, 3, 5, 4)),
    "conv2d, groups": (lambda n: n.Conv2d(4, 2, 3, dilation=2, groups=2, bias=False), (1, 4, 6, 5)),
    "conv3d": (lambda n: n.Conv3d(2, 3, 3, stride=(1, 2, 2), padding=(1, 0, 1)), (2, 2, 3, 5, 4)),
    "conv3d, same": (lambda n: n.Conv3d(2, 2, (2, 3, 1), padding="same"), (1, 2, 3, 4, 3)),
    "conv3d, valid": (lambda n: n.Conv3d(2, 2, (1, 3, 2), padding="valid"), (1, 2, 2, 4, 3)),
    "max_pool2d": (lambda n: n.MaxPool2d(2), (2, 3, 4, 5)),
    "max_pool3d": (lambda n: n.MaxPool3d((1, 2, 2), 2, (0, 1, 1), ceil_mode=True), (2, 2, 3, 4, 5)),
    "avg_pool2d": (lambda n: n.AvgPool2d((2, 3), 1, count_include_pad=False), (1, 2, 4, 5)),
    "avg_pool3d": (lambda n: n.AvgPool3d(2, 1, 1, divisor_override=3), (1, 2, 2, 3, 3)),
    "adaptive_avg_pool2d": (lambda n: n.AdaptiveAvgPool2d((2, 3)), (1, 2, 5, 4)),
    "adaptive_avg_pool3d": (lambda n: n.AdaptiveAvgPool3d(2), (1, 2, 3, 5, 4)),
    "adaptive_max_pool2d": (lambda n: n.AdaptiveMaxPool2d(2), (1, 2, 5, 4)),
    "adaptive_max_pool3d": (lambda n: n.AdaptiveMaxPool3d((1, 2, 3)), (1, 2, 3, 5, 4)),
    "batch_norm1d": (lambda n: n.BatchNorm1d(3), (4, 3)),
    "batch_norm1d, L": (lambda n: n.BatchNorm1d(3, affine=False), (3, 3, 2)),
    "batch_norm2d": (lambda n: n.BatchNorm2d(2, momentum=None), (3, 2, 2, 3)),
    "batch_norm3d": (lambda n: n.BatchNorm3d(2, eps=0.1, momentum=0.3), (2, 2, 2, 2, 3)),
    "batch_norm3d, batch": (lambda n: n.BatchNorm3d(2, track_running_stats=False), (2, 2, 1, 2, 3)),
    "layer_norm": (lambda n: n.LayerNorm(5), (2, 3, 5)),
    "layer_norm, 2 axes": (lambda n: n.LayerNorm((3, 4), bias=False), (2, 3, 4)),
    "layer_norm, plain": (lambda n: n.LayerNorm([4], elementwise_affine=False), (2, 4)),
    "local_response_norm": (lambda n: n.LocalResponseNorm(3, 0.5, 0.6, 2.0), (2, 5, 3)),
    "local_response_norm, even": (lambda n: n.LocalResponseNorm(4), (1, 5, 2, 2)),
    "relu": (lambda n: n.ReLU(), (3, 4)),
    "sigmoid": (lambda n: n.Sigmoid(), (3, 4)),
    "tanh": (lambda n: n.Tanh(), (3, 4)),
    "softmax": (lambda n: n.Softmax(1), (2, 4, 3)),
    "flatten": (lambda n: n.Flatten(), (2, 3, 2, 2)),
    "flatten, middle": (lambda n: n.Flatten(1, 2), (2, 3, 2, 2)),
    "lstm": (lambda n: n.LSTM(3, 2), (4, 2, 3)),
    "lstm, deep": (lambda n: n.LSTM(3, 2, 2, batch_first=True, bidirectional=True), (2, 3, 3)),
    "lstm, no bias": (lambda n: n.LSTM(2, 3, bias=False, batch_first=True), (2, 3, 2)),
}


def run(layer, x):
    y = layer(x)
    return y[0] if isinstance(y, tuple) else y


def build(name, seed=0):
    """Return the layer in float64 with random parameters (ones and zeros hide mistakes), and x."""
    make, shape = LAYERS[name]
    random = np.random.default_rng(seed)
    layer = make(nn).to(np.float64)
    with tinyvid.no_grad():
        for p in layer.parameters():
            p.copy_(random.normal(size=p.shape))
    return layer, random.normal(size=shape)


@pytest.mark.parametrize("name", LAYERS)
def test_gradients_by_central_differences(name):
    layer, array = build(name)
    x = nn.Parameter(array)
    y = run(layer, x)
    gy = np.random.default_rng(1).normal(size=y.shape)
    y.backward(gy)
    for p in [x, *layer.parameters()]:
        assert_close(p.grad, central_differences(layer, x, gy, p), rtol=1e-6, atol=1e-7)


def central_differences(layer, x, gy, p, step=1e-5):
    """Return the gradient of <gy, layer(x)> with respect to p, an element at a time."""
    values, numeric = p.numpy().copy(), np.empty(p.shape)
    with tinyvid.no_grad():
        for i in np.ndindex(p.shape):
            sides = []
            for sign in (1, -1):
                moved = values.copy()
                moved[i] += sign * step
                p.copy_(moved)
                sides.append(np.sum(gy * run(layer, x).numpy()))
            numeric[i] = (sides[0] - sides[1]) / (2 * step)
        p.copy_(values)
    return numeric


def test_the_gradient_check_catches_a_wrong_layer():
    class Wrong(nn.Linear):
        def forward(self, x):
            return super().forward(x) + self.weight.detach().sum() * 1e-3

    layer = Wrong(2, 2).to(np.float64)
    x = nn.Parameter(np.ones((1, 2)))
    y = layer(x)
    y.backward(np.ones((1, 2)))
    numeric = central_differences(layer, x, np.ones((1, 2)), layer.weight)
    with pytest.raises(AssertionError, match="4 of 4 elements differ"):
        assert_close(layer.weight.grad, numeric, rtol=1e-6, atol=1e-7)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # PyTorch's
@pytest.mark.parametrize("name", LAYERS)
def test_agrees_with_pytorch_by_name(name):
    """The same state by name gives the same outputs, gradients and running statistics."""
    torch = pytest.importorskip("torch")
    ours, array = build(name)
    theirs = LAYERS[name][0](torch.nn).double()
    state = ours.state_dict()
    assert list(state) == list(theirs.state_dict())
    theirs.load_state_dict({k: torch.tensor(t.numpy().copy()) for k, t in state.items()})
    for training in (True, True, False):
        ours.train(training).zero_grad()
        theirs.train(training).zero_grad()
        x = nn.Parameter(array)
        tx = torch.tensor(array, requires_grad=True)
        y, ty = run(ours, x), theirs(tx)
        ty = ty[0] if isinstance(ty, tuple) else ty
        assert_close(y, ty.detach().numpy(), rtol=1e-10, atol=1e-12)
        gy = np.random.default_rng(2).normal(size=y.shape)
        y.backward(gy)
        ty.backward(torch.tensor(gy))
        assert_close(x.grad, tx.grad.numpy(), rtol=1e-9, atol=1e-11)
        for p, tp in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert_close(p.grad, tp.grad.numpy(), rtol=1e-9, atol=1e-11)
        for key, t in theirs.state_dict().items():
            assert_close(ours.state_dict()[key], t.numpy(), rtol=1e-12, atol=1e-12)


# Worked by hand


def test_linear():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": [[2, -1]], "bias": [3]})
    x = tinyvid.tensor([[1.0, 4.0], [0.0, 1.0]])
    assert_close(layer(x), np.array([[1], [2]], np.float32))


def test_conv3d_sums_a_window():
    layer = nn.Conv3d(1, 1, 2)
    layer.load_state_dict({"weight": np.ones((1, 1, 2, 2, 2)), "bias": [0.5]})
    x = tinyvid.tensor(np.arange(12, dtype=np.float32).reshape(1, 1, 2, 2, 3))
    # 0+1+3+4 + 6+7+9+10 = 40 and, one column on, 8 more
    assert_close(layer(x), np.array([40.5, 48.5], np.float32).reshape(1, 1, 1, 1, 2))


def test_conv2d_takes_a_clip_as_it_lies():
    tinyvid.manual_seed(0)
    layer = nn.Conv2d(3 * 4, 5, 3, padding="same")
    clip = tinyvid.randn(2, 3, 4, 6, 7)
    y = layer(clip)
    assert y.shape == (2, 5, 6, 7)
    assert_close(y, layer(clip.reshape(2, 12, 6, 7)).numpy(), rtol=1e-6, atol=1e-6)


def test_max_pool_returns_indices():
    x = tinyvid.tensor(np.array([[[[1, 3, 2], [5, 0, 4]]]], np.float32))
    y, at = nn.MaxPool2d(2, 1, return_indices=True)(x)
    assert_close(y, np.array([[[[5, 4]]]], np.float32))
    assert_close(at, np.array([[[[3, 5]]]], np.int64))


def test_global_avg_pool():
    layer = nn.GlobalAvgPool()
    x = np.arange(24, dtype=np.float32).reshape(1, 2, 3, 2, 2)
    assert_close(layer(tinyvid.tensor(x)), np.array([[5.5, 17.5]], np.float32))
    assert layer(tinyvid.randn(2, 3, 4)).shape == (2, 3)
    with pytest.raises(UserError, match=r"\(2, 3\): GlobalAvgPool takes \(N, C, ...\)"):
        layer(tinyvid.randn(2, 3))


def test_batch_norm_running_statistics():
    layer = nn.BatchNorm1d(2, momentum=0.25)
    x = tinyvid.tensor([[1.0, 10.0], [3.0, 10.0]])
    y = layer(x)
    # Channel 0: mean 2, biased variance 1, unbiased 2. Channel 1: mean 10, variance 0.
    assert_close(y, np.array([[-1, 0], [1, 0]], np.float32), atol=1e-5)
    assert_close(layer.running_mean, np.array([0.5, 2.5], np.float32))  # 0.75 * 0 + 0.25 * mean
    assert_close(layer.running_var, np.array([1.25, 0.75], np.float32))  # 0.75 * 1 + 0.25 * var
    assert layer.num_batches_tracked.item() == 1
    before = layer.state_dict()
    y = layer.eval()(x)
    want = (x.numpy() - [0.5, 2.5]) / np.sqrt(np.array([1.25, 0.75]) + 1e-5)
    assert_close(y, want.astype(np.float32), rtol=1e-6)
    for name, t in layer.state_dict().items():
        assert_close(t, before[name].numpy())


def test_batch_norm_without_momentum_averages_all_batches():
    layer = nn.BatchNorm1d(1, momentum=None)
    for batch in ([0.0, 2.0], [4.0, 6.0], [6.0, 12.0]):  # means 1, 5, 9
        layer(tinyvid.tensor(batch).reshape(2, 1))
    assert_close(layer.running_mean, np.array([5], np.float32), rtol=1e-6)
    assert_close(layer.running_var, np.array([22 / 3], np.float32), rtol=1e-6)  # 2, 2, 18
    assert layer.num_batches_tracked.item() == 3


def test_layer_norm():
    layer = nn.LayerNorm(2, eps=0.0)
    assert_close(layer(tinyvid.tensor([[1.0, 5.0]])), np.array([[-1, 1]], np.float32))


def test_dropout():
    tinyvid.manual_seed(0)
    layer, x = nn.Dropout(0.3), nn.Parameter(np.ones((200, 200), np.float32))
    y = layer(x)
    values = np.unique(y.numpy())
    assert_close(values, np.array([0, 1 / 0.7], np.float32), rtol=1e-6)
    # 40,000 draws of probability 0.3: four standard errors are 0.0092.
    assert abs(np.mean(y.numpy() == 0) - 0.3) < 0.0092
    y.sum().backward()
    assert_close(x.grad, y.numpy())
    assert not np.array_equal(layer(x).numpy(), y.numpy())
    tinyvid.manual_seed(0)
    assert_close(layer(x), y.numpy())
    assert_close(layer.eval()(x), x.numpy())
    assert_close(nn.Dropout(1.0)(x), np.zeros((200, 200), np.float32))


def test_cross_entropy_loss():
    scores = tinyvid.tensor(np.log([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]).astype(np.float32))
    target = tinyvid.tensor(np.array([0, 2]))
    losses = -np.log([0.5, 0.6])
    for reduction, want in (("mean", losses.mean()), ("sum", losses.sum()), ("none", losses)):
        loss = nn.CrossEntropyLoss(reduction=reduction)(scores, target)
        assert_close(loss, np.asarray(want, np.float32), rtol=1e-6)
    weighted = nn.CrossEntropyLoss(np.array([1, 1, 3], np.float32))
    want = (losses[0] + 3 * losses[1]) / 4
    assert_close(weighted(scores, target), np.float32(want), rtol=1e-6)
    assert list(weighted.state_dict()) == ["weight"]
    # Smoothing 0.3 gives the target 0.7 + 0.1 and the other classes 0.1 each.
    smooth = nn.CrossEntropyLoss(label_smoothing=0.3)(scores, target)
    want = -np.mean(
        [np.log([0.5, 0.25, 0.25]) @ [0.8, 0.1, 0.1], np.log([0.2, 0.2, 0.6]) @ [0.1, 0.1, 0.8]]
    )
    assert_close(smooth, np.float32(want), rtol=1e-6)


# LSTM


def test_lstm_names():
    layer = nn.LSTM(3, 2, num_layers=2, bidirectional=True)
    shapes = {name: p.shape for name, p in layer.named_parameters()}
    assert shapes == {
        "weight_ih_l0": (8, 3),
        "weight_hh_l0": (8, 2),
        "bias_ih_l0": (8,),
        "bias_hh_l0": (8,),
        "weight_ih_l0_reverse": (8, 3),
        "weight_hh_l0_reverse": (8, 2),
        "bias_ih_l0_reverse": (8,),
        "bias_hh_l0_reverse": (8,),
        "weight_ih_l1": (8, 4),
        "weight_hh_l1": (8, 2),
        "bias_ih_l1": (8,),
        "bias_hh_l1": (8,),
        "weight_ih_l1_reverse": (8, 4),
        "weight_hh_l1_reverse": (8, 2),
        "bias_ih_l1_reverse": (8,),
        "bias_hh_l1_reverse": (8,),
    }


def test_lstm_state_lengths_and_order_of_axes():
    tinyvid.manual_seed(2)
    first = nn.LSTM(3, 2, num_layers=2, batch_first=True, bidirectional=True)
    second = nn.LSTM(3, 2, num_layers=2, bidirectional=True)
    second.load_state_dict(first.state_dict())
    x, hx = tinyvid.randn(2, 5, 3), (tinyvid.randn(4, 2, 2), tinyvid.randn(4, 2, 2))
    y, (h, c) = first(x, hx, lengths=[5, 3])
    assert (y.shape, h.shape, c.shape) == ((2, 5, 4), (4, 2, 2), (4, 2, 2))
    assert_close(y[1, 3:], np.zeros((2, 4), np.float32))
    ty, (th, tc) = second(x.transpose(0, 1), hx, lengths=[5, 3])
    for got, want in ((ty, y.transpose(0, 1)), (th, h), (tc, c)):
        assert_close(got, want.numpy())
    # A sequence alone, cut to its length, gives what it gave in the batch.
    alone, (ha, _) = first(x[1:2, :3], (hx[0][:, 1:2], hx[1][:, 1:2]))
    assert_close(alone, y[1:2, :3].numpy(), rtol=1e-5, atol=1e-6)
    assert_close(ha, h[:, 1:2].numpy(), rtol=1e-5, atol=1e-6)


def test_lstm_dropout_acts_between_layers_in_training_only():
    tinyvid.manual_seed(3)
    layer, x = nn.LSTM(3, 4, 2, batch_first=True, dropout=0.5), tinyvid.randn(2, 3, 3)
    one, two = layer(x)[0].numpy(), layer(x)[0].numpy()
    assert not np.array_equal(one, two)
    layer.eval()
    assert_close(layer(x)[0], layer(x)[0].numpy())
    single = nn.LSTM(3, 4, dropout=0.5, batch_first=True)
    assert_close(single(x)[0], single(x)[0].numpy())


# What does not fit


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.Linear(0, 2), "in_features=0: give an int of at least 1"),
        (lambda: nn.Conv3d(3, 4, 0), "kernel_size=0"),
        (lambda: nn.Conv3d(3, 4, (3, 3)), "kernel_size="),
        (lambda: nn.Conv3d(3, 4, 3, stride=2, padding="same"), "padding='same' needs stride 1"),
        (lambda: nn.Conv3d(3, 4, 3, padding="sane"), "padding='sane'"),
        (lambda: nn.Conv2d(3, 4, 3, groups=2), "groups=2 must divide in_channels=3"),
        (lambda: nn.Conv2d(3, 4, 3, padding_mode="circular"), "only 'zeros'"),
        (lambda: nn.Dropout(1.5), "p=1.5: a probability"),
        (lambda: nn.LSTM(3, 4, dropout=-1), "dropout=-1: a probability"),
        (lambda: nn.BatchNorm3d(2.0), "num_features=2.0"),
        (lambda: nn.CrossEntropyLoss(reduction="avg"), "reduction='avg'"),
    ],
)
def test_arguments_that_contradict(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize(
    ("layer", "shape", "message"),
    [
        (nn.Linear(3, 2), (2, 4), r"\(2, 4\)"),
        (nn.Conv3d(3, 2, 3), (1, 4, 3, 3, 3), "has 4 channels"),
        (nn.Conv3d(3, 2, 3), (1, 3, 2, 3, 3), "does not fit"),
        (nn.Conv2d(60, 2, 3), (1, 3, 19, 8, 8), "has 57 channels"),
        (nn.BatchNorm2d(3), (1, 3, 2, 2, 2), "BatchNorm2d takes 3 channels on axis 1 of 4 axes"),
        (nn.BatchNorm1d(3), (2, 4), "BatchNorm1d takes 3 channels on axis 1 of 2 or 3 axes"),
        (nn.LayerNorm((2, 3)), (2, 3, 4), r"LayerNorm takes last axes of \(2, 3\)"),
        (nn.LSTM(3, 2, batch_first=True), (2, 4, 5), r"takes \(N, L, I\), I=3"),
        (nn.LSTM(3, 2), (2, 3), r"takes \(L, N, I\), I=3"),
    ],
)
def test_inputs_that_do_not_fit(layer, shape, message):
    with pytest.raises(UserError, match=message):
        layer(tinyvid.zeros(*shape))
