"""Initialisation: distributions, fans, and the same values from the same seed."""

import math

import numpy as np
import pytest
from compare import assert_close

import tinyvid
from tinyvid import nn
from tinyvid.errors import UserError
from tinyvid.nn import init

SHAPE = (40, 20, 3, 3, 3)  # fan_in 20 * 27 = 540, fan_out 40 * 27 = 1080; 21,600 draws


@pytest.fixture
def weight():
    return nn.Parameter(np.full(SHAPE, np.nan, np.float32))


def moments(tensor):
    values = tensor.numpy().astype(np.float64)
    assert np.isfinite(values).all()
    return values.mean(), values.std()


@pytest.mark.parametrize(
    ("function", "arguments", "std"),
    [
        (init.normal_, {"mean": 0.0, "std": 2.0}, 2.0),
        (init.xavier_normal_, {}, math.sqrt(2 / 1620)),
        (init.xavier_normal_, {"gain": 5 / 3}, 5 / 3 * math.sqrt(2 / 1620)),
        (init.kaiming_normal_, {"nonlinearity": "relu"}, math.sqrt(2 / 540)),
        (init.kaiming_normal_, {"mode": "fan_out", "nonlinearity": "linear"}, 1080**-0.5),
        (init.kaiming_normal_, {"a": 2.0}, math.sqrt(2 / 5 / 540)),
        (init.uniform_, {"a": -3.0, "b": 3.0}, math.sqrt(3)),
        (init.xavier_uniform_, {}, math.sqrt(2 / 1620)),
        (init.kaiming_uniform_, {"nonlinearity": "relu"}, math.sqrt(2 / 540)),
        (init.kaiming_uniform_, {"a": math.sqrt(5)}, math.sqrt(1 / 3 / 540)),
    ],
)
def test_distributions(weight, function, arguments, std):
    assert function(weight, generator=np.random.default_rng(0), **arguments) is weight
    assert weight.requires_grad
    mean, measured = moments(weight)
    # 21,600 draws: the standard error of the mean is std / 147, of the std below std / 200.
    assert abs(mean) < 4 * std / 147
    assert abs(measured / std - 1) < 0.02
    values = np.sort(weight.numpy().ravel()) / std
    if "uniform" in function.__name__:
        assert values[-1] <= math.sqrt(3) * (1 + 1e-6)
        assert values[0] >= -math.sqrt(3) * (1 + 1e-6)
        assert values[-1] - values[0] > 3.45  # 2√3 = 3.464
    else:
        within = np.mean(np.abs(values) < 1)
        assert abs(within - 0.6827) < 0.015


def test_mean_and_interval(weight):
    assert abs(moments(init.normal_(weight, 3.0, 0.5))[0] - 3) < 0.02
    init.uniform_(weight, 2.0, 5.0)
    assert 2 <= weight.numpy().min() < 2.01
    assert 4.99 < weight.numpy().max() <= 5


def test_constants(weight):
    assert_close(init.zeros_(weight), np.zeros(SHAPE, np.float32))
    assert_close(init.ones_(weight), np.ones(SHAPE, np.float32))
    assert_close(init.constant_(weight, 0.5), np.full(SHAPE, 0.5, np.float32))


@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (4, 4), (6, 2, 2), (3, 2, 2, 2)])
def test_orthogonal(shape):
    w = init.orthogonal_(nn.Parameter(np.zeros(shape)), gain=2.0).numpy()
    matrix = w.reshape(shape[0], -1)
    rows, columns = matrix.shape
    product = matrix @ matrix.T if rows <= columns else matrix.T @ matrix
    assert_close(product, 4 * np.eye(min(rows, columns)), atol=1e-12)


def test_orthogonal_signs_are_random():
    # LAPACK's R has diagonals of one sign mostly; uniform rotations have no preferred sign.
    first = [init.orthogonal_(nn.Parameter(np.zeros((3, 3)))).numpy()[0, 0] for _ in range(200)]
    assert 60 < np.count_nonzero(np.array(first) > 0) < 140


def test_fans_and_gains():
    assert init.fans(nn.Conv3d(4, 6, (3, 2, 1), groups=2).weight) == (2 * 6, 6 * 6)
    assert init.fans(nn.Linear(3, 7).weight) == (3, 7)
    assert init.calculate_gain("linear") == init.calculate_gain("sigmoid") == 1
    assert init.calculate_gain("tanh") == 5 / 3
    assert init.calculate_gain("relu") == math.sqrt(2)
    assert init.calculate_gain("leaky_relu", 2.0) == math.sqrt(2 / 5)
    assert init.calculate_gain("leaky_relu") == math.sqrt(2 / 1.0001)


def test_errors(weight):
    with pytest.raises(UserError, match="Did you mean 'leaky_relu'"):
        init.kaiming_normal_(weight, nonlinearity="leaky")
    with pytest.raises(UserError, match="mode='fan'"):
        init.kaiming_uniform_(weight, mode="fan")
    with pytest.raises(UserError, match=r"shape \(3,\) has no fan"):
        init.xavier_normal_(nn.Parameter(np.zeros(3)))


@pytest.mark.parametrize(
    ("layer", "bound"),
    [
        (lambda: nn.Linear(50, 400), 50**-0.5),
        (lambda: nn.Conv2d(8, 100, 3), 72**-0.5),
        (lambda: nn.Conv3d(4, 100, (3, 3, 2)), 72**-0.5),
        (lambda: nn.LSTM(50, 25), 25**-0.5),
    ],
)
def test_layers_start_uniform(layer, bound):
    """PyTorch's defaults: every parameter uniform in ±1/√fan_in, in ±1/√H for the LSTM."""
    tinyvid.manual_seed(0)
    parameters = dict(layer().named_parameters())
    assert len(parameters) in (2, 4)
    for p in parameters.values():
        assert p.dtype == np.float32
        assert 0.95 * bound < np.abs(p.numpy()).max() <= bound
        if p.ndim > 1:
            assert abs(moments(p)[1] / (bound / math.sqrt(3)) - 1) < 0.03


def test_a_seed_gives_the_same_network_again():
    def build(seed):
        tinyvid.manual_seed(seed)
        return nn.Sequential(nn.Conv3d(2, 3, 2), nn.Linear(3, 4), nn.LSTM(2, 3)).state_dict()

    first, again, other = build(3), build(3), build(4)
    for name, t in first.items():
        assert_close(again[name], t.numpy())
        assert not np.any(other[name].numpy() == t.numpy())


def test_a_generator_of_ones_own_leaves_the_global_one_alone(weight):
    tinyvid.manual_seed(1)
    want = tinyvid.randn(3).numpy()
    tinyvid.manual_seed(1)
    init.normal_(weight, generator=np.random.default_rng(5))
    assert_close(tinyvid.randn(3), want)
