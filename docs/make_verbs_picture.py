"""Draw `docs/verbs.png`: the built-in set, and what a frame and a clip tell of it.

    python docs/make_verbs_picture.py RUN_OF_SINGLE_FRAME RUN_OF_SLOW_FUSION

The runs are folders in which `tinyvid test` has left its results.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

from tinyvid.data import open_data

FRAMES = 6
# Which video of an action is shown, where the first has a shape too small or too round to see turn.
SHOWN = {"turn_clockwise": 9, "turn_counter_clockwise": 10}


def main(single: str, slow: str) -> None:
    videos = open_data("verbs", size=64, per_class=12, frames=20, seed=5)
    figure = plt.figure(figsize=(10, 3.5), layout="constrained")
    left, right = figure.subfigures(1, 2, width_ratios=(2.1, 1))
    grid = left.subplots(len(videos.classes) // 2, 2)
    left.suptitle("verbs: eight actions, each the reverse in time of another", fontsize=11)
    for axes, (label, name) in zip(grid.T.ravel(), enumerate(videos.classes), strict=True):
        video = [v for v in videos.videos if v.label == label][SHOWN.get(name, 0)]
        frames = videos.read(video, np.linspace(0, 19, FRAMES).astype(int))
        gap = np.full((64, 3, 3), 255, np.uint8)
        strip = np.concatenate([part for frame in frames for part in (frame, gap)][:-1], axis=1)
        axes.imshow(strip)
        axes.set_title(name.replace("_", " "), fontsize=9, loc="left", pad=2)
        axes.axis("off")
    panel = right.subplots()
    names = ["chance", "single frame", "slow fusion\n(3-D CNN)"]
    shares = [1 / len(videos.classes), *(_hit1(run) for run in (single, slow))]
    bars = panel.barh(
        names[::-1], shares[::-1], color=["#0072B2", "#E69F00", "#BBBBBB"], height=0.5
    )
    panel.bar_label(bars, [f"{share:.1%}" for share in shares[::-1]], padding=3)
    panel.set_xlim(0, 1.2)
    panel.set_xticks([])
    panel.spines[["top", "right", "bottom"]].set_visible(False)
    panel.set_title("Video Hit@1 on new videos", fontsize=11)
    out = Path(__file__).with_name("verbs.png")
    figure.savefig(out, dpi=100)
    print(out)


def _hit1(run: str) -> float:
    return json.loads((Path(run) / "test" / "metrics.json").read_text())["video_hit_1"]


if __name__ == "__main__":
    main(*sys.argv[1:])
