"""The shift experiment on networks too small to learn: what is trained, tested, and kept."""

import pytest
from test_reproduce_make import VERBS

from tinyvid.data import open_data
from tinyvid.errors import UserError
from tinyvid.reproduce import Plan, shift
from tinyvid.reproduce.shift import FRAMES, MOVING, SHIFTS, STILL, shift_curves, window
from tinyvid.train import Listener


def test_the_action_is_early_in_training_and_late_in_the_last_test():
    assert window(0)[1] <= 0.5 <= window(max(SHIFTS))[0] + 1e-9
    assert FRAMES - STILL - MOVING - max(SHIFTS) == STILL


def test_what_is_finished_is_kept(tmp_path, monkeypatch):
    tiny = {"early fusion": ("early_fusion", {"width": 2})}
    monkeypatch.setattr(shift, "NETWORKS", tiny)
    monkeypatch.setattr(shift, "PER_CLASS", 2)
    monkeypatch.setattr(shift, "EPOCHS", 1)
    monkeypatch.setattr(shift, "FRESH_VERBS", 1)
    asked = []
    monkeypatch.setattr(shift, "open_data", lambda *a, **k: asked.append(k) or open_data(*a, **k))
    (curve,) = shift_curves(tmp_path, Listener())
    assert curve.label == "early fusion"
    assert tuple(curve.points) == SHIFTS
    assert [k["window"] for k in asked] == [window(s) for s in SHIFTS]
    assert all(k["split"] == "test" for k in asked)
    monkeypatch.setattr(shift, "fit", None)
    assert shift_curves(tmp_path, Listener()) == [curve]
    monkeypatch.setattr(shift, "EPOCHS", 2)
    with pytest.raises(UserError, match=r"run\.epochs"):
        shift_curves(tmp_path, Listener())


def test_it_is_made_of_verbs_alone_and_not_in_a_hurry(tmp_path):
    both = ("early_fusion", "slow_fusion")
    assert Plan("verbs", tmp_path, systems=both, overrides=VERBS).shifts
    assert not Plan("verbs", tmp_path, systems=both, quick=True).shifts
    assert not Plan("verbs", tmp_path, systems=both[:1]).shifts
    assert not Plan("elsewhere", tmp_path, systems=both).shifts
