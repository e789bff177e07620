"""What a fusion reads, and what it leaves: in the same form, so that it can be fused again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tinyvid.data.sets import listed
from tinyvid.errors import UserError
from tinyvid.evaluate import Scores, save_results
from tinyvid.folds import CrossValidation, finished_folds, pool, save_crossval
from tinyvid.fusion import aligned, average, check_weights, fuse_by_svm, same_clips
from tinyvid.metrics import Metrics, measure
from tinyvid.runs import make_folder, read_json, write_json

ABOUT = "fusion.json"  # says what was fused

METHODS = ("average", "svm")

VALIDATION = "the validation parts, which no network was trained on"
OTHER_FOLDS = (
    "the other folds' tests: no network was trained on the video that it scores there, though on "
    "videos of the fold under test it was; scores of a validation part (data.val_fraction) are "
    "free of that"
)


Key = tuple[int, str]  # seed and fold
SINGLE: Key = (0, "")  # of a single test


@dataclass
class Source:
    """Saved scores: one file, or one for each fold of each seed of a cross-validation.

    Attributes:
        name: as it was given.
        files: by seed and fold; with the key SINGLE if it is a single test.
    """

    name: str
    files: dict[Key, Path]

    @classmethod
    def open(cls, path: str | Path) -> Source:
        """Find the scores in a cross-validation, a run that was tested, a test's folder, or a file.

        Raises:
            UserError: there are none, or a fold is not finished.
        """
        path = Path(path)
        if path.is_dir() and any(path.glob("seed*-fold*")):
            found = finished_folds(path)
            return cls(str(path), {(s, f): file for s in found for f, file in found[s].items()})
        for file in (path, path / "scores.npz", path / "test" / "scores.npz"):
            if file.is_file():
                return cls(str(path), {SINGLE: file})
        raise UserError(
            f"{path} holds no scores: give a scores.npz, a cross-validation, or a run that "
            "tinyvid test has tested"
        )


@dataclass
class Fused:
    """What a fusion found.

    Attributes:
        alone: the metrics of each source by itself, by its name: a list with one for each seed.
        fused: the same of the fusion.
        crossval: of cross-validations, all of it.
        learnt_from: of an SVM, which videos it was trained on.
        by_clip: whether clip was fused with clip.
    """

    title: str
    classes: list[str]
    alone: dict[str, list[Metrics]]
    fused: list[Metrics]
    crossval: CrossValidation | None
    learnt_from: str
    by_clip: bool


def fuse_sources(
    paths: Sequence[str | Path],
    out: str | Path,
    *,
    method: str = "average",
    weights: Sequence[float] | None = None,
    fusion: str = "mean_prob",
) -> Fused:
    """Fuse saved scores, and write the results into `out` as a test or a cross-validation does.

    Cross-validations are fused fold by fold, for each seed that all of them have. An SVM learns,
    for each fold, from scores that the networks gave to videos that they were not trained on, and
    none of which is in that fold: those of the fold's validation part where every source has them
    for the same videos, else those of the other folds.

    Args:
        paths: two or more; see `Source.open`.
        method: "average" or "svm".
        weights: of an average, one for each path.
        fusion: how clips become a video.

    Raises:
        UserError: as `tinyvid.fusion`; or the sources are not of one kind, `out` has other
            results in it, or there are no scores that an SVM may learn from.
    """
    if method not in METHODS:
        raise UserError(f"method={method!r}: give one of {', '.join(METHODS)}")
    if len(paths) < 2:
        raise UserError("a fusion needs the scores of at least two")
    if weights is not None and method == "svm":
        raise UserError("weights are of an average: an SVM finds its own")
    if len({Path(path).resolve() for path in paths}) < len(paths):
        raise UserError("one of the scores is given twice: give it more weight instead")
    check_weights(weights, len(paths))
    sources = [Source.open(path) for path in paths]
    keys = _common_keys(sources)
    title = _title(paths, method, weights, fusion)
    _check_out(Path(out), title)
    tests = {key: _read(sources, [s.files[key] for s in sources]) for key in keys}
    learnt_from = ""
    if method == "average":
        scores = {key: average(parts, weights, fusion) for key, parts in tests.items()}
    else:
        scores, learnt_from = _by_svm(sources, tests, fusion)
    out = make_folder(out)
    write_json(out / ABOUT, {"of": title, "svm_learnt_from": learnt_from or None})
    crossval = None
    if SINGLE in scores:
        fused = [save_results(scores[SINGLE], fusion, title, out / "test")]
    else:
        for key, one in scores.items():
            folder = out / sources[0].files[key].parent.parent.name / "test"
            one.save(make_folder(folder) / "scores.npz")
        crossval = save_crossval(scores, out, fusion, title)
        fused = list(crossval.pooled.values())
    return Fused(
        title,
        next(iter(scores.values())).classes,
        _alone(sources, tests, fusion),
        fused,
        crossval,
        learnt_from,
        method == "average" and fusion == "mean_prob" and all(map(same_clips, tests.values())),
    )


def _common_keys(sources: Sequence[Source]) -> list[Key]:
    """The folds of the seeds that all sources have.

    Raises UserError if they are of different kinds or folds, or have no seed in common.
    """
    kinds = [SINGLE in s.files for s in sources]
    if any(kinds) and not all(kinds):
        one, many = sources[kinds.index(True)].name, sources[kinds.index(False)].name
        raise UserError(
            f"{one} is a single test and {many} a cross-validation: give either; the scores of a "
            f"seed's folds together are in {Path(many) / 'seed0'}"
        )
    for source in sources[1:]:
        folds = [list(dict.fromkeys(fold for _, fold in s.files)) for s in (sources[0], source)]
        if folds[0] != folds[1]:
            raise UserError(
                f"{sources[0].name} has the folds {listed(folds[0])} and {source.name} "
                f"{listed(folds[1])}: fuse cross-validations of the same folds"
            )
    keys = [key for key in sources[0].files if all(key in s.files for s in sources)]
    if not keys:
        seeds = [sorted({str(seed) for seed, _ in s.files}) for s in sources]
        raise UserError(
            "the cross-validations have no seed in common: "
            + "; ".join(f"{s.name} has {', '.join(n)}" for s, n in zip(sources, seeds, strict=True))
        )
    return keys


def _read(sources: Sequence[Source], files: Sequence[Path]) -> list[Scores]:
    """Load the files, one of each source, and bring them into one order."""
    single = [SINGLE in s.files for s in sources]
    names = [s.name if one else str(f) for s, f, one in zip(sources, files, single, strict=True)]
    return aligned([Scores.load(file) for file in files], names)


def _by_svm(
    sources: Sequence[Source], tests: dict[Key, list[Scores]], fusion: str
) -> tuple[dict[Key, Scores], str]:
    """Return the fused scores, and which videos the SVM learnt from."""
    try:
        held = {key: _read(sources, [_validation(s.files[key]) for s in sources]) for key in tests}
        return {key: fuse_by_svm(held[key], tests[key], fusion) for key in tests}, VALIDATION
    except UserError as error:
        if SINGLE in tests:
            raise UserError(
                f"an SVM learns from scores of the validation part, in which tinyvid test RUN "
                f"--part val puts them; fuse runs that have it: {error}"
            ) from error
    fused = {}
    for seed, fold in tests:
        others = [parts for (s, f), parts in tests.items() if s == seed and f != fold]
        train = [pool(column) for column in zip(*others, strict=True)]
        fused[seed, fold] = fuse_by_svm(train, tests[seed, fold], fusion)
    return fused, OTHER_FOLDS


def _validation(test: Path) -> Path:
    """Where the scores of a run's validation part are, beside those of its test."""
    return test.parent.parent / "test-val" / "scores.npz"


