"""A task from end to end: who takes part, what is right, what is timed, without a clock."""

import numpy as np
import pytest

from tinyvid.bench import peers
from tinyvid.bench.peers import Contestant, Peer, Unfit
from tinyvid.bench.problems import tasks
from tinyvid.bench.results import OURS, PEER, speed
from tinyvid.bench.run import Settings, measure
from tinyvid.bench.statistics import verdict
from tinyvid.checking.suite import PROBLEMS
from tinyvid.errors import UserError
from tinyvid.kernels import conv3d_fprop


def conv(case="plain", pass_="fprop", **options):
    (task,) = tasks("conv3d", [case], [pass_], **options)
    return task


class Fake:
    """Runs what it is given, and says that it took as many seconds as `takes` has for it."""

    def __init__(self, **takes):
        self.takes = takes

    def __call__(self, run, calls):
        run()
        return self.takes.get(run.line.name.replace("/", "_"), 0.01) * calls


def peer(name, run, takes=lambda task: None):
    def prepare(task, device):
        takes(task)
        return Contestant(lambda: run(*task.args), lambda y: (y,))

    return Peer(name, ("cpu",), lambda device: None, prepare)


REFERENCE = conv3d_fprop.variants["reference"].function


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Two variants of conv3d_fprop on the CPU, however many there are."""
    names = ("cpu/im2col", "cuda/naive", "reference")
    kept = {name: conv3d_fprop.variants[name] for name in names}
    monkeypatch.setattr(conv3d_fprop, "variants", kept)


def test_ours_first_then_the_peers_each_with_its_ratio():
    good = peer("good", REFERENCE)
    settings = Settings(peers=(good,), timer=Fake(cpu_im2col=0.01, good=0.02))
    measured = measure(conv(), settings)
    assert [(line.name, line.role) for line in measured.lines] == [
        ("cpu/im2col", OURS),
        ("good", PEER),
    ]
    assert all(line.fault is None and len(line.seconds) >= 6 for line in measured.lines)
    ((shown, ours, other),) = measured.pairs()
    assert (shown.name, ours.name, other.name) == ("good", "cpu/im2col", "good")
    assert speed(ours, other).middle == pytest.approx(2.0)
    assert verdict(speed(ours, other)) == "faster"
    assert measured.checked == "every element of the reference in float64"
    assert measured.shapes == "x 2×3×4×5×6, w 4×3×3×3×3"


def test_a_ladder_compares_every_variant_with_the_first_peer():
    good, other = peer("good", REFERENCE), peer("other", REFERENCE)
    timer = Fake(cpu_im2col=0.01, good=0.02, reference=0.04)
    settings = Settings(peers=(good, other), ladder=True, timer=timer)
    measured = measure(conv(), settings)
    names = [line.name for line in measured.lines]
    assert names == ["good", "cpu/im2col", "reference"]
    said = {shown.name: verdict(speed(ours, of)) for shown, ours, of in measured.pairs()}
    assert said == {"cpu/im2col": "faster", "reference": "slower"}


@pytest.fixture
def planted(monkeypatch):
    """Adds a variant of conv3d_fprop for a test: what it does is handed in."""

    def plant(function, name="cpu/planted"):
        kept = dict(conv3d_fprop.variants)
        monkeypatch.setattr(conv3d_fprop, "variants", kept)
        conv3d_fprop.add(name, "tests:planted")
        kept[name]._function = function
        return Settings(variants=(name,), timer=Fake())

    return plant


def test_a_wrong_result_is_a_failed_benchmark_and_has_no_time(planted):
    settings = planted(lambda x, w, g: REFERENCE(x, w, g) * np.float32(1.01))
    (line,) = measure(conv(), settings).lines
    assert "result 0 is wrong" in line.fault
    assert line.seconds == []


def test_one_that_becomes_wrong_while_it_is_timed_fails_too(planted):
    calls = []

    def forgets(x, w, g):
        calls.append(1)
        y = REFERENCE(x, w, g)
        return y if len(calls) < 5 else y * 0

    (line,) = measure(conv(), planted(forgets)).lines
    assert line.fault.startswith("right at first, but after timing: result 0 is wrong")
    assert line.seconds == []


def test_one_that_writes_into_its_input_fails(planted):
    def scribbles(x, w, g):
        y = REFERENCE(x, w, g)
        x *= 1.5
        return y

    (line,) = measure(conv(), planted(scribbles)).lines
    assert "after timing: result 0 is wrong" in line.fault


def test_one_that_raises_does_not_hide_the_others(planted):
    def fails(x, w, g):
        raise ZeroDivisionError("no")

    planted(fails)
    settings = Settings(variants=("cpu/planted", "cpu/im2col"), timer=Fake())
    bad, good = measure(conv(), settings).lines
    assert bad.fault == "ZeroDivisionError: no"
    assert good.fault is None
    assert good.seconds


def test_what_a_peer_cannot_take_is_told_and_no_failure():
    def refuses(task):
        raise Unfit("only even sizes")

    settings = Settings(peers=(peer("odd", REFERENCE, refuses),), timer=Fake())
    ours, odd = measure(conv(), settings).lines
    assert (odd.note, odd.fault, odd.seconds) == ("does not take this: only even sizes", None, [])
    assert ours.seconds


def test_on_the_emulator_results_are_checked_and_nothing_is_timed():
    with pytest.raises(UserError, match="times on the emulator mean nothing"):
        Settings(device="emulator")
    settings = Settings(device="emulator", check_only=True, variants=("reference",))
    (line,) = measure(conv(), settings).lines
    assert (line.fault, line.seconds) == (None, [])
    with pytest.raises(UserError, match="'cpu/im2col' does not run on device 'emulator'"):
        measure(conv(), Settings("emulator", ("cpu/im2col",), check_only=True))


@pytest.mark.parametrize("op", PROBLEMS)
def test_numpy_agrees(op):
    here, _ = peers.chosen(["numpy"], "cpu")
    names = [case.name for case in PROBLEMS[op][0] if not case.large][:3]
    for task in tasks(op, names):
        settings = Settings(peers=tuple(here), check_only=True)
        assert [line.fault for line in measure(task, settings).lines] == [None, None]


WITHOUT_A_PEER = ("tvl1", "horn_schunck")


@pytest.mark.parametrize("op", PROBLEMS)
def test_pytorch_agrees(op):
    pytest.importorskip("torch")
    here, skipped = peers.chosen(["torch"], "cpu")
    assert [p.name for p in here] == ["torch", "torch/channels_last"]
    assert skipped == []
    names = [case.name for case in PROBLEMS[op][0] if not case.large][:8:2]
    taken = 0
    for task in tasks(op, names):
        measured = measure(task, Settings(peers=tuple(here), check_only=True))
        assert [line.fault for line in measured.lines] == [None] * 3, task.name
        taken += measured.lines[1].note == ""
        if op in WITHOUT_A_PEER:
            assert "PyTorch has no single operation like it" in measured.lines[1].note
    assert taken > 2 or op in WITHOUT_A_PEER


def test_a_peer_that_is_not_installed_is_skipped_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda name: None)
    here, skipped = peers.chosen(None, "cpu")
    assert [p.name for p in here] == ["numpy"]
    assert skipped[0] == (
        "torch is skipped: PyTorch is not installed: pip install 'tinyvid[bench]'"
    )
    assert peers.chosen([], "cpu") == ([], [])
    with pytest.raises(UserError, match="Did you mean 'torch'"):
        peers.chosen(["toch"], "cpu")
    with pytest.raises(UserError, match="no peer 'torch/tf32' on device 'cpu'"):
        peers.chosen(["torch/tf32"], "cpu")
