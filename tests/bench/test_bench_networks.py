"""Networks and data: what is compared before and after, and what is counted. No real clock."""

import sys
import types

import numpy as np
import pytest

import tinyvid
from tinyvid.bench import networks, pipeline
from tinyvid.bench.gpu import EventTimer
from tinyvid.bench.networks import measure_network
from tinyvid.bench.pipeline import loader, measure_decoding, measure_waiting
from tinyvid.bench.timing import LEAST_ROUNDS
from tinyvid.data import open_data, write_verbs
from tinyvid.errors import UserError
from tinyvid.summary import summarise, total

NAME = "early_fusion"


def timer(run, calls):
    run()
    return 0.01 * calls


def small(name, pass_="step", **options):
    return measure_network(name, pass_, batch=2, seconds=1.0, timer=timer, **options)


@pytest.mark.parametrize("pass_", networks.PASSES)
def test_without_pytorch_float32_is_compared_with_our_own_float64(monkeypatch, pass_):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    measured = small(NAME, pass_)
    (line,) = measured.lines
    assert (line.fault, line.name) == (None, "tinyvid")
    assert line.seconds == pytest.approx([0.01] * 6)
    assert measured.checked == "the same network in float64"
    model = networks.models.build(NAME, networks.CLASSES)
    macs = total(summarise(model, networks.models.entry(NAME).clip)).macs
    assert measured.flops == 2 * 2 * macs * (3 if pass_ == "step" else 1)


@pytest.mark.parametrize("when", [0, 1])
def test_a_network_that_computes_something_else_has_no_time(monkeypatch, when):
    monkeypatch.setattr(networks, "find_spec", lambda name: None)
    right, seen = networks._values, []

    def values(model, clips, labels):
        found = right(model, clips, labels)
        if clips.dtype == np.float32:
            seen.append(1)
            if len(seen) > when:
                key = next(k for k in found if k.startswith("gradient"))
                found[key] = found[key] * np.float32(1.1)
        return found

    monkeypatch.setattr(networks, "_values", values)
    (line,) = small(NAME).lines
    assert "gradient of" in line.fault
    assert line.seconds == []


@pytest.mark.parametrize(
    ("name", "training", "clip", "options"),
    [
        ("c3d", True, (3, 16, 16, 16), {"width": 2, "hidden": 4, "dropout": 0.0}),
        ("c3d", False, (3, 16, 16, 16), {"width": 2, "hidden": 4, "dropout": 0.0}),
        ("multires", False, (3, 2, 32, 36), {"width": 2}),
        ("karpathy_multires", False, (3, 1, 60, 62), {"width": 2, "hidden": 4}),
        ("karpathy_slow_fusion", True, (3, 10, 59, 59), {"width": 2, "hidden": 4, "dropout": 0.0}),
    ],
)
def test_networks_have_twins_in_pytorch(name, training, clip, options):
    pytest.importorskip("torch")
    model = networks.models.build(name, 3, clip, **options).train(training)
    clips = np.random.default_rng(0).standard_normal((2, *clip), np.float32)
    labels = np.array([0, 2])
    assert networks.fault(model, clips, labels, torch=True, exact=True) is None
    assert networks.fault(model, clips, labels, torch=True, exact=False) is None


@pytest.mark.parametrize("spoilt", [1, 2, 3])
def test_rounding_that_spoils_one_clip_is_no_fault(spoilt, monkeypatch):
    tinyvid.manual_seed(0)
    options = {"width": 2, "dropout": 0.0}
    model = networks.models.build("slow_fusion", 3, (3, 2, 32, 32), **options).train(True)
    clips = np.random.default_rng(0).standard_normal((2, 3, 2, 32, 32), np.float32)
    right, wrong = networks._values, []

    def values(model, clips, labels):
        found = right(model, clips, labels)
        if clips.dtype == np.float32 and len(wrong) < spoilt:
            wrong.append(1)
            found["loss"] = found["loss"] * np.float32(1.1)
        return found

    monkeypatch.setattr(networks, "_values", values)
    found = networks.fault(model, clips, np.array([0, 2]), torch=False, exact=True)
    assert (found or "").startswith("loss is off by" if spoilt == 3 else "")
    assert (found is None) == (spoilt < 3)


@pytest.mark.parametrize("whose", ["_values", "_peer_values"])
def test_rounding_of_the_peer_is_no_fault_of_ours(whose, monkeypatch):
    """In float32 either may choose another cell of a pooling's window; float64 decides which."""
    pytest.importorskip("torch")
    clip, options = (3, 16, 16, 16), {"width": 2, "hidden": 4, "dropout": 0.0}
    tinyvid.manual_seed(0)
    model = networks.models.build("c3d", 3, clip, **options).train(True)
    clips = np.random.default_rng(0).standard_normal((2, *clip), np.float32)
    right = getattr(networks, whose)

    def values(model, clips, labels):
        found = right(model, clips, labels)
        if clips.dtype == np.float32:
            found["loss"] = found["loss"] * np.float32(1.1)
        return found

    monkeypatch.setattr(networks, whose, values)
    found = networks.fault(model, clips, np.array([0, 2]), torch=True, exact=False)
    if whose == "_values":
        assert found.startswith("loss is off by")
    else:
        assert found is None


