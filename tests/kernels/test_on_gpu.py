"""Every kernel for CUDA, every operation and a few steps of training on a GPU: `pytest -m gpu`.

The cases are those of the other devices. Where there is no GPU one kernel and one operation run
on the stand-in for CuPy, so that these tests are known to work when the first GPU comes along.
"""

import shutil

import cupy_stand_in
import pytest
from test_cuda_training import OPTIMISERS, train

import tinyvid
from tinyvid import cuda
from tinyvid.checking import suite
from tinyvid.checking.examples import examples
from tinyvid.kernels import kernels

on_gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not cuda.is_available(), reason="needs an NVIDIA GPU, and CuPy (tinyvid[cuda13])"
    ),
]
VARIANTS = [
    (kernel.name, name)
    for kernel in kernels()
    for name, variant in kernel.variants.items()
    if variant.target in ("cuda", "numba")
]


def check(name, variant, quick=False):
    jobs = suite.jobs(name, variant, "cuda", quick=quick)
    assert jobs
    for job in jobs:
        row = job.run()
        assert row.passed, (row.dtype, row.failures)
        assert row.cases > 0


@pytest.mark.parametrize(
    ("name", "variant"), [pytest.param(*each, marks=on_gpu, id=" ".join(each)) for each in VARIANTS]
)
def test_a_kernel_agrees_with_its_reference_and_its_derivatives(name, variant):
    check(name, variant)


@pytest.mark.parametrize("name", [pytest.param(name, marks=on_gpu) for name in examples()])
def test_an_operation_has_the_right_derivatives(name):
    check(name, "numpy")


@pytest.mark.parametrize("optimiser", [pytest.param(name, marks=on_gpu) for name in OPTIMISERS])
def test_a_network_trains_as_on_the_cpu(optimiser):
    losses = [train(optimiser, device)[0] for device in ("cpu", "cuda")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.parametrize("device", [pytest.param("cuda", marks=on_gpu)])
def test_too_much_for_the_memory_is_an_error_that_can_be_survived(device):
    import cupy

    x = tinyvid.ones(4, 3, 8, 32, 32, device=device)
    w = tinyvid.ones(64, 3, 3, 3, 3, device=device)
    pool = cupy.get_default_memory_pool()
    before = pool.get_limit()
    pool.free_all_blocks()  # what it keeps of freed arrays it gives out, whatever the limit
    try:
        pool.set_limit(size=pool.used_bytes() + 2**20)
        with pytest.raises(tinyvid.errors.UserError, match="out of memory"):
            tinyvid.conv3d(x, w)
    finally:
        pool.set_limit(size=before)
    assert tinyvid.conv3d(x, w).numpy().max() == 81


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
@pytest.mark.parametrize(
    ("name", "variant"), [("max_pool3d_gather", "cuda/naive"), ("cross_entropy", "numpy")]
)
def test_the_checks_above_work_on_the_stand_in(cupy, name, variant):
    check(name, variant, quick=True)
    assert any(size > 8 for size in cupy_stand_in.reads)  # on the device, and back


# On a GPU its gradient is scattered to where the maxima were, and goes on through conv3d_wgrad.
ON_THE_CPU_ALONE = {"conv3d_relu_max_pool_wgrad"}


def test_every_kernel_has_a_variant_in_cuda():
    in_cuda = {name for name, variant in VARIANTS if variant.startswith("cuda/")}
    assert in_cuda | ON_THE_CPU_ALONE == {kernel.name for kernel in kernels()}
    assert not in_cuda & ON_THE_CPU_ALONE
