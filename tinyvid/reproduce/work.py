"""Training and testing what the tables need; whatever is finished is kept and found again.

OUT/runs/NAME/         the run of a network, or its cross-validation
OUT/runs/NAME/test/    its scores, as `tinyvid test` leaves them
OUT/cells, OUT/flow    features made by hand, and optical flow, of each video

On `verbs` a network is trained once and tested on new videos; on any other data each group is
tested by a network that has never seen it.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tinyvid.config import Config, load_config
from tinyvid.crossval import cross_validate, fold_names
from tinyvid.data import VideoSet
from tinyvid.data.memory import KeptSet
from tinyvid.errors import UserError, nearest
from tinyvid.evaluate import Scores, open_videos, save_results, score, videos_to_test
from tinyvid.folds import fold_folder
from tinyvid.reproduce.systems import SYSTEMS, Baseline, Fusion, System, Trained
from tinyvid.runs import Run, input_of
from tinyvid.train import Listener, check_same_config, fit

SEED = 0

SLOW_FUSION = Trained("slow_fusion", "", "")  # whose data and clips features made by hand get

# A smaller training, in which the order of the networks shows; the numbers are not their best.
QUICK_VERBS = ("data.options.per_class=200", "run.epochs=5")
QUICK = ("run.epochs=10",)
SHIFTED = ("early_fusion", "slow_fusion")  # what the shift experiment compares
FEW_FOLDS = 3  # of a cross-validation, unless asked for others


@dataclass
class Plan:
    """What to reproduce, on which data, how.

    Attributes:
        data: as `--data`. out: the folder of everything.
        by: folds of the cross-validation, see `tinyvid.crossval`; by default three, by whole
            groups.
        config, overrides: of every network's config, after what suits the data.
        clips: of each video in tests.
        systems: keys of `SYSTEMS`; a fusion is left out where one of its parts is.
    """

    data: str
    out: Path
    quick: bool = False
    by: str = ""
    config: Path | None = None
    overrides: Sequence[str] = ()
    clips: int = 10
    systems: Sequence[str] = tuple(SYSTEMS)
    listener: Listener = field(default_factory=Listener)

    @property
    def generated(self) -> bool:
        """Whether the data are the synthetic verbs, of which there always are new ones."""
        return self.data == "verbs"

    @property
    def shifts(self) -> bool:
        """Whether the shift experiment is made: it takes videos whose moment can be chosen."""
        return self.generated and not self.quick and set(SHIFTED) <= set(self.systems)

    def entries(self) -> dict[str, System]:
        """Return what is to be trained and fused, in order.

        Left out are what `quick` has no time for, what needs a package that is not there, and
        fusions of what is left out.

        Raises:
            UserError: a name is not known.
        """
        for name in self.systems:
            if name not in SYSTEMS:
                near = nearest(name, SYSTEMS)
                raise UserError(f"no system {name!r}: there are {', '.join(SYSTEMS)}.{near}")
        chosen: dict[str, System] = {}
        for name, entry in SYSTEMS.items():
            slow = self.quick and self.generated and not entry.quick
            parts = entry.parts if isinstance(entry, Fusion) else ()
            if name in self.systems and not slow and set(parts) <= set(chosen):
                if entry.needs is None or find_spec(entry.needs[0]) is not None:
                    chosen[name] = entry
                else:
                    extra = f"pip install 'tinyvid[{entry.needs[1]}]'"
                    self.listener.note(f"{entry.label} is left out, it needs {extra}")
        return chosen

    def folder(self, name: str) -> Path:
        """Return the folder of a system."""
        return self.out / "runs" / name

    def config_of(self, entry: Trained) -> Config:
        """Return the config of a network's runs.

        Raises:
            UserError: as `load_config`.
        """
        quick = (QUICK_VERBS if self.generated else QUICK) if self.quick else ()
        held = () if self.generated else ("data.val_fraction=0",)
        named = {"model.name": entry.model, "data.path": self.data, "run.seed": SEED}
        overrides = [*held, *quick, *entry.overrides, *self.overrides]
        config = load_config(self.config, overrides, named)
        if input_of(config) == "flow" and config.data.cache is None:
            config.data.cache = str(self.out / "flow")
        return config


def run_system(name: str, plan: Plan, videos: VideoSet) -> Path:
    """Train, test or fuse what is not finished; return the folder with `scores.npz`."""
    entry, folder = SYSTEMS[name], plan.folder(name)
    if isinstance(entry, Fusion):
        return _fuse(entry, plan, folder)
    if isinstance(entry, Baseline):
        return _baseline(entry, plan, folder)
    config = plan.config_of(entry)
    if plan.generated:
        return _train_and_test(config, folder, videos, plan)
    cross_validate(
        config,
        folder,
        by=plan.by,
        seeds=(SEED,),
        clips=plan.clips,
        videos=videos,
        listener=plan.listener,
    )
    return folder / f"seed{SEED}"


def _train_and_test(config: Config, folder: Path, videos: VideoSet, plan: Plan) -> Path:
    test = folder / "test"
    if (test / "scores.npz").exists():
        check_same_config(Run.open(folder).config, config, folder)
        if Scores.load(test / "scores.npz").clips == plan.clips:
            return test
    began = (folder / "config.toml").exists()
    result = fit(config, folder, videos=videos, resume=began, listener=plan.listener)
    parts = {"test-val": result.run.part(videos, "val"), "test": videos_to_test(result.run)[0]}
    for place, part in parts.items():  # the last one says: finished
        if len(part):
            found = score(result.model, part, config, clips=plan.clips)
            save_results(found, "mean_prob", f"{config.model.name}, {place}", folder / place)
    return test


def _baseline(entry: Baseline, plan: Plan, folder: Path) -> Path:
    from tinyvid.features import cross_validate_baseline, fit_baseline

    config, cache = plan.config_of(SLOW_FUSION), plan.out / "cells"
    if not plan.generated:
        cross_validate_baseline(
            entry.name, config, folder, by=plan.by, seeds=(SEED,), clips=plan.clips, cache=cache
        )
        return folder / f"seed{SEED}"
    if not (folder / "test" / "scores.npz").exists():
        fit_baseline(entry.name, config, folder, clips=plan.clips, cache=cache)
    return folder / "test"


def _fuse(entry: Fusion, plan: Plan, folder: Path) -> Path:
    """Fuse the scores of other systems; it takes no time, so that it is done anew each time."""
    from tinyvid.fusion_sources import fuse_sources

    if folder.exists():
        shutil.rmtree(folder)
    parts = [plan.folder(part) for part in entry.parts]
    fuse_sources(parts, folder, method=entry.method)
    return folder / ("test" if plan.generated else f"seed{SEED}")


def trained_runs(name: str, plan: Plan, videos: VideoSet) -> dict[str, Run]:
    """Return the finished runs of a network: one, or one for each fold, by the fold's name."""
    if plan.generated:
        return {"": Run.open(plan.folder(name))}
    folds = fold_names(videos, plan.by)
    return {
        fold: Run.open(plan.folder(name) / fold_folder(SEED, number, fold, plan.by))
        for number, fold in enumerate(folds, start=1)
    }


def test_videos(run: Run, plan: Plan, videos: VideoSet) -> VideoSet:
    """Return the videos that a run was tested on."""
    return videos_to_test(run)[0] if plan.generated else run.part(videos, "test")


def open_plan(plan: Plan) -> VideoSet:
    """Open the data of a plan, and choose its folds where they are left open.

    Raises:
        UserError: they cannot be used.
    """
    config = plan.config_of(next(e for e in plan.entries().values() if isinstance(e, Trained)))
    if config.data.path != plan.data:
        raise UserError(f"--data {plan.data}: the config names other data, {config.data.path}")
    videos = open_videos(config, progress=plan.listener.reading)
    plan.listener.opened(videos)
    if plan.generated:  # making a video takes longer than a step of training with it
        videos = KeptSet(videos)
    if not plan.by:
        groups = len({video.group for video in videos.videos})
        plan.by = "group" if groups <= FEW_FOLDS else str(FEW_FOLDS)
    return videos
