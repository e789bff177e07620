"""Fusion against numbers worked by hand, and all that must not be fused."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from compare import assert_close
from test_cli import run

from tinyvid.errors import UserError
from tinyvid.evaluate import Scores, save_results
from tinyvid.folds import finished_folds, fold_folder
from tinyvid.fusion import aligned, average, fuse_by_svm, stacked
from tinyvid.fusion_sources import fuse_sources
from tinyvid.metrics import fuse, measure, softmax

CLASSES = ["a", "b", "c"]


@pytest.fixture(autouse=True)
def _unplotted(monkeypatch):
    """Pictures of confusion matrices take most of the time, and are tested where they are drawn."""
    for module in ("folds", "evaluate"):
        monkeypatch.setattr(f"tinyvid.{module}.plot_confusion", lambda *args: None)


def made(probabilities, labels, names, clips=1, classes=CLASSES) -> Scores:
    """Scores of `clips` clips of each video, one row of probabilities for each clip."""
    p = np.array(probabilities, float)
    videos = np.repeat(np.arange(len(names)), clips)
    starts = np.tile(np.arange(clips) / 2, len(names))
    labels = np.repeat(labels, clips)
    return Scores(np.log(p).astype(np.float32), labels, videos, starts, names, classes, clips, 1)


def noisy(labels, names, skill, seed, clips=2) -> Scores:
    """Scores of a network that is right as far as its skill goes."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(len(names) * clips, 3))
    logits[np.arange(len(logits)), np.repeat(labels, clips)] += skill
    return made(softmax(logits), labels, names, clips)


def test_average_by_hand():
    one = made([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [0, 1], ["x", "y"])
    two = made([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8]], [0, 1], ["x", "y"])
    parts = aligned([one, two], ["one", "two"])
    assert_close(softmax(average(parts).logits), [[0.4, 0.5, 0.1], [0.15, 0.3, 0.55]], atol=1e-6)
    weighted = softmax(average(parts, [3, 1]).logits)
    assert_close(weighted, [[0.5, 0.4, 0.1], [0.175, 0.4, 0.425]], atol=1e-6)
    assert_close(softmax(average(parts, [1, 0]).logits), softmax(one.logits), atol=1e-6)
    assert average(parts).names == ["x", "y"]


