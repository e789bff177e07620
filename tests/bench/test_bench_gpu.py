"""Clocks and graphs on a GPU, against stand-ins: there is none here."""

import contextlib
import stat
import types

import numpy as np
import pytest

from tinyvid.bench import gpu, timing
from tinyvid.bench.peers import Contestant, Peer
from tinyvid.bench.problems import tasks
from tinyvid.bench.results import PEER
from tinyvid.bench.run import Settings, measure


@pytest.fixture
def graphs(cupy):
    """Streams whose graphs count what becomes of them; returns the log."""
    log = []

    class Graph:
        def launch(self):
            log.append("launch")

    class Stream(contextlib.AbstractContextManager):
        def __init__(self, non_blocking):
            assert non_blocking  # the default stream cannot be captured

        def __exit__(self, *exception):
            log.append("left")

        def synchronize(self):
            log.append("synchronize")

        def begin_capture(self):
            log.append("begin")

        def end_capture(self):
            log.append("end")
            return Graph()

    cupy.cuda.Stream = Stream
    cupy.cuda.MemoryPool = lambda: types.SimpleNamespace(malloc="the graph's own")
    cupy.cuda.using_allocator = lambda malloc: contextlib.nullcontext(log.append(malloc))
    return log


def test_a_graph_is_recorded_after_a_call_and_replayed(graphs):
    replay = gpu.captured(lambda: graphs.append("run") or "results")
    once = ["the graph's own", "run", "synchronize", "begin", "run", "end", "left"]
    assert graphs == once
    assert [replay(), replay()] == ["results"] * 2
    assert graphs == [*once, "launch", "launch"]


def test_a_capture_that_fails_is_ended(graphs):
    def fails():
        if "begin" in graphs:
            raise RuntimeError("not during a capture")

    with pytest.raises(RuntimeError, match="not during a capture"):
        gpu.captured(fails)
    assert graphs[-2:] == ["end", "left"]


def contest(monkeypatch, seconds, captured):
    """Measure a peer that computes by the reference, each call of `seconds`."""
    (task,) = tasks("conv3d", ["plain"], ["fprop"])
    reference = task.kernel.variants["reference"].function
    monkeypatch.setattr(timing, "SHORTEST", 1e-6)

    def prepare(task, device):
        return Contestant(lambda: reference(*task.args), lambda y: (y,), captured=captured)

    def timer(run, calls):
        run()
        return calls * seconds

    peers = (Peer("peer", ("cpu",), lambda device: None, prepare),)
    lines = measure(task, Settings(peers=peers, timer=timer, seconds=1)).lines
    return next(line for line in lines if line.role == PEER)


def test_short_calls_are_timed_as_graphs_and_checked(monkeypatch):
    made = []

    def captured(run):
        results = run()
        return lambda: made.append(1) or results

    short = contest(monkeypatch, 5e-5, captured)
    assert (short.note, short.fault) == ("replayed as a graph", None)
    assert len(made) >= timing.LEAST_ROUNDS
    made.clear()
    assert contest(monkeypatch, 5e-3, captured).note == ""
    assert not made
    wrong = contest(monkeypatch, 5e-5, lambda run: lambda: run() * np.float32(1.1))
    assert wrong.fault.startswith("right at first, but after timing: ")


def test_what_no_graph_can_hold_is_timed_without(monkeypatch):
    def captured(run):
        raise RuntimeError("it waits")

    line = contest(monkeypatch, 5e-5, captured)
    assert (line.note, line.fault) == ("not as a graph: it waits", None)
    assert line.seconds


@pytest.fixture
def smi(cupy, monkeypatch, tmp_path):
    """Puts a stand-in for nvidia-smi on the path: prints what it is given, and notes its call."""
    cupy.cuda.Device = lambda: types.SimpleNamespace(pci_bus_id="0000:01:00.0")

    def put(answer, code=0):
        script = tmp_path / "nvidia-smi"
        script.write_text(
            f"#!/bin/sh\necho \"$@\" >{tmp_path}/called\necho '{answer}'\nexit {code}\n"
        )
        script.chmod(script.stat().st_mode | stat.S_IEXEC)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return tmp_path / "called"

    return put


def test_clocks(smi):
    called = smi("1980, 2619, 41, 350.20, 0x0000000000000024")
    assert gpu.clocks() == {
        "SM clock, MHz": "1980",
        "memory clock, MHz": "2619",
        "temperature, C": "41",
        "power, W": "350.20",
        "slowed down by": ["its power limit", "its temperature"],
    }
    assert "--id=0000:01:00.0" in called.read_text()
    smi("1980, 2619, 41, 350.20, 0x0000000000000001")  # idle
    assert gpu.clocks()["slowed down by"] == []


@pytest.mark.parametrize(("answer", "code"), [("", 0), ("No devices were found", 6), ("1, 2", 0)])
def test_no_answer_is_none(smi, answer, code):
    smi(answer, code)
    assert gpu.clocks() == {}


def test_without_the_tool_nothing_is_known(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert gpu.clocks() == {}
