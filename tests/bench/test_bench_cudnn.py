"""cuDNN through ctypes, against a stand-in for it written in C: there is no GPU here."""

import ctypes
import gc
import os
import shutil
import subprocess
import types
from pathlib import Path

import pytest

from tinyvid.bench import cudnn, peers
from tinyvid.bench.peers import Unfit
from tinyvid.bench.problems import tasks
from tinyvid.bench.run import Settings, measure

COMPILER = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
RIGHT, WITH_SPACE, UNWRITTEN, WRONG = range(4)  # algorithms of the stand-in


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    path = tmp_path_factory.mktemp("cudnn") / "libcudnn.so.9"
    source = Path(__file__).with_name("fake_cudnn.c")
    subprocess.run([COMPILER, "-O1", "-shared", "-fPIC", "-o", path, source], check=True)
    return path


@pytest.fixture
def fake(built, cupy, monkeypatch):
    """Let the peer find the stand-in, and the arrays of a stand-in for CuPy."""
    monkeypatch.setenv(cudnn.VARIABLE, str(built))
    cupy.cuda.get_current_stream = lambda: types.SimpleNamespace(ptr=1234)
    cudnn.library.cache_clear()
    yield ctypes.CDLL(str(built))
    cudnn.library.cache_clear()


def task_of(op, case, pass_):
    (task,) = tasks(op, [case], [pass_], seed=1)
    return task


def measured(task, name="cudnn"):
    found, skipped = peers.chosen([name], "cuda")
    assert skipped == []
    settings = Settings("cuda", ("cuda/naive",), peers=tuple(found), check_only=True)
    return {line.name: line for line in measure(task, settings).lines[1:]}


@pytest.mark.parametrize("pass_", ["fprop", "dgrad", "wgrad"])
@pytest.mark.parametrize(
    ("op", "case"),
    [
        ("conv3d", "plain"),
        ("conv3d", "stride_and_dilation"),
        ("conv3d", "groups_stride"),
        ("conv2d", "plain"),
    ],
)
def test_every_algorithm_is_called_and_checked(fake, op, case, pass_):
    task = task_of(op, case, pass_)
    (peer,) = (p for p in peers.PEERS if p.name == "cudnn")
    names = cudnn.ALGORITHMS[pass_]
    found = peer.ways(peer, task, "cuda")
    assert [one.name for one in found] == [f"cudnn/{name}" for name in names[:4]]
    expected = task.expectation()
    faults = []
    for one in found:
        contestant = one.prepare(task, "cuda")
        faults.append(expected.fault(contestant.host(contestant.run())))
    assert faults[RIGHT] is faults[WITH_SPACE] is None
    assert "result 0 is wrong" in faults[UNWRITTEN]
    assert "result 0 is wrong" in faults[WRONG]
    assert ctypes.c_void_p.in_dll(fake, "fake_stream").value == 1234


@pytest.mark.skipif(not any(map(shutil.which, ("c++", "g++", "clang++"))), reason="needs C++")
def test_each_takes_part_and_a_wrong_one_fails(fake):
    math = ctypes.c_int.in_dll(fake, "fake_math")
    lines = measured(task_of("conv3d", "pointwise", "fprop"))
    names = ["implicit_gemm", "implicit_precomp_gemm", "gemm", "direct"]
    assert list(lines)[:4] == [f"cudnn/{name}" for name in names]
    assert list(lines)[4:] == [f"cudnn/tf32/{name}" for name in names]
    assert [line.fault is None for line in lines.values()] == [True, True, False, False] * 2
    assert math.value == 0
    tf32 = measured(task_of("conv3d", "pointwise", "fprop"), "cudnn/tf32")
    assert {line.arithmetic for line in tf32.values()} == {"tf32"}
    (peer,) = (p for p in peers.PEERS if p.name == "cudnn")
    peer.ways(peer, task_of("conv3d", "pointwise", "fprop"), "cuda")
    assert math.value == 3  # no TF32


def test_descriptors_are_destroyed(fake):
    gc.collect()
    alive = ctypes.c_int.in_dll(fake, "fake_alive")
    before = alive.value
    conv = cudnn.Convolution(cudnn.library(), task_of("conv3d", "plain", "fprop"), "cuda", "tf32")
    assert alive.value == before + 4
    del conv
    gc.collect()
    assert alive.value == before


def test_what_it_cannot_take_is_told(fake):
    (peer,) = (p for p in peers.PEERS if p.name == "cudnn")
    for op, case, pass_, why in (
        ("conv3d", "same_even_filter", "fprop", "pads both sides alike"),
        ("max_pool3d", "halves", "fprop", "convolutions alone"),
    ):
        with pytest.raises(Unfit, match=why):
            peer.ways(peer, task_of(op, case, pass_), "cuda")
        (line,) = [
            line
            for line in measure(
                task_of(op, case, pass_),
                Settings("cuda", ("cuda/naive",), peers=(peer,), check_only=True),
            ).lines
            if line.name == "cudnn"
        ]
        assert (line.fault, line.note.startswith("does not take this: ")) == (None, True)


def test_no_algorithm_takes_it(fake, monkeypatch):
    monkeypatch.setitem(cudnn.ALGORITHMS, "fprop", ())
    (peer,) = (p for p in peers.PEERS if p.name == "cudnn")
    with pytest.raises(Unfit, match="no algorithm of cuDNN takes it"):
        peer.ways(peer, task_of("conv3d", "plain", "fprop"), "cuda")


def test_a_refused_call_names_the_status(fake):
    with pytest.raises(cudnn.Refused, match="cudnnSetStream: CUDNN_STATUS_BAD_PARAM"):
        cudnn.library().call("cudnnSetStream", None, None)
    assert cudnn.library().version == 90100


def test_where_it_is_not_installed(monkeypatch):
    monkeypatch.delenv(cudnn.VARIABLE, raising=False)
    monkeypatch.setattr(cudnn, "_places", lambda: iter(()))
    cudnn.library.cache_clear()
    assert cudnn.missing("cuda") == (
        "cuDNN is not found (no libcudnn.so): pip install nvidia-cudnn-cu12, or set "
        "TINYVID_CUDNN to the path of its libcudnn.so"
    )
    monkeypatch.setattr(cudnn, "_places", lambda: iter([os.devnull]))
    assert cudnn.missing("cuda").startswith(f"cuDNN is not found ({os.devnull}: ")
    _, skipped = peers.chosen(["cudnn"], "cuda")
    assert [text.partition(":")[0][:21] for text in skipped] == [
        "cudnn is skipped",
        "cudnn/tf32 is skipped",
    ]
