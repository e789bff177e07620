"""The precision asked for: in blocks, for the process, in threads."""

from threading import Thread

import pytest

from tinyvid import kernels
from tinyvid.errors import UserError


def test_a_block_and_the_process():
    assert kernels.get_precision() == "default"
    with kernels.precision("exact"):
        assert kernels.get_precision() == "exact"
        with kernels.precision("default"):
            assert kernels.get_precision() == "default"
        assert kernels.get_precision() == "exact"
    assert kernels.get_precision() == "default"
    kernels.set_precision("exact")
    try:
        assert kernels.get_precision() == "exact"
        with kernels.precision("default"):
            assert kernels.get_precision() == "default"
    finally:
        kernels.set_precision("default")


def test_a_block_is_of_its_own_thread():
    seen = []
    with kernels.precision("exact"):
        thread = Thread(target=lambda: seen.append(kernels.get_precision()))
        thread.start()
        thread.join()
    assert seen == ["default"]


def test_unknown_levels():
    with pytest.raises(UserError, match=r"precision\('exakt'\): give one of default, exact.*exact"):
        kernels.precision("exakt").__enter__()
    with pytest.raises(UserError, match=r"set_precision\(1\): give one of default, exact"):
        kernels.set_precision(1)
