"""The roofline bound, worked out by hand."""

import pytest

from tinyvid.errors import UserError
from tinyvid.geometry import conv_geometry
from tinyvid.kernels.inspection.roofline import (
    GPU,
    GPUS,
    bound,
    compulsory_bytes,
    flops,
    intensity,
)

# x 1 x 2 x 4 x 4 x 4, w 3 x 2 x 1 x 1 x 1, y 1 x 3 x 4 x 4 x 4
POINTWISE = conv_geometry((1, 2, 4, 4, 4), (3, 2, 1, 1, 1))
# 10^12 operations a second and 10^9 bytes a second: 1000 operations a byte
SIMPLE = GPU("simple", "sm_80", {"float32": 1.0, "tf32": 8.0}, 1.0, "made up")
WIDE = conv_geometry((8, 512, 4, 14, 14), (512, 512, 3, 3, 3), padding=1)


def test_operations_and_bytes():
    assert flops(POINTWISE) == 2 * 3 * 64 * 2
    assert compulsory_bytes(POINTWISE) == 4 * (2 * 64 + 6 + 3 * 64)
    assert compulsory_bytes(POINTWISE, "float64") == 2 * compulsory_bytes(POINTWISE)
    # Tensor cores round on the way in: memory holds float32.
    assert compulsory_bytes(POINTWISE, "bf16") == compulsory_bytes(POINTWISE)
    assert intensity(POINTWISE) == pytest.approx(768 / 1304)


def test_few_operations_a_byte_are_bound_by_memory():
    found = bound(POINTWISE, SIMPLE)
    assert found.by == "memory"
    assert found.seconds == pytest.approx(1304e-9)
    assert found.tflops == pytest.approx(768 / 1304e-9 / 1e12)


def test_many_are_bound_by_arithmetic():
    assert intensity(WIDE) > 1000 / 2
    gpu = GPU("thin", "sm_80", {"float32": 0.1}, 1.0, "made up")
    found = bound(WIDE, gpu)
    assert found.by == "arithmetic"
    assert found.tflops == pytest.approx(0.1)
    assert found.seconds == pytest.approx(flops(WIDE) / 1e11)
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
            for geometry in (POINTWISE, WIDE):
                found = bound(geometry, gpu, arithmetic)
                tops = flops(geometry) / found.seconds / 1e12
                gigabytes = compulsory_bytes(geometry, arithmetic) / found.seconds / 1e9
                reached = {"arithmetic": tops / peak, "memory": gigabytes / gpu.bandwidth}
                assert max(reached.values()) == pytest.approx(1)
                assert reached[found.by] == pytest.approx(1)


def test_the_gpus_name_where_their_numbers_stand():
    assert [gpu.arch for gpu in GPUS] == ["sm_90", "sm_80", "sm_89"]
    assert all("NVIDIA" in gpu.source for gpu in GPUS)
