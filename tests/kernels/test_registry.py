"""The registry: which variant runs, how to ask for another, and what wrong asking gets."""

import contextvars
import threading

import numpy as np
import pytest

from tinyvid.device import device_of, to_device
from tinyvid.errors import UserError
from tinyvid.kernels import registry
from tinyvid.kernels.registry import Kernel, kernels, use


def only_small(a, b):
    return "a is over 10" if a > 10 else None


def no_check(a, b):
    pass


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch):
    """A registry with two kernels of one operation, whose variants are functions of `operator`."""
    monkeypatch.setattr(registry, "_KERNELS", {})
    for pass_ in ("fprop", "dgrad"):
        kernel = Kernel("arith", pass_, "Reckon.", no_check)
        kernel.add("cuda/sub", "operator:sub")
        kernel.add("cpu/add", "operator:add", unfit=only_small)
        if pass_ == "fprop":
            kernel.add("cpu/pow", "operator:pow")
        kernel.add("reference", "operator:mul")


@pytest.fixture
def fprop():
    return kernels()[0]


def test_first_variant_that_fits_runs(fprop):
    assert fprop(2, 3) == 5
    assert fprop(20, 3) == 20**3
    assert fprop.select(2, 3).name == "cpu/add"
    assert fprop.select(2, 3).target == "cpu"
    assert [kernel.name for kernel in kernels()] == ["arith_fprop", "arith_dgrad"]
    assert repr(fprop) == "<kernel arith_fprop: cuda/sub, cpu/add, cpu/pow, reference>"
    assert fprop.__doc__ == "Reckon."


def test_least_cost_decides_where_costs_are_stated():
    kernel = Kernel("chosen", "fprop", "Choose.", no_check)
    kernel.add("cpu/sub", "operator:sub", cost=lambda a, b: a)
    kernel.add("cpu/add", "operator:add", cost=lambda a, b: 10 - a, unfit=only_small)
    kernel.add("cpu/pow", "operator:pow")  # states none, and comes after one that does
    kernel.add("cuda/floordiv", "operator:floordiv", cost=lambda a, b: -1)  # not on this device
    kernel.add("reference", "operator:mul")
    assert [kernel.select(a, 1).name for a in (2, 5, 8, 20)] == [
        "cpu/sub",
        "cpu/sub",  # as dear: the first
        "cpu/add",
        "cpu/sub",  # the other does not fit
    ]
    with use(chosen="cpu/pow"):
        assert kernel.select(2, 1).name == "cpu/pow"


def test_first_without_cost_runs_before_those_that_state_it():
    kernel = Kernel("chosen", "fprop", "Choose.", no_check)
    kernel.add("cpu/add", "operator:add", unfit=only_small)
    kernel.add("cpu/sub", "operator:sub", cost=lambda a, b: 0)
    assert [kernel.select(a, 1).name for a in (2, 20)] == ["cpu/add", "cpu/sub"]


def test_use_of_one_kernel_and_of_an_operation(fprop):
    dgrad = kernels()[1]
    with use(arith_fprop="reference"):
        assert (fprop(2, 3), dgrad(2, 3)) == (6, 5)
    with use(arith="reference"):
        assert (fprop(2, 3), dgrad(2, 3)) == (6, 6)
    with use(arith="cpu/pow"):  # dgrad has none, and keeps its own choice
        assert (fprop(2, 3), dgrad(2, 3)) == (8, 5)
    assert (fprop(2, 3), dgrad(2, 3)) == (5, 5)


def test_use_nested_and_after_an_error(fprop):
    with use(arith="reference"):
        with use(arith_fprop="cpu/pow"):
            assert (fprop(2, 3), kernels()[1](2, 3)) == (8, 6)
        assert fprop(2, 3) == 6
        with pytest.raises(KeyError), use(arith_fprop="cpu/add"):
            raise KeyError
        assert fprop(2, 3) == 6
    assert fprop(2, 3) == 5


