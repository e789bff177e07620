"""Each fault that ends a launch is caught, and named with line, block and thread."""

import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from emulated import HERE, SCHEDULES, module, needs_compiler

from tinyvid.kernels.emulator import KernelFault, options

pytestmark = needs_compiler

BARRIER, COLLECTIVE, ALIGNMENT = "divergent barrier", "divergent collective", "misaligned access"


def lines(kernel):
    """Return the lines of faults.cu that are to blame for the kernel's fault."""
    text = (HERE / "faults.cu").read_text().splitlines()
    return {n for n, row in enumerate(text, 1) if row.partition("// fault: ")[2].startswith(kernel)}


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


def test_a_kernel_that_never_ends_is_left_by_a_second_interrupt():
    code = (
        # Where the tests run in the background, their children start with this signal ignored.
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import os, sys, numpy as np; from tinyvid.kernels.emulator import Module; "
        "spins = Module(sys.argv[1]).get_function('spins'); print('now', flush=True)\n"
        "try: spins((8,), (64,), (np.zeros(64, np.float32),))\n"
        "except KeyboardInterrupt: print('interrupted', flush=True); os._exit(0)"
    )
    root = HERE.parents[2]
    process = subprocess.Popen(
        [sys.executable, "-c", code, HERE / "faults.cu"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=root,
    )
    assert process.stdout.readline() == "now\n"
    time.sleep(2)  # by now it spins, on a busy machine too
    for _ in range(40):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            time.sleep(0.5)
    assert process.communicate(timeout=30)[0] == "interrupted\n"
    assert process.returncode == 0
