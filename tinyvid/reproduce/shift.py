"""The shift experiment: networks that know an action early in the clip, tested with it later.

Videos of `verbs` that are one clip long, in which the action happens in the first half, train; in
test videos it happens at the same moment and later and later, up to the second half. Before it the
shape holds still, and after it, so that no test moves the action over an end.
"""

from __future__ import annotations

from pathlib import Path

from tinyvid.config import Config, load_config
from tinyvid.data import open_data
from tinyvid.evaluate import FRESH_VERBS, Scores, save_results, score
from tinyvid.reproduce.results import ShiftCurve, measured
from tinyvid.runs import Run
from tinyvid.train import Listener, check_same_config, fit

FRAMES, SIZE = 16, 32
STILL, MOVING = 2, 6  # frames before the action in training, and of the action
PER_CLASS, EPOCHS = 300, 12
SHIFTS = (0, 2, 4, 6)  # the last is in the second half, with as much stillness behind it

CHANCE = 1 / 8

NETWORKS: dict[str, tuple[str, dict[str, object]]] = {
    "single frame": ("single_frame", {}),
    "early fusion": ("early_fusion", {}),
    "3-D CNN": ("slow_fusion", {}),
    "3-D CNN, its pools over space alone": ("slow_fusion", {"pool_time": False}),
}


def window(shift: int) -> tuple[float, float]:
    """Return the part of the clip's time, 0 to 1, of an action that is so many frames later."""
    return (STILL + shift) / FRAMES, (STILL + shift + MOVING) / FRAMES


def config_for(name: str, options: dict[str, object], seed: int = 0) -> Config:
    """Return the config of one of the networks."""
    config = load_config(None, (), {"model.name": name, "data.path": "verbs", "run.seed": seed})
    config.data.options |= {
        "per_class": PER_CLASS,
        "frames": FRAMES,
        "size": SIZE,
        "window": list(window(0)),
    }
    for key, value in {"frames": FRAMES, "height": SIZE, "width": SIZE, "stride": 1}.items():
        config.set(f"clip.{key}", value)
    config.set("run.epochs", EPOCHS)
    config.model.options |= options
    return config


def shift_curves(out: Path, listener: Listener) -> list[ShiftCurve]:
    """Train and test what is not finished in `out`; return a curve for each network.

    Raises:
        UserError: `out` holds runs with other settings.
    """
    return [
        _curve(label, config_for(name, options), out / label.replace(" ", "_"), listener)
        for label, (name, options) in NETWORKS.items()
    ]


def _curve(label: str, config: Config, folder: Path, listener: Listener) -> ShiftCurve:
    began = (folder / "config.toml").exists()
    if began:
        check_same_config(Run.open(folder).config, config, folder)
    done = all((folder / f"test{s}" / "scores.npz").exists() for s in SHIFTS)
    model = None if done else fit(config, folder, resume=began, listener=listener).model
    points = {}
    for shift in SHIFTS:
        place = folder / f"test{shift}"
        if model is not None:
            options = {**config.data.options, "window": window(shift), "per_class": FRESH_VERBS}
            videos = open_data("verbs", split="test", **options)
            found = score(model, videos, config, clips=1)
            save_results(found, "mean_prob", f"{label}, {shift} frames later", place)
        points[shift] = measured(Scores.load(place / "scores.npz")).video_hit_1
    return ShiftCurve(label, points)