def _alone(
    sources: Sequence[Source], tests: dict[Key, list[Scores]], fusion: str
) -> dict[str, list[Metrics]]:
    """The metrics of each source by itself, seed by seed."""
    result: dict[str, list[Metrics]] = {}
    for i, source in enumerate(sources):
        for seed in dict.fromkeys(seed for seed, _ in tests):
            together = pool([parts[i] for (s, _), parts in tests.items() if s == seed])
            found = measure(together.logits, together.labels, together.videos, fusion)
            result.setdefault(source.name, []).append(found)
    return result


def short_names(paths: Sequence[str | Path]) -> list[str]:
    """Return the names of the runs that the scores lie in; whole paths where these are the same."""
    names = []
    for path in map(Path, paths):
        folder = path.resolve() if path.suffix != ".npz" else path.resolve().parent
        names.append(folder.parent.name if folder.name.startswith("test") else folder.name)
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _title(
    paths: Sequence[str | Path], method: str, weights: Sequence[float] | None, fusion: str
) -> str:
    names = short_names(paths)
    if weights is not None:
        names = [f"{name} ({w:g})" for name, w in zip(names, weights, strict=True)]
    how = "" if fusion == "mean_prob" else f", clips by {fusion}"
    return f"{'linear SVM on' if method == 'svm' else 'average of'} {', '.join(names)}{how}"


def _check_out(out: Path, title: str) -> None:
    """Refuse a folder with anything else in it, be it another fusion."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    there = read_json(out / ABOUT).get("of") if (out / ABOUT).is_file() else "something else"
    if there != title:
        raise UserError(f"{out} holds {there}, not {title}: choose another --out")
