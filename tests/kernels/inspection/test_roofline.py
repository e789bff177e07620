"""The roofline bound, worked out by hand."""

import pytest

from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels.inspection.roofline import GPU, GPUS, bound, convolution_work

# x 1 x 2 x 4 x 4 x 4, w 3 x 2 x 1 x 1 x 1, y 1 x 3 x 4 x 4 x 4
POINTWISE = convolution_work("fprop", conv_geometry((1, 2, 4, 4, 4), (3, 2, 1, 1, 1)))
# 10^12 operations a second and 10^9 bytes a second: 1000 operations a byte
SIMPLE = GPU("simple", "sm_80", {"float32": 1.0, "tf32": 8.0}, 1.0, "made up")
WIDE = convolution_work("fprop", conv_geometry((8, 512, 4, 14, 14), (512, 512, 3, 3, 3), padding=1))


def test_operations_and_bytes():
    assert POINTWISE.flops == 2 * 3 * 64 * 2
    assert (POINTWISE.read, POINTWISE.written) == (4 * (2 * 64 + 6), 4 * 3 * 64)
    assert POINTWISE.bytes == 1304
    assert POINTWISE.intensity == pytest.approx(768 / 1304)


def test_each_pass_writes_one_array_and_reads_the_others():
    geometry = conv_geometry((1, 2, 4, 4, 4), (3, 2, 1, 1, 1))
    assert convolution_work("dgrad", geometry).written == 4 * 2 * 64
    assert convolution_work("wgrad", geometry).written == 4 * 6
    for pass_ in ("dgrad", "wgrad"):
        assert convolution_work(pass_, geometry).bytes == POINTWISE.bytes
        assert convolution_work(pass_, geometry, element=8).bytes == 2 * POINTWISE.bytes


def test_a_clip_of_bytes_is_a_quarter_as_large():
    geometry = conv_geometry((1, 2, 4, 4, 4), (3, 2, 1, 1, 1))
    clip = convolution_work("fprop", geometry, of_x=1)
    assert (clip.read, clip.written) == (2 * 64 + 4 * 6, POINTWISE.written)
    assert convolution_work("wgrad", geometry, of_x=1).read == 2 * 64 + 4 * 3 * 64


def test_few_operations_a_byte_are_bound_by_memory():
    found = bound(POINTWISE, SIMPLE)
    assert found.by == "memory"
    assert found.seconds == pytest.approx(1304e-9)
    assert found.tflops == pytest.approx(768 / 1304e-9 / 1e12)


def test_many_are_bound_by_arithmetic():
    assert WIDE.intensity > 1000 / 2
    gpu = GPU("thin", "sm_80", {"float32": 0.1}, 1.0, "made up")
    found = bound(WIDE, gpu)
    assert found.by == "arithmetic"
    assert found.tflops == pytest.approx(0.1)
    assert found.seconds == pytest.approx(WIDE.flops / 1e11)
    # An algorithm with fewer multiplications may be faster than the peak of the definition.
    saved = bound(WIDE, gpu, saving=27 / 8)
    assert saved.tflops == pytest.approx(0.1 * 27 / 8)


def test_the_arithmetic_decides_the_peak():
    assert bound(WIDE, SIMPLE, "tf32").seconds <= bound(WIDE, SIMPLE).seconds
    with pytest.raises(UserError, match="no arithmetic is called 'float16'"):
        bound(WIDE, SIMPLE, "float16")


def test_a_bound_meets_one_of_the_peaks_and_breaks_none():
    for gpu in GPUS:
        for arithmetic, peak in gpu.peaks.items():
            for work in (POINTWISE, WIDE):
                found = bound(work, gpu, arithmetic)
                tops = work.flops / found.seconds / 1e12
                gigabytes = work.bytes / found.seconds / 1e9
                reached = {"arithmetic": tops / peak, "memory": gigabytes / gpu.bandwidth}
                assert max(reached.values()) == pytest.approx(1)
                assert reached[found.by] == pytest.approx(1)


def test_the_gpus_name_where_their_numbers_stand():
    assert [gpu.arch for gpu in GPUS] == ["sm_90", "sm_80", "sm_89"]
    assert all("NVIDIA" in gpu.source for gpu in GPUS)
