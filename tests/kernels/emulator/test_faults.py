"""Each fault that ends a launch is caught, and named with line, block and thread."""

import os
import re
import signal
import threading
import time

import numpy as np
import pytest
from emulated import HERE, SCHEDULES, module, needs_compiler

from tinyvid.kernels.emulator import KernelFault, KernelInterrupted, options
from tinyvid.kernels.emulator.module import _ONE_AT_A_TIME

pytestmark = needs_compiler

BARRIER, COLLECTIVE, ALIGNMENT = "divergent barrier", "divergent collective", "misaligned access"


def lines(kernel, mark="// fault: ", file="faults.cu"):
    """Return the lines of a file that are to blame for what happens to the kernel."""
    text = (HERE / file).read_text().splitlines()
    return {n for n, row in enumerate(text, 1) if row.partition(mark)[2].startswith(kernel)}


def fault(kernel, dtype=np.float32, blocks=1, threads=64, cooperative=False, **launch):
    faults = module("faults.cu", cooperative=cooperative)
    x = np.zeros(512, dtype)
    with pytest.raises(KernelFault) as caught:
        faults.get_function(kernel)((blocks,), (threads,), (x,), **launch)
    found = caught.value
    assert (found.kernel, found.file) == (kernel, str(HERE / "faults.cu"))
    assert found.line in lines(kernel)
    assert f"faults.cu:{found.line}: {found.kind} in {kernel}, block (" in str(found)
    # The process, the library and the threads go on.
    faults.get_function("right")((1,), (512,), (y := np.zeros(512, np.float32),))
    assert (y == 1).all()
    return found


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize(
    ("kernel", "kind", "says"),
    [
        ("some_skip_the_barrier", BARRIER, "has left the kernel"),
        ("two_barriers", BARRIER, "waits at __syncthreads in line"),
        ("barriers_in_a_line", BARRIER, "waits at another __syncthreads in line"),
        ("shuffles_in_a_line", COLLECTIVE, "waits at another __shfl_xor_sync with mask"),
        ("two_shuffles", COLLECTIVE, "waits at __shfl_xor_sync with mask 0xffffffff in line"),
        ("two_masks", COLLECTIVE, "with mask 0x"),
        ("not_named", COLLECTIVE, "the mask 0x7fffffff of __shfl_sync does not name lane 31"),
        ("lanes_at_the_barrier", COLLECTIVE, "which waits at __syncthreads in line"),
        ("half_a_warp_multiplies", COLLECTIVE, "needs all 32 lanes of the warp"),
        ("not_cooperative", BARRIER, "needs a cooperative launch"),
    ],
)
def test_threads_that_do_not_meet(schedule, kernel, kind, says):
    with options(schedule=schedule, seed=7):
        found = fault(kernel, threads=96)
    assert found.kind == kind
    assert says in found.text


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_blocks_that_do_not_meet(schedule):
    with options(schedule=schedule, seed=7):
        found = fault("a_block_ends_early", blocks=4, cooperative=True)
        assert "block (2, 0, 0) never reaches" in found.text
        assert found.block != (2, 0, 0)
        found = fault("barriers_of_two_kinds", blocks=2, cooperative=True)
        assert found.kind == BARRIER


def test_block_and_thread_are_named():
    found = fault("not_named", blocks=3, threads=64)
    assert (found.block, found.thread) == ((0, 0, 0), (31, 0, 0))
    with options(schedule="reversed"):
        found = fault("not_named", blocks=3, threads=64)
    assert (found.block, found.thread) == ((2, 0, 0), (63, 0, 0))


@pytest.mark.parametrize(
    ("kernel", "dtype", "says"),
    [
        ("odd_load", np.float32, "load4 needs an address that is a multiple of 16 bytes"),
        ("odd_store", np.float64, "one 8 past it"),
        ("odd_array", np.float32, "can be declared with __align__(16)"),
        ("odd_copy", np.float32, "cp.async from"),
        ("odd_row", np.float32, "ldmatrix_x1"),
    ],
)
def test_misaligned_vectors(kernel, dtype, says):
    found = fault(kernel, dtype)
    assert found.kind == ALIGNMENT
    assert says in found.text