def test_videos_and_classes_come_in_one_order():
    one = made([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [0, 1], ["x", "y"])
    turned = made([[0.3, 0.2, 0.5], [0.1, 0.6, 0.3]], [2, 1], ["y", "x"], classes=["c", "a", "b"])
    first, second = aligned([one, turned], ["one", "two"])
    assert_close(first.logits, second.logits)
    assert_close(first.labels, second.labels)
    assert second.names == ["x", "y"]
    assert second.classes == CLASSES


def test_clips_are_fused_where_they_are_the_same():
    labels, names = [0, 1, 2, 1], ["v", "w", "x", "y"]
    one, two = noisy(labels, names, 1, 0), noisy(labels, names, 2, 1)
    parts = aligned([one, two], ["one", "two"])
    by_clip = average(parts, [1, 2])
    assert len(by_clip.logits) == 8
    other = replace(two, starts=two.starts + 0.1)
    by_video = average(aligned([one, other], ["one", "two"]), [1, 2])
    assert len(by_video.logits) == 4
    want = (fuse(one.logits, one.videos) + 2 * fuse(two.logits, two.videos)) / 3
    assert_close(fuse(by_clip.logits, by_clip.videos), want, atol=1e-6)
    assert_close(softmax(by_video.logits), want, atol=1e-6)
    assert len(average(parts, fusion="max").logits) == 4  # a maximum of means is another thing
    longer = noisy(labels, names, 2, 1, clips=5)
    assert len(average(aligned([one, longer], ["one", "two"])).logits) == 4


def test_a_probability_of_zero_stays_finite():
    sure = made([[1.0, 1e-300, 1e-300]], [0], ["x"])
    sure.logits = np.array([[0, -2e4, -2e4]], np.float32)
    found = average(aligned([sure, sure], ["one", "two"]))
    assert np.isfinite(found.logits).all()
    assert_close(softmax(found.logits), [[1.0, 0.0, 0.0]], atol=1e-30)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["x", "z"]}, "of different videos .*, 1 are in both; 1 only in B: z; 1 .* A: y"),
        (
            {"classes": ["a", "b", "d"]},
            "different classes .*, 2 are in both; 1 only in B: d; 1 only",
        ),
        ({"labels": np.array([0, 2])}, "B and A give 1 of 2 videos other classes: y"),
        ({"logits": np.array([[1, 2, 3], [1, np.nan, 3]])}, "B: 1 of 2 clips .*NaN.*first of 'y'"),
        ({"logits": np.array([[1, np.inf, 3], [1, 1, 3]])}, "B: 1 of 2 clips .*first of 'x'"),
        ({"logits": np.zeros((0, 3)), "videos": np.zeros(0, int)}, "B holds no scores"),
    ],
)
def test_what_does_not_belong_together(change, message):
    one = made([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [0, 1], ["x", "y"])
    with pytest.raises(UserError, match=message):
        aligned([one, replace(one, **change)], ["A", "B"])


@pytest.mark.parametrize(
    ("weights", "message"),
    [([1], "weights 1: give 2"), ([1, -1], "negative"), ([0, 0], "all of them are 0"),
     ([1, np.nan], "give 2")],
)  # fmt: skip
def test_weights_that_cannot_be(weights, message):
    one = made([[0.6, 0.3, 0.1]], [0], ["x"])
    with pytest.raises(UserError, match=message):
        average([one, one], weights)


def test_stacked_scores_have_norm_one_for_each_network():
    labels, names = [0, 1, 2, 1], ["v", "w", "x", "y"]
    x = stacked([noisy(labels, names, 1, 0), noisy(labels, names, 2, 1, clips=3)])
    assert x.shape == (4, 6)
    assert_close(np.linalg.norm(x[:, :3], axis=1), np.ones(4), rtol=1e-12)
    assert_close(np.linalg.norm(x[:, 3:], axis=1), np.ones(4), rtol=1e-12)


def test_the_svm_learns_which_network_to_trust():
    pytest.importorskip("sklearn")
    labels = np.arange(60) % 3
    names = [f"v{i:02}" for i in range(60)]
    good, bad = noisy(labels, names, 2, 0), noisy(labels, names, 0, 1)
    bad.logits *= 4  # sure of itself, and wrong
    train, test = (
        [subset(part, rows) for part in (good, bad)] for rows in (range(30), range(30, 60))
    )
    svm = fuse_by_svm(train, test)
    assert len(svm.logits) == 30
    assert svm.names == test[0].names

    def right(scores):
        return measure(scores.logits, scores.labels, scores.videos).video_hit_1

    assert right(svm) > right(average(test))
    assert_close(fuse_by_svm(train, test).logits, svm.logits)  # to the bit


def test_the_svm_of_two_classes_has_two_columns():
    pytest.importorskip("sklearn")
    p = [[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.1, 0.9]]
    train = made(p, [0, 0, 1, 1], list("pqrs"), classes=["a", "b"])
    test = made(p[::-1], [1, 1, 0, 0], list("tuvw"), classes=["a", "b"])
    found = fuse_by_svm([train], [test])
    assert found.logits.shape == (4, 2)
    assert_close(found.logits.argmax(axis=1), np.array([1, 1, 0, 0]))


def test_what_an_svm_must_not_learn_from(monkeypatch):
    one = made([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]], [0, 1], ["x", "y"])
    with pytest.raises(UserError, match="2 videos would both train the SVM and test it: x, y"):
        fuse_by_svm([one], [one])
    with pytest.raises(UserError, match="no video to learn 1 of 3 classes from: c"):
        fuse_by_svm([one], [replace(one, names=["p", "q"])])
    monkeypatch.setitem(sys.modules, "sklearn.svm", None)
    whole = made(np.full((3, 3), 1 / 3), [0, 1, 2], ["x", "y", "z"])
    with pytest.raises(UserError, match=r"needs scikit-learn: pip install 'tinyvid\[svm\]'"):
        fuse_by_svm([whole], [replace(whole, names=["p", "q", "r"])])


def subset(scores: Scores, videos) -> Scores:
    rows = np.flatnonzero(np.isin(scores.videos, list(videos)))
    return replace(
        scores,
        logits=scores.logits[rows],
        labels=scores.labels[rows],
        videos=scores.videos[rows] - min(videos),
        starts=scores.starts[rows],
        names=[scores.names[i] for i in videos],
    )


