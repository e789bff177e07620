"""Results that nobody measured, for the tests of what is drawn from them."""

from pathlib import Path

import numpy as np

from tinyvid.evaluate import Scores
from tinyvid.reproduce.papers import TABLES
from tinyvid.reproduce.pictures import save_moving
from tinyvid.reproduce.results import (
    Explained,
    FusionRow,
    Results,
    Row,
    Sample,
    ShiftCurve,
    SizeRow,
    SizeTable,
    System,
    Table,
    by_clips,
    measured,
)
from tinyvid.shift import SHIFTS


def made_up_scores(videos: int = 20, clips: int = 3, classes: int = 6, seed: int = 0) -> Scores:
    rng = np.random.default_rng(seed)
    owners = np.repeat(np.arange(videos), clips)
    logits = rng.normal(size=(videos * clips, classes)).astype(np.float32)
    labels = owners % classes
    logits[np.arange(len(labels)), labels] += 1
    names = [f"video {i}" for i in range(videos)]
    starts = np.tile(np.arange(clips, dtype=np.float64), videos)
    return Scores(logits, labels, owners, starts, names, [f"class {c}" for c in range(classes)])


def made_up_results(folder: Path, data: str = "made up", videos: int = 20) -> Results:
    """Return results with every part, and write their pictures into the folder."""
    rng = np.random.default_rng(0)
    for name in ("clip", "flow", "gradient", "cam", "filters"):
        frames = rng.integers(0, 255, (5, 16, 16, 3)).astype(np.uint8)
        save_moving(frames, folder, name, 100)
    scores = made_up_scores(videos)
    found = measured(scores)
    log = [{"train_acc": 0.2 * e, "val_hit1": 0.1 * e, "epoch": e} for e in range(1, 5)]
    system = System(
        "slow fusion",
        "a 3-D CNN",
        found,
        by_clips(scores),
        np.eye(6, dtype=int).tolist(),
        1234,
        5_670_000,
        1.5,
        {"": log},
        "filters",
        Explained("class 1", 0.7, "gradient", "cam", "trunk.relu3"),
    )
    fused = System("an average", "of two", found, by_clips(scores), system.confusion)
    return Results(
        data,
        "tinyvid reproduce",
        [("Videos", "a few")],
        scores.classes,
        0.2,
        [
            Table(
                paper.key,
                paper.title,
                paper.of,
                list(paper.columns),
                [
                    Row(r.name, r.system, found if r.system else None, list(r.numbers))
                    for r in paper.rows
                ],
            )
            for paper in TABLES
        ],
        {"slow_fusion": system, "average": fused},
        [Sample("video 0", "class 0", "clip", "flow", {"slow_fusion": ("class 0", 0.9)})],
        [SizeTable("a network", [SizeRow("Conv3D", "3×4×5×5", "3×3×3")], 5, 7_000)],
        [FusionRow("early fusion", "12×60×3×3", 6480, "12×64×64", 26_542_080, "another filter")],
        [ShiftCurve("3-D CNN", {0: found.video_hit_1, 4: found.clip_hit_1})],
        {"3-D convolution": dict.fromkeys(SHIFTS, 0.0), "a pool": dict.fromkeys(SHIFTS, 0.75)},
    )