def test_asynchronous_copies_go_to_shared_memory():
    assert fault("copy_from_shared").kind == "wrong memory"


def test_what_a_kernel_gives_up_itself():
    found = fault("asserts")
    assert (found.kind, found.text) == ("assertion failed", "threadIdx.x < 30 does not hold")
    assert found.thread == (30, 0, 0)
    found = fault("traps")
    assert (found.kind, found.text) == ("trap", "it stops the kernel with __trap()")
    assert found.thread == (33, 0, 0)


def test_more_shared_memory_than_a_gpu_has():
    assert "take 52000 bytes" in fault("too_many_arrays").text
    assert "launched with 300000 bytes" in fault("too_much_dynamic", shared_mem=300_000).text


@pytest.mark.parametrize(
    ("kernel", "dtype", "kind"),
    [
        ("nowhere", np.float32, "out of bounds"),
        ("by_zero", np.int32, "division by zero"),
        ("deep", np.int32, "stack overflow"),
    ],
)
def test_what_would_end_the_process_ends_the_launch(kernel, dtype, kind):
    assert fault(kernel, dtype).kind == kind


def test_a_fault_on_another_os_thread():
    with options(workers=3):
        assert fault("by_zero", np.int32, blocks=8).kind == "division by zero"


# ---- what never ends ---------------------------------------------------------------------------


def interrupted(kernel, every=5, **how):
    """Launch a kernel that does not end, and press Ctrl-C every so many seconds until it has.

    Returns what is told, and how often that took.
    """
    endless = module("schedules.cu")
    endless.built(how.get("checked", False))
    presses = []

    def press():
        while not _ONE_AT_A_TIME.locked():  # a launch runs
            time.sleep(0.01)
        time.sleep(0.1)
        while _ONE_AT_A_TIME.locked():
            presses.append(time.monotonic())
            os.kill(os.getpid(), signal.SIGINT)
            while _ONE_AT_A_TIME.locked() and time.monotonic() < presses[-1] + every:
                time.sleep(0.01)

    with options(**how):
        keyboard = threading.Thread(target=press)
        keyboard.start()
        with pytest.raises(KernelInterrupted) as caught:
            endless.get_function(kernel)((6,), (64,), (np.zeros(64, np.float32),))
        keyboard.join()
    endless.get_function("blocks_in_order")((4,), (1,), (np.zeros(5, np.int32),))  # all goes on
    return str(caught.value), len(presses)


@pytest.fixture
def python_raises():
    """Where tests run in the background, they start with this signal ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


ON = [{"workers": 1}, {"workers": 3}, {"checked": True}]


@pytest.mark.usefixtures("python_raises")
@pytest.mark.parametrize("how", ON, ids=["alone", "with_helpers", "checked"])
@pytest.mark.parametrize("kernel", ["spins", "spins_alone", "meets_for_ever"])
def test_control_c_ends_a_kernel_that_does_not_end(kernel, how):
    says, presses = interrupted(kernel, **how)
    place = r"(?: in \S*schedules\.cu:(\d+), block \(\d, 0, 0\), thread \(\d+, 0, 0\).*)?"
    found = re.fullmatch(rf"{kernel} was running{place}", says)
    assert found, says
    assert presses == 1
    assert found[1] is None or int(found[1]) in lines(kernel, "// stop: ", "schedules.cu")


@pytest.mark.usefixtures("python_raises")
def test_it_is_told_who_waits_for_a_thread_that_spins():
    says, _ = interrupted("spins_alone", workers=1)
    (barrier,) = lines("spins_alone", "// wait: ", "schedules.cu")
    assert (
        f"thread (40, 0, 0); 40 of its block's threads wait at __syncthreads in line {barrier}"
        in says
    )


def test_who_handles_control_c_otherwise_is_told_and_ends_the_kernel_at_the_second():
    told = []
    before = signal.signal(signal.SIGINT, lambda *_: told.append(1))
    try:
        says, presses = interrupted("spins", every=0.5)
    finally:
        signal.signal(signal.SIGINT, before)
    assert says.startswith("spins was running")
    assert presses > 1
    assert told
