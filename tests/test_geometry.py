"""Sizes against windows laid out one by one, and what bad shapes get."""

import itertools

import numpy as np
import pytest

from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry, output_size, per_axis, pool_geometry, resolve_padding

SIZES = range(1, 9)
CASES = list(itertools.product((1, 2, 3, 5), (1, 2, 3), ((0, 0), (1, 1), (0, 1), (2, 0)), (1, 2)))


def windows(size, kernel, stride, padding, dilation, ceil_mode):
    """Count the windows by laying them out from the first cell of the padding on."""
    end = size + padding[1]  # the first cell after the padding
    count, start, reached = 0, -padding[0], -padding[0]
    while True:
        last = start + dilation * (kernel - 1)
        if ceil_mode:
            fits = reached < end and start < size
        else:
            fits = last < end
        if not fits:
            return count
        count, start, reached = count + 1, start + stride, last + 1


@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), CASES)
@pytest.mark.parametrize("ceil_mode", [False, True])
def test_output_size_counts_windows(kernel, stride, padding, dilation, ceil_mode):
    for size in SIZES:
        if dilation * (kernel - 1) + 1 > size + sum(padding):
            assert output_size(size, kernel, stride, padding, dilation) <= 0
            continue
        expected = windows(size, kernel, stride, padding, dilation, ceil_mode)
        assert output_size(size, kernel, stride, padding, dilation, ceil_mode) == expected


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((112, 3, 1, (1, 1)), 112),  # C3D's convolutions
        ((7, 2, 2), 3),  # its pool5 as in the lecture
        ((7, 2, 2, (1, 1)), 4),  # and as released
        ((170, 11, 3), 54),  # conv1 of Karpathy et al.
        ((10, 4, 2), 4),  # and its extent in time
        ((27, 2, 2), 13),
        ((27, 2, 2, (0, 0), 1, True), 14),
        ((4, 2, 3, (1, 1), 1, True), 2),  # a third window would lie wholly in padding
        ((9, 3, 1, (0, 0), 4), 1),  # dilation: kernel as wide as the input
    ],
)
def test_output_size_worked_by_hand(arguments, expected):
    assert output_size(*arguments) == expected


def test_same_padding_keeps_every_size():
    for kernel, dilation, size in itertools.product((1, 2, 3, 4, 7), (1, 2, 3), SIZES):
        ((lo, hi),) = resolve_padding("same", (kernel,), (1,), (dilation,))
        assert hi - lo in (0, 1)
        assert output_size(size, kernel, 1, (lo, hi), dilation) == size


def test_conv_geometry_of_three_axes():
    g = conv_geometry((2, 6, 7, 8, 9), (4, 3, 3, 2, 1), (2, 1, 3), (1, 0, 0), (1, 2, 1), groups=2)
    assert g.y == (2, 4, 4, 6, 3)
    assert (g.rank, g.channels) == (3, 6)
    assert g.padding == ((1, 1), (0, 0), (0, 0))
    assert g.macs == (2 * 4 * 4 * 6 * 3) * (3 * 3 * 2 * 1)


def test_conv_geometry_of_two_axes_takes_frames_and_clips():
    image = conv_geometry((2, 60, 8, 8), (12, 60, 3, 3), padding="same")
    clip = conv_geometry((2, 3, 20, 8, 8), (12, 60, 3, 3), padding="same")
    assert image.y == clip.y == (2, 12, 8, 8)
    assert image.channels == clip.channels == 60
    assert clip.rank == 2


def test_lists_and_tuples_are_the_same_geometry():
    a = conv_geometry([1, 2, 4, 4, 4], [3, 2, 2, 2, 2], [1, 1, 1], [1, 1, 1], [1, 1, 1])
    assert a == conv_geometry((1, 2, 4, 4, 4), (3, 2, 2, 2, 2), 1, 1)
    assert hash(a) == hash(conv_geometry((1, 2, 4, 4, 4), (3, 2, 2, 2, 2), padding=1))


