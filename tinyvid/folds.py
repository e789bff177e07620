"""The folder of a cross-validation: the scores of each fold and seed, and what comes of them.

seed0-fold1-P1/test/        the results of a fold, as of any test
seed0-fold1-P1/test-val/    the scores of its validation part, where there is one
seed0/                      the results of a seed's folds together: every video counts once
crossval.csv                a row for each fold and seed
confusion.png               the counts of all seeds
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tinyvid.errors import UserError
from tinyvid.evaluate import Scores, hit_5, save_results
from tinyvid.metrics import Metrics, measure
from tinyvid.report import plot_confusion
from tinyvid.runs import write_csv

FOLD = re.compile(r"seed(\d+)-fold(\d+)(?:-(.+))?")


@dataclass
class CrossValidation:
    """The result: metrics of each fold of each seed.

    Attributes:
        folds: names of the folds. seeds: the seeds.
        metrics: by (seed, fold).
        pooled: by seed: all folds' clips together, so that every video counts once.
        majority: the share of the most frequent class: what a network scores that always
            answers with it.
    """

    folds: list[str]
    seeds: list[int]
    metrics: dict[tuple[int, str], Metrics]
    pooled: dict[int, Metrics]
    majority: float

    def mean(self) -> float:
        """The mean of the seeds' Video Hit@1."""
        return float(np.mean([m.video_hit_1 for m in self.pooled.values()]))

    def spread(self) -> float:
        """The standard deviation of the seeds' Video Hit@1 (n - 1); NaN for one seed."""
        hits = [m.video_hit_1 for m in self.pooled.values()]
        return float(np.std(hits, ddof=1)) if len(hits) > 1 else float("nan")


def fold_folder(seed: int, number: int, fold: str, by: str) -> str:
    """Return the name of a fold's folder; `number` counts the folds from 1."""
    name = f"seed{seed}-fold{number}"
    if by != "group":
        return name
    return f"{name}-{''.join(c if c.isalnum() or c in '._-' else '_' for c in fold)}"


def finished_folds(out: str | Path) -> dict[int, dict[str, Path]]:
    """Return the scores.npz of each fold, by seed and by the fold's name, in their order.

    The name is the group that a fold leaves out, or "1/3" for the first of three.

    Raises:
        UserError: there are none, or some are not finished.
    """
    out = Path(out)
    found: dict[int, dict[int, tuple[str, Path]]] = {}
    for folder in out.glob("seed*-fold*"):
        match = FOLD.fullmatch(folder.name)
        if match:
            file = folder / "test" / "scores.npz"
            found.setdefault(int(match[1]), {})[int(match[2])] = (match[3] or "", file)
    if not found:
        raise UserError(f"{out} is no cross-validation: it has no folder seed0-fold1")
    most = max(max(folds) for folds in found.values())
    result: dict[int, dict[str, Path]] = {}
    for seed, folds in sorted(found.items()):
        for number in range(1, most + 1):
            name, file = folds.get(number, ("", out))
            if not file.is_file():
                raise UserError(
                    f"{out}: fold {number} of seed {seed} is not finished: "
                    "the command that made the others goes on with it"
                )
            result.setdefault(seed, {})[name or f"{number}/{most}"] = file
    return result


def pool(parts: Sequence[Scores]) -> Scores:
    """Put the clips of several folds together; no video is in two of them."""
    offsets = np.cumsum([0] + [len(p.names) for p in parts[:-1]])
    return Scores(
        np.concatenate([p.logits for p in parts]),
        np.concatenate([p.labels for p in parts]),
        np.concatenate([p.videos + o for p, o in zip(parts, offsets, strict=True)]),
        np.concatenate([p.starts for p in parts]),
        [name for p in parts for name in p.names],
        parts[0].classes,
        parts[0].clips,
        parts[0].crops,
    )


def save_crossval(
    scores: Mapping[tuple[int, str], Scores], out: str | Path, fusion: str, title: str
) -> CrossValidation:
    """Write what comes of all folds' scores into `out`, and return it.

    Args:
        scores: by (seed, fold), seed by seed.
        title: what was tested, such as the network's name.
    """
    out = Path(out)
    seeds, folds = (list(dict.fromkeys(k)) for k in zip(*scores, strict=True))
    metrics = {key: measure(s.logits, s.labels, s.videos, fusion) for key, s in scores.items()}
    pooled: dict[int, Metrics] = {}
    rows: list[dict[str, object]] = []
    for seed in seeds:
        rows += [_row(seed, fold, metrics[seed, fold]) for fold in folds]
        together = pool([scores[seed, fold] for fold in folds])
        about = f"{title}, all folds, seed {seed}"
        pooled[seed] = save_results(together, fusion, about, out / f"seed{seed}")
        rows.append(_row(seed, "all", pooled[seed]))
    write_csv(out / "crossval.csv", rows)
    confusion = np.sum([m.confusion for m in pooled.values()], axis=0)
    counts = pooled[seeds[0]].confusion.sum(axis=1)
    result = CrossValidation(folds, seeds, metrics, pooled, counts.max() / counts.sum())
    named = f"seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    shown = f"{title}: Video Hit@1 {result.mean():.1%}, {named}"
    plot_confusion(confusion, together.classes, out / "confusion.png", shown)
    return result


def _row(seed: int, fold: str, m: Metrics) -> dict[str, object]:
    hit_at_5 = hit_5(m)
    return {
        "seed": seed,
        "fold": fold,
        "videos": m.videos,
        "clip_hit_1": round(m.clip_hit_1, 6),
        "video_hit_1": round(m.video_hit_1, 6),
        "video_hit_5": None if hit_at_5 is None else round(hit_at_5, 6),
        "mean_class_accuracy": round(m.mean_class, 6),
    }
