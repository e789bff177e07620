"""What is measured, worked out by hand, and that it comes back from its file as it was."""

import json
from dataclasses import replace

import numpy as np
import pytest
from small_results import made_up_results, made_up_scores

from tinyvid.errors import UserError
from tinyvid.metrics import bootstrap_interval, measure, wilson_interval
from tinyvid.reproduce.papers import KARPATHY, TABLES
from tinyvid.reproduce.results import Results, by_clips, measured, most_confused
from tinyvid.reproduce.systems import SYSTEMS


def test_shares_and_intervals_are_those_of_the_videos():
    scores = made_up_scores(60)
    found, known = measured(scores), measure(scores.logits, scores.labels, scores.videos)
    assert found.clip_hit_1.value == pytest.approx(known.clip_hit_1)
    assert found.video_hit_1.value == pytest.approx(known.video_hit_1)
    assert found.video_hit_5.value == pytest.approx(known.video_hit_k)
    assert (found.videos, found.clips, found.wilson) == (60, 180, None)
    right = scores.logits.argmax(axis=1) == scores.labels
    clips = right.reshape(60, 3).mean(axis=1)
    assert (found.clip_hit_1.low, found.clip_hit_1.high) == bootstrap_interval(clips)


def test_few_videos_get_the_other_interval_and_few_classes_no_hit_at_5():
    scores = made_up_scores(20, classes=5)
    found = measured(scores)
    assert found.wilson == wilson_interval(round(20 * found.video_hit_1.value), 20)
    assert found.video_hit_5 is None


def test_fewer_clips_are_spread_over_the_video():
    # Of five clips only the middle one is right, and so sure that it outweighs the others.
    scores = made_up_scores(4, clips=5, classes=2)
    wrong = np.where(scores.labels == 0, -1.0, 1.0)
    logits = np.stack([wrong, -wrong], axis=1).astype(np.float32)
    logits[2::5] *= -9
    found = by_clips(replace(scores, logits=logits))
    assert {n: s.value for n, s in found.items()} == {1: 1.0, 2: 0.0, 3: 0.0, 5: 0.0}
    logits[[0, 4, 5, 9, 10, 14, 15, 19]] *= 0.01  # the first and the last hardly count
    found = by_clips(replace(scores, logits=logits))
    assert {n: s.value for n, s in found.items()} == {1: 1.0, 2: 0.0, 3: 1.0, 5: 0.0}
    one = made_up_scores(4, clips=1)
    assert by_clips(one) == {}


def test_mistakes_are_told_the_most_frequent_first():
    counts = [[5, 0, 2], [3, 1, 0], [0, 2, 9]]
    wrong = [("b", "a", 3), ("a", "c", 2), ("c", "b", 2)]
    assert most_confused(counts, ["a", "b", "c"]) == wrong
    assert most_confused(counts, ["a", "b", "c"], most=1) == wrong[:1]
    assert counts[0][0] == 5


def test_results_come_back_as_they_were(tmp_path):
    results = made_up_results(tmp_path)
    results.save(tmp_path / "results.json")
    assert Results.load(tmp_path / "results.json") == results


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda d: d.update(format=0), "no results of this version"),
        (lambda d: d.pop("systems"), "damaged: 'systems'"),
        (lambda d: d.update(samples=3), "damaged"),
        (lambda d: d["tables"][0].pop("rows"), "damaged: 'rows'"),
    ],
)
def test_damaged_results_are_refused(tmp_path, change, told):
    made_up_results(tmp_path).save(tmp_path / "results.json")
    content = json.loads((tmp_path / "results.json").read_text())
    change(content)
    (tmp_path / "results.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=told):
        Results.load(tmp_path / "results.json")


def test_every_row_of_a_paper_has_its_numbers_and_a_system_that_there_is():
    for table in TABLES:
        for row in table.rows:
            assert len(row.numbers) == len(table.columns)
            assert row.system or any(n is not None for n in row.numbers)
            assert not row.system or row.system in SYSTEMS
    assert [row.numbers for row in KARPATHY.rows if row.name == "early fusion"] == [
        (38.9, 57.7, 76.8)
    ]
    shown = {row.system for table in TABLES for row in table.rows}
    assert set(SYSTEMS) <= shown
