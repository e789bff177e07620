"""Kernels with known properties, compiled once, in a cache of their own."""

from pathlib import Path

import pytest

from tinyvid.errors import UserError


@pytest.fixture(scope="package")
def toolchain(tmp_path_factory):
    """NVRTC and nvdisasm, keeping what they make in a folder of this session."""
    from tinyvid.kernels.inspection import compile, sass

    try:
        compile.nvrtc_version()
        sass.nvdisasm()
    except UserError as error:
        pytest.skip(str(error))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TINYVID_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="package")
def samples() -> Path:
    return Path(__file__).with_name("samples.cu")


@pytest.fixture(scope="package")
def inspected(toolchain, samples):
    """Return what is known of a kernel of samples.cu."""
    from tinyvid.kernels.inspection.facts import inspect

    def inspected(kernel, arch="sm_80", **options):
        return inspect(samples, kernel, arch, names=("scaled<float, 4>",), **options)

    return inspected