@pytest.mark.parametrize(
    ("x", "w", "options", "message"),
    [
        ((1, 3, 4, 4), (8, 3, 3, 3, 3), {}, r"must be \(N, C, D, H, W\)"),
        ((3, 4, 4), (8, 3, 3, 3), {}, r"\(N, C, H, W\) or \(N, C, T, H, W\)"),
        ((1, 3, 4, 4), (8, 3, 3), {}, "must be"),
        ((1, 3, 8, 8), (8, 4, 3, 3), {}, "has 3 channels, but weight .* takes 4"),
        ((1, 3, 5, 8, 8), (8, 3, 3, 3), {}, "has 15 channels"),
        ((1, 4, 8, 8), (8, 4, 3, 3), {"groups": 3}, "groups=3 must divide"),
        ((1, 4, 8, 8), (8, 4, 3, 3), {"groups": 0}, "groups=0"),
        ((1, 4, 2, 8), (8, 4, 3, 3), {}, "does not fit into"),
        ((1, 4, 8, 8), (8, 4, 3, 3), {"dilation": 4}, r"dilation=\(4, 4\) does not fit"),
        ((1, 4, 8, 8), (8, 4, 3, 3), {"stride": 0}, "stride=0"),
        ((1, 4, 8, 8), (8, 4, 3, 3), {"stride": (1, 1, 1)}, "or 2 of them"),
        ((1, 4, 8, 8), (8, 4, 3, 3), {"padding": -1}, "padding=-1"),
        ((1, 4, 8, 8), (8, 4, 3, 3), {"padding": "full"}, "padding='full'"),
        ((1, 4, 8, 8), (8, 4, 3, 3), {"padding": "same", "stride": 2}, "needs stride 1"),
    ],
)
def test_conv_geometry_refuses(x, w, options, message):
    with pytest.raises(UserError, match=message):
        conv_geometry(x, w, **options)


def test_pool_geometry():
    g = pool_geometry((2, 3, 2, 7, 7), 2, padding=(0, 1, 1))
    assert g.y == (2, 3, 1, 4, 4)
    assert g.stride == g.window == (2, 2, 2)
    assert pool_geometry((1, 1, 5, 5, 5), 2, ceil_mode=True).y == (1, 1, 3, 3, 3)
    assert pool_geometry((1, 1, 5, 5, 5), 3, (1, 2, 3), dilation=(2, 1, 1)).y == (1, 1, 1, 2, 1)
    assert pool_geometry([1, 1, 4, 4, 4], [2, 2, 2], []) == pool_geometry((1, 1, 4, 4, 4), 2)


@pytest.mark.parametrize(
    ("x", "options", "message"),
    [
        ((1, 2, 4, 4), {"window": 2}, r"takes \(N, C, D, H, W\)"),
        ((1, 2, 4, 4, 4), {"window": 5}, "does not fit into"),
        ((1, 2, 4, 4, 4), {"window": 0}, "kernel_size=0"),
        ((1, 2, 4, 4, 4), {"window": 2, "padding": 2}, "at most half of kernel_size"),
        ((1, 2, 4, 4, 4), {"window": (2, 2)}, "or 3 of them"),
    ],
)
def test_pool_geometry_refuses(x, options, message):
    with pytest.raises(UserError, match=message):
        pool_geometry(x, **options)


def test_per_axis():
    assert per_axis("stride", 2, 3, 1) == (2, 2, 2)
    assert per_axis("stride", [1, 2], 2, 1) == (1, 2)
    with pytest.raises(UserError, match=r"stride=1\.5|stride=\(1\.5, 1\)"):
        per_axis("stride", (1.5, 1), 2, 1)


@pytest.mark.parametrize("value", [2, np.int64(2), (2, 2, 2), [2, np.int32(2), 2]])
def test_sizes_may_be_integers_of_numpy(value):
    sizes = per_axis("stride", value, 3, 1)
    assert sizes == (2, 2, 2)
    assert all(type(size) is int for size in sizes)


@pytest.mark.parametrize("value", [1.5, None, (2, 2), (2, 2.0, 2), "two", 0])
def test_what_is_no_size_is_refused(value):
    with pytest.raises(UserError, match=r"stride=.*one int of at least 1, or 3 of them"):
        per_axis("stride", value, 3, 1)