@pytest.fixture
def crossvals(tmp_path) -> list[Path]:
    """Two cross-validations of three groups and two seeds; the second network is the better."""
    labels = np.arange(36) % 3
    names = [f"v{i:02}" for i in range(36)]
    for which, skill in (("one", 1.0), ("two", 1.5)):
        for seed in (0, 1):
            whole = noisy(labels, names, skill, [seed, which == "two"])
            for number, fold in enumerate(("ann", "ben", "cy"), start=1):
                part = subset(whole, range(12 * number - 12, 12 * number))
                folder = tmp_path / which / fold_folder(seed, number, fold, "group") / "test"
                folder.mkdir(parents=True)
                part.save(folder / "scores.npz")
    return [tmp_path / "one", tmp_path / "two"]


def scores_of(folder: Path, seed=0, fold="ann") -> Scores:
    return Scores.load(finished_folds(folder)[seed][fold])


def test_cross_validations_are_fused_fold_by_fold(crossvals, tmp_path):
    found = fuse_sources(crossvals, tmp_path / "out", weights=[1, 3])
    assert found.by_clip
    assert found.crossval.folds == ["ann", "ben", "cy"]
    assert found.crossval.seeds == [0, 1]
    for seed in (0, 1):
        parts = [scores_of(f, seed, "ben") for f in crossvals]
        want = sum(w * fuse(p.logits, p.videos) for w, p in zip((0.25, 0.75), parts, strict=True))
        got = scores_of(tmp_path / "out", seed, "ben")
        assert_close(fuse(got.logits, got.videos), want, atol=1e-6)
    pooled = Scores.load(tmp_path / "out" / "seed1" / "scores.npz")
    assert pooled.names == [f"v{i:02}" for i in range(36)]
    assert measure(pooled.logits, pooled.labels, pooled.videos).video_hit_1 == pytest.approx(
        found.crossval.pooled[1].video_hit_1
    )
    with open(tmp_path / "out" / "crossval.csv", newline="") as file:
        assert len(list(csv.DictReader(file))) == 2 * 4
    again = fuse_sources([tmp_path / "out", crossvals[0]], tmp_path / "again")
    assert len(again.alone["out" if "out" in again.alone else str(tmp_path / "out")]) == 2