def test_a_network_that_pytorch_has_not_is_compared_with_our_own_float64(monkeypatch):
    pytest.importorskip("torch")
    from tinyvid.bench import torch_networks

    monkeypatch.setattr(torch_networks, "_SHELLS", {})
    measured = small(NAME, "forward")
    (line,) = measured.lines
    assert line.note == "not beside PyTorch's: no Sequential in PyTorch is written down here"
    assert measured.checked == "the same network in float64"
    assert (line.fault, bool(line.seconds)) == (None, True)


def test_pytorch_has_the_same_loss_and_gradients():
    pytest.importorskip("torch")
    for pass_ in networks.PASSES:
        measured = small(NAME, pass_)
        assert [(line.name, line.fault) for line in measured.lines] == [
            ("tinyvid", None),
            ("torch", None),
        ]
        assert all(line.seconds for line in measured.lines)
    assert small("single_frame").checked.startswith("nothing: it draws its frames at random")
    (line,) = small(NAME, with_peer=False).lines
    assert line.seconds


@pytest.fixture(scope="module")
def videos():
    return open_data("verbs", per_class=1, size=32, frames=8)


class Clock:
    """Passes so many seconds at every look."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def __call__(self):
        self.now += self.step
        return self.now


def test_clips_a_second(videos):
    source = loader(videos, (4, 16), batch=4, workers=2)
    measured = measure_decoding(source, seconds=3.0, clock=Clock(0.25))
    (line,) = measured.lines
    assert line.fault is None
    assert len(line.seconds) >= 6
    assert line.seconds == pytest.approx([0.5 / 8] * len(line.seconds))  # two batches a window
    assert measured.case == "4×16×16, random, 2 workers"
    tested = measure_decoding(loader(videos, (4, 16), 4, 0, train=False), 3.0, Clock(0.25))
    assert tested.case == "4×16×16, 10 of each video, 0 workers"
    assert tested.lines[0].fault is None
    assert tested.lines[0].seconds


def test_threads_that_make_other_clips_fail(videos, monkeypatch):
    source = loader(videos, (4, 16), batch=4, workers=2)
    monkeypatch.setattr(source, "seed", 7)
    (line,) = measure_decoding(source, seconds=1.0, clock=Clock(0.25)).lines
    assert "several threads make other clips" in line.fault
    assert line.seconds == []


def test_the_share_of_a_training_that_waits(videos):
    source = loader(videos, (4, 16), batch=4, workers=0)
    # A look before the batch, one after it, one after the step: a third is spent waiting for the
    # batch, if the look that asks for the time is left out.
    measured, share = measure_waiting(source, NAME, seconds=1.0, clock=Clock(0.25))
    assert share == pytest.approx(0.5)
    (line,) = measured.lines
    assert line.seconds == pytest.approx([0.5] * 6)
    assert line.note == "50.0% of the time spent waiting for data"
    source.drop_last, source.batch_size = True, 100
    with pytest.raises(UserError, match="take a smaller --batch"):
        measure_waiting(source, NAME, 1.0)


def test_videos_are_written_where_there_are_none(tmp_path):
    folder = pipeline.written_videos(tmp_path, each=1, frames=3)
    found = open_data(folder)
    assert len(found.videos) == 8
    info = found.probe(found.videos[0])
    assert (info.frames, info.height, info.width, info.codec) == (3, 240, 320, "h264")


def test_videos_kept_in_memory_are_decoded_before_and_told_apart(tmp_path):
    found = open_data(write_verbs(tmp_path, 1, frames=6, size=32))
    source = loader(found, (4, 32), batch=2, workers=0, memory=1 << 20)
    assert source.keeps
    decoding = measure_decoding(source, 1.0, Clock(0.25))
    assert decoding.case == "4×32×32, random, kept in memory, 0 workers"
    assert len(source._memory._kept) == 8
    measured, share = measure_waiting(source, NAME, 1.0, Clock(0.25))
    (line,) = measured.lines
    assert share == pytest.approx(0.5)
    assert line.note == "50.0% of the time spent waiting for data, 50.0% in the first epoch"
    assert len(line.seconds) == LEAST_ROUNDS


def test_on_a_gpu_each_call_is_between_two_events_after_the_cache_was_overwritten(monkeypatch):
    did = []

    class Event:
        def __init__(self):
            self.at = None

        def record(self):
            did.append("record")
            self.at = len(did)

        def synchronize(self):
            did.append("wait")

    cupy = types.ModuleType("cupy")
    cupy.empty = lambda shape, dtype: types.SimpleNamespace(
        nbytes=shape[0], fill=lambda value: did.append("flush")
    )
    cupy.cuda = types.SimpleNamespace(
        Event=Event,
        get_elapsed_time=lambda a, b: 1000.0 * (b.at - a.at),
        runtime=types.SimpleNamespace(getDeviceProperties=lambda n: {"l2CacheSize": 100}),
    )
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    events = EventTimer()
    assert events.flushed.nbytes == 200
    # Milliseconds on the GPU's clock: two entries apart, in seconds, for each of two calls.
    assert events(lambda: did.append("run"), 2) == pytest.approx(4.0)
    assert did == ["flush", "record", "run", "record"] * 2 + ["wait"]