def test_use_stays_in_its_thread_and_context(fprop):
    results = []
    with use(arith_fprop="reference"):
        inherited = contextvars.copy_context()
        thread = threading.Thread(target=lambda: results.append(fprop(2, 3)))
        thread.start()
        thread.join()
        assert fprop(2, 3) == 6
    assert results == [5]
    assert inherited.run(fprop, 2, 3) == 6
    assert fprop(2, 3) == 5


def test_a_variant_asked_for_never_falls_back(fprop):
    with use(arith_fprop="cpu/add"):
        assert fprop(10, 1) == 11
        with pytest.raises(UserError, match="arith_fprop: 'cpu/add' cannot take this case: a is o"):
            fprop(11, 1)
    with use(arith_fprop="cuda/sub"), pytest.raises(UserError, match="not run on device 'cpu'"):
        fprop(1, 1)


def test_use_of_unknown_names():
    with (
        pytest.raises(UserError, match=r"called 'arith_frop'. Did you mean 'arith_fprop'\?"),
        use(arith_frop="reference"),
    ):
        pass
    with (
        pytest.raises(UserError, match=r"cuda/sub, cpu/add, cpu/pow, ref.* Did you mean 'cpu/add'"),
        use(arith="cpu/ad"),
    ):
        pass


def test_reasons_are_listed_where_nothing_fits(monkeypatch):
    kernel = Kernel("picky", "fprop", "", no_check)
    kernel.add("cuda/sub", "operator:sub").add("cpu/add", "operator:add", unfit=only_small)
    assert kernel(1, 2) == 3
    with pytest.raises(UserError) as caught:
        kernel(11, 2)
    assert str(caught.value) == (
        "picky_fprop: no variant takes this case on device 'cpu':\n"
        "  cuda/sub: does not run on device 'cpu'\n"
        "  cpu/add: a is over 10"
    )


def test_a_variant_that_rounds_runs_only_when_it_is_asked_for():
    kernel = Kernel("rough", "fprop", "Reckon.", no_check)
    kernel.add("cpu/rough", "operator:add", rounds=abs)
    kernel.add("reference", "operator:mul")
    assert kernel(2, 3) == 6
    with use(rough="cpu/rough"):
        assert kernel(2, 3) == 5
    del kernel.variants["reference"]
    with pytest.raises(UserError, match="cpu/rough: rounds its operands: ask for it by name"):
        kernel(2, 3)


def test_unknown_devices(fprop):
    with pytest.raises(UserError, match=r"called 'cdua'; there is 'cpu', 'emulator', 'cuda'"):
        fprop(1, 2, device="cdua")


def test_the_emulator_runs_cuda_variants_on_plain_arrays_else_the_reference(fprop):
    def launch(a, b, device):
        seen.append((type(a), b, device))
        return a - b, (a, 7)

    seen = []
    fprop.variants["cuda/sub"]._function = launch
    a = to_device(np.ones(2), "emulator")
    difference, rest = fprop(a, 3, device="emulator")
    assert seen == [(np.ndarray, 3, "emulator")]
    assert device_of(difference) == "emulator"
    assert type(rest) is tuple
    with use(arith="reference"):
        product = fprop(a, 3, device="emulator")
    assert device_of(product) == "emulator"
    assert product.tolist() == [3.0, 3.0]
    with (
        use(arith_fprop="cpu/add"),
        pytest.raises(UserError, match=r"'cpu/add' cannot .* not run on device 'emulator'"),
    ):
        fprop(a, 3, device="emulator")


def test_the_check_runs_first():
    def check(a, b):
        raise UserError("a and b are wrong")

    kernel = Kernel("checked", "fprop", "", check).add("reference", "no.such.module:f")
    with pytest.raises(UserError, match="a and b are wrong"):
        kernel(1, 2)


def test_variants_load_when_they_first_run():
    kernel = Kernel("lazy", "fprop", "", no_check).add("reference", "no_such_module:f")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        kernel(1, 2)


def test_a_name_stands_for_one_variant(fprop):
    with pytest.raises(ValueError, match="has a variant 'cpu/add' already"):
        fprop.add("cpu/add", "operator:add")