def test_the_svm_of_a_fold_never_sees_its_videos(crossvals, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    seen = []

    def spy(train, test, fusion):
        seen.append((set(train[0].names), set(test[0].names)))
        return fuse_by_svm(train, test, fusion)

    monkeypatch.setattr("tinyvid.fusion_sources.fuse_by_svm", spy)
    found = fuse_sources(crossvals, tmp_path / "out", method="svm")
    assert "other folds" in found.learnt_from
    assert len(seen) == 6
    assert all(len(train) == 24 and len(test) == 12 for train, test in seen)
    assert not any(train & test for train, test in seen)
    assert found.crossval.mean() > 0.6
    about = json.loads((tmp_path / "out" / "fusion.json").read_text())
    assert about["svm_learnt_from"] == found.learnt_from


def test_the_svm_prefers_the_validation_parts(crossvals, tmp_path):
    pytest.importorskip("sklearn")
    for folder in crossvals:
        for fold in folder.iterdir():
            seed, number = int(fold.name[4]), int(fold.name.split("-")[1][4:])
            val = scores_of(folder, seed, ("ann", "ben", "cy")[number % 3])
            (fold / "test-val").mkdir()
            val.save(fold / "test-val" / "scores.npz")
    found = fuse_sources(crossvals, tmp_path / "out", method="svm")
    assert found.learnt_from.startswith("the validation parts")
    # where a network was validated on other videos, the other folds take their place
    lacking = crossvals[0] / "seed0-fold1-ann" / "test-val" / "scores.npz"
    whole = Scores.load(lacking)
    subset(whole, range(6)).save(lacking)
    again = fuse_sources(crossvals, tmp_path / "again", method="svm")
    assert "other folds" in again.learnt_from


def test_single_tests_and_their_validation_parts(crossvals, tmp_path):
    pytest.importorskip("sklearn")
    runs = [tmp_path / name for name in ("run_a", "run_b")]
    for run_, folder in zip(runs, crossvals, strict=True):
        save_results(scores_of(folder), "mean_prob", "a test", run_ / "test")
    with pytest.raises(UserError, match=r"--part val.*test-val/scores.npz does not exist"):
        fuse_sources(runs, tmp_path / "none", method="svm")
    for run_, folder in zip(runs, crossvals, strict=True):
        save_results(scores_of(folder, 0, "cy"), "mean_prob", "a test", run_ / "test-val")
    found = fuse_sources(runs, tmp_path / "svm", method="svm")
    assert found.learnt_from.startswith("the validation parts")
    assert found.crossval is None
    assert len(Scores.load(tmp_path / "svm" / "test" / "scores.npz").logits) == 12
    files = [runs[0] / "test", runs[1] / "test" / "scores.npz"]
    average_ = fuse_sources(files, tmp_path / "average")
    assert average_.title == "average of run_a, run_b"
    assert (
        fuse_sources([tmp_path / "average", tmp_path / "svm"], tmp_path / "b").fused[0].videos == 12
    )


def test_what_cannot_be_fused(crossvals, tmp_path):
    one, two = crossvals
    out = tmp_path / "out"
    single = one / "seed0-fold1-ann"
    for paths, message in (
        ([one], "at least two"),
        ([one, one], "given twice"),
        ([one, single], "is a single test and .* a cross-validation.*one/seed0"),
        ([one, tmp_path / "nowhere"], "nowhere holds no scores: give"),
        ([single, two / "seed0-fold2-ben"], r"different videos \(of another split.*0 are in both"),
    ):
        with pytest.raises(UserError, match=message):
            fuse_sources(paths, out)
    with pytest.raises(UserError, match="weights 1: give 2"):
        fuse_sources(crossvals, out, weights=[1])
    with pytest.raises(UserError, match="finds its own"):
        fuse_sources(crossvals, out, weights=[1, 2], method="svm")
    with pytest.raises(UserError, match="method='vote'"):
        fuse_sources(crossvals, out, method="vote")
    assert not out.exists()
    with pytest.raises(UserError, match="one holds something else, not average of one, two"):
        fuse_sources(crossvals, one)
    fuse_sources(crossvals, out)
    fuse_sources(crossvals, out)  # the same again
    with pytest.raises(UserError, match=r"out holds average of one, two, not .*one \(1\)"):
        fuse_sources(crossvals, out, weights=[1, 2])


def test_cross_validations_that_do_not_fit(crossvals, tmp_path):
    one, two = crossvals
    (two / "seed0-fold2-ben" / "test" / "scores.npz").unlink()
    with pytest.raises(UserError, match="two: fold 2 of seed 0 is not finished"):
        fuse_sources(crossvals, tmp_path / "out")
    for fold in two.iterdir():
        fold.rename(two / fold.name.replace("seed0", "seed7").replace("seed1", "seed8"))
    (two / "seed7-fold2-ben" / "test").rmdir()
    scores_of(one, 0, "ben").save(make(two / "seed7-fold2-ben" / "test") / "scores.npz")
    with pytest.raises(UserError, match=r"no seed in common: .*one has 0, 1; .*two has 7, 8"):
        fuse_sources(crossvals, tmp_path / "out")
    for fold in two.iterdir():
        fold.rename(two / fold.name.rpartition("-")[0])
    with pytest.raises(UserError, match=r"has the folds ann, ben, cy and .* 1/3, 2/3, 3/3"):
        fuse_sources(crossvals, tmp_path / "out")


def make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def test_the_command(crossvals, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run("fuse", "one", "two", "--weights", "1,2")
    assert result.exit_code == 0, result.output
    assert "average of one (1), two (2)" in result.stdout
    assert "in runs/fused-one+two-1,2: crossval.csv" in result.stdout
    assert (tmp_path / "runs" / "fused-one+two-1,2" / "seed0" / "videos.csv").exists()
    result = run("fuse", "one/seed0", "two/seed0-fold1-ann", "--out", "x")
    assert result.exit_code == 2
    assert "one/seed0 holds no scores" in result.output
    result = run(
        "fuse", "one/seed0-fold1-ann", "two/seed0-fold1-ann", "--fusion", "max", "--out", "y"
    )
    assert result.exit_code == 0, result.output
    assert "each video was fused as a whole" in " ".join(result.stdout.split())
    for option, message in (("--weights", "--weights 1;2: give numbers"), ("--fusion", "--fusion")):
        result = run("fuse", "one", "two", option, "1;2")
        assert (result.exit_code, message in result.output) == (2, True)
