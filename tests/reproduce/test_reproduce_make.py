"""The whole command on tiny videos: what it leaves, what it keeps, and what it refuses."""

import json
from pathlib import Path

import pytest
from small_training import TINY
from typer.testing import CliRunner

from tinyvid.cli import app
from tinyvid.data import write_verbs
from tinyvid.errors import UserError
from tinyvid.reproduce import Plan, Results, make, reproduce, work
from tinyvid.runs import locked

SYSTEMS = ("single_frame", "slow_fusion", "cnn_average")
KEYS = ("data.options.size=32", "clip.height=32", "clip.width=32", "run.epochs=1")
TINY_KEYS = tuple(key for key in TINY if key.split("=")[0] not in {k.split("=")[0] for k in KEYS})
VERBS = (*TINY_KEYS, *KEYS)
FILES = (*(key for key in VERBS if not key.startswith("data.")), "data.workers=0")


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("reproduced")
    reproduce(Plan("verbs", out, overrides=VERBS, clips=2, systems=("single_frame", "slow_fusion")))
    return out


def test_it_leaves_a_report_and_every_number(made):
    results = Results.load(made / "results.json")
    assert list(results.systems) == ["single_frame", "slow_fusion"]
    assert results.classes == ["move_left", "move_right"]
    assert "Left out" not in dict(results.facts)
    tested = results.systems["slow_fusion"]
    scores = json.loads((made / "runs" / "slow_fusion" / "test" / "metrics.json").read_text())
    assert tested.measured.video_hit_1.value == scores["video_hit_1"]
    assert tested.measured.videos == scores["videos"]
    assert tested.measured.video_hit_5 is None
    assert list(tested.by_clips) == [1, 2]
    assert len(tested.log[""]) == 1
    assert tested.filters
    rows = {row.name: row.measured for table in results.tables for row in table.rows}
    assert rows["slow fusion (3-D CNN)"] == tested.measured
    assert rows["early fusion"] is None
    assert [s.truth for s in results.samples] == results.classes
    report = (made / "report.html").read_text(encoding="utf-8")
    assert f"{100 * scores['video_hit_1']:.1f}" in report
    assert len(list((made / "pictures").glob("*.webp"))) == 2 * (4 + 4 + 1)
    for picture in ("sample1-flow", "slow_fusion-cam", "slow_fusion-filters"):
        assert (made / "pictures" / f"{picture}.webp").exists()
        assert (made / "pictures" / f"{picture}-still.webp").exists()


def test_what_is_finished_is_kept(made, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("this was finished")

    monkeypatch.setattr(work, "fit", refuse)
    before = json.loads((made / "results.json").read_text())
    told = []
    reproduce(Plan("verbs", made, overrides=VERBS, clips=2, systems=SYSTEMS[:2]), told.append)
    after = json.loads((made / "results.json").read_text())
    for result in (before, after):
        for system in result["systems"].values():
            assert system.pop("milliseconds") > 0  # the only thing that differs
    assert after == before
    assert told[1].startswith("2/2 slow fusion: Video Hit@1")


def test_another_config_is_refused(made):
    other = (*VERBS, "optim.lr=0.1")
    with pytest.raises(UserError, match=r"was started with optim\.lr"):
        reproduce(Plan("verbs", made, overrides=other, clips=2, systems=SYSTEMS[:1]))


def test_two_at_once_do_no_harm(made):
    with locked(made), pytest.raises(UserError, match="by another process"):
        reproduce(Plan("verbs", made, overrides=VERBS, clips=2, systems=SYSTEMS[:1]))


def test_a_stopped_one_goes_on(tmp_path, monkeypatch):
    plan = Plan("verbs", tmp_path, overrides=VERBS, clips=2, systems=SYSTEMS[:1])
    score = work.score

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "score", stop)
    with pytest.raises(KeyboardInterrupt):
        reproduce(plan)
    assert not (tmp_path / "report.html").exists()
    monkeypatch.setattr(work, "score", score)
    monkeypatch.setattr(make.gallery, "explain", lambda *args: None)
    plan.systems = ("single_frame", "cnn_average")
    results = reproduce(plan)
    assert list(results.systems) == ["single_frame"]
    assert dict(results.facts)["Left out"] == "CNN average"


def four_videos(folder):
    """Write two videos of two classes, one of each by each of two people."""
    made = write_verbs(folder / "made", 2, size=32, frames=9, codec="mpeg4")
    for verb in ("grow", "shrink"):
        for i, file in enumerate(sorted((made / verb).iterdir())):
            place = folder / "videos" / verb / ("anna", "ben")[i] / file.name
            place.parent.mkdir(parents=True)
            file.rename(place)
    return str(folder / "videos")


def test_files_are_tested_fold_by_fold(tmp_path):
    plan = Plan(four_videos(tmp_path), tmp_path / "out", overrides=FILES, clips=2)
    plan.systems = SYSTEMS[1:2]
    results = reproduce(plan)
    assert plan.by == "group"
    assert results.data == "videos"
    assert results.systems["slow_fusion"].measured.videos == 4
    assert list(results.systems["slow_fusion"].log) == ["anna", "ben"]
    folds = sorted(p.name for p in (tmp_path / "out" / "runs" / "slow_fusion").glob("seed0-fold*"))
    assert folds == ["seed0-fold1-anna", "seed0-fold2-ben"]


def test_the_two_streams_and_their_average(tmp_path):
    plan = Plan(four_videos(tmp_path), tmp_path / "out", overrides=FILES, clips=2)
    plan.systems = ("single_frame", "temporal_stream", "two_stream")
    results = reproduce(plan)
    table = next(table for table in results.tables if table.key == "two_stream")
    filled = {row.system: row.measured for row in table.rows if row.measured is not None}
    assert list(filled) == ["single_frame", "temporal_stream", "two_stream"]
    assert filled["temporal_stream"].clips == 8
    assert filled["two_stream"].clip_hit_1 is None  # the streams' clips differ
    assert results.systems["temporal_stream"].explained is not None
    assert "of the temporal stream" in dict(results.facts)["Clips"]
    assert len(list((tmp_path / "out" / "flow").glob("*.flow"))) == 4  # kept, each video's once
    assert Results.load(tmp_path / "out" / "results.json") == results


def test_what_a_fusion_lacks_and_what_takes_too_long_is_left_out(tmp_path, monkeypatch):
    plan = Plan("verbs", tmp_path, quick=True)
    assert {"cnn_average", "slow_fusion"} <= set(plan.entries())
    assert "histograms" not in plan.entries()
    assert "histograms" in Plan("verbs", tmp_path).entries()
    assert "cnn_average" not in Plan("verbs", tmp_path, systems=SYSTEMS).entries()
    with pytest.raises(UserError, match=r"no system 'slow_fusio'.*slow_fusion"):
        Plan("verbs", tmp_path, systems=("slow_fusio",)).entries()
    monkeypatch.setattr(work, "find_spec", lambda name: None)
    told = []
    plan = Plan("verbs", tmp_path)
    plan.listener.note = told.append
    assert "fisher" not in plan.entries()
    assert "pip install 'tinyvid[svm]'" in " ".join(told)


def test_the_command_says_what_is_wrong(tmp_path):
    command = ["reproduce", "--data", str(tmp_path / "nowhere"), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "nowhere" in result.stderr
