"""Equivariance in time is measured as it is: by hand, on what has it, and on what has lost it."""

import numpy as np
import pytest

import tinyvid
from tinyvid import models, nn
from tinyvid.errors import UserError
from tinyvid.shift import SHIFTS, equivariance, measured_layers, shift_error


def clip_of(values, frames=8):
    """A clip of one pixel that has these values, and then zeros."""
    clip = np.zeros((1, 1, frames, 1, 1), np.float32)
    clip[0, 0, : len(values), 0, 0] = values
    return clip


def test_by_hand():
    """A ramp over time as weights: y[t] = t * x[t], so that what moves by 2 grows by 2 * x."""

    def ramp(x):
        return x * tinyvid.tensor(np.arange(8, dtype=np.float32).reshape(1, 1, 8, 1, 1))

    # y = 0 5 8 0 ...; moved: x = 0 0 3 5 4, y = 0 0 6 15 16, against 0 0 0 5 8: 10 of 8
    assert shift_error(ramp, clip_of([3, 5, 4]), 2) == pytest.approx(10 / 8)
    assert shift_error(lambda x: 7 * x, clip_of([3, 5, 4]), 2) == 0
    assert shift_error(ramp, clip_of([3, 5, 4]), 0) == 0


def test_an_output_without_time_ought_not_to_change():
    def first(x):
        return x[:, :, 0]

    assert shift_error(lambda x: x.sum((2, 3, 4)), clip_of([3, 5, 4]), 2) == 0
    assert shift_error(first, clip_of([3, 5, 4]), 2) == 1  # 3 becomes 0


def test_what_holds_and_what_does_not():
    errors = equivariance()
    assert set(errors) == set(measured_layers())
    for name, found in errors.items():
        assert tuple(found) == SHIFTS
        step = measured_layers()[name][1]
        for shift, error in found.items():
            if name.startswith(("2-D", "early")):
                assert error > 0.05, (name, shift)
            elif shift % step:
                assert error > 1e-3, (name, shift)
            else:
                assert error < 1e-6, (name, shift)


def test_a_filter_that_knows_the_moment_is_found():
    """A convolution of which one moment gets other weights, as a wrong kernel would do it."""

    class Faulty(nn.Conv3d):
        def forward(self, x):
            y = super().forward(x)
            weights = np.ones((1, 1, y.shape[2], 1, 1), np.float32)
            weights[:, :, 5] = 1.01
            return y * tinyvid.tensor(weights)

    tinyvid.manual_seed(0)
    clip = np.zeros((1, 2, 16, 4, 4), np.float32)
    clip[:, :, 2:6] = np.random.default_rng(0).standard_normal((1, 2, 4, 4, 4))
    sound, faulty = nn.Conv3d(2, 3, 3, padding=1), Faulty(2, 3, 3, padding=1)
    assert shift_error(sound, clip, 3) < 1e-6
    assert shift_error(faulty, clip, 3) > 1e-3


def test_errors():
    with pytest.raises(UserError, match="at least so many frames of zeros"):
        shift_error(lambda x: x, clip_of([1] * 7), 2)
    with pytest.raises(UserError, match="output is 0"):
        shift_error(lambda x: x * 0, clip_of([1]), 2)


def test_without_pools_over_time_all_moments_are_kept():
    model = models.build("slow_fusion", 3, (3, 5, 32, 32), width=2, pool_time=False)
    y = model.trunk(tinyvid.tensor(np.zeros((1, 3, 5, 32, 32), np.float32)))
    assert y.shape == (1, 8, 5, 2, 2)
