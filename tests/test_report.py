"""Pictures: that they are drawn, and that what they show is where it should be."""

import numpy as np
import pytest
from matplotlib.image import imread

from tinyvid.errors import UserError
from tinyvid.report import TRAIN, VAL, _confusion, _curves, _style, plot_confusion, plot_curves


def rows(count: int, val: bool = True) -> list[dict]:
    return [
        {
            "epoch": e,
            "lr": 1e-3 / e,
            "train_loss": 2 / e,
            "train_acc": 1 - 1 / (e + 1),
            "val_loss": 2.1 / e if val else None,
            "val_hit1": 0.5 if val else None,
        }
        for e in range(1, count + 1)
    ]


@pytest.mark.parametrize(("count", "val"), [(1, True), (2, False), (30, True)])
def test_curves_are_drawn(tmp_path, count, val):
    plot_curves(rows(count, val), tmp_path / "c.png", "a title")
    picture = imread(tmp_path / "c.png")
    assert picture.shape[0] > 300
    assert picture.shape[1] > 900
    assert np.ptp(picture[..., 0]) > 0.5


def test_curves_show_the_rows():
    with _style():
        loss, hit, lr = _curves(rows(3), "").axes
    lines = {(a, line.get_label()): line.get_ydata() for a in (loss, hit, lr) for line in a.lines}
    assert np.allclose(lines[loss, "training"], [2, 1, 2 / 3])
    assert np.allclose(lines[loss, "validation"], [2.1, 1.05, 0.7])
    assert np.allclose(lines[hit, "training clips"], [50, 200 / 3, 75])
    assert np.allclose(lines[hit, "validation videos"], [50, 50, 50])
    assert [line.get_color() for line in loss.lines] == [TRAIN, VAL]
    assert sorted(t.get_text() for t in loss.texts) == ["training", "validation"]


@pytest.mark.parametrize("count", [1, 2, 3, 8, 9, 60])
def test_epochs_are_whole_numbers(count):
    with _style():
        figure = _curves(rows(count), "")
        figure.canvas.draw()
    for axis in figure.axes:
        low, high = axis.get_xlim()
        ticks = [t for t in axis.get_xticks() if low <= t <= high]
        assert ticks == [round(t) for t in ticks]
        assert ticks
        assert low < 1 <= count < high
        if count <= 8:
            assert ticks == list(range(1, count + 1))


def test_the_best_epoch_is_marked():
    shown = rows(5)
    for row, hit, loss in zip(shown, (0.2, 0.9, 0.5, 0.9, 0.9), (1, 3, 1, 2, 2), strict=True):
        row.update(val_hit1=hit, val_loss=loss)
    with _style():
        figure = _curves(shown, "a title")
    assert figure.axes[1].get_title(loc="right") == "●  best: epoch 4"
    marked = {line.get_label(): line.get_markevery() for a in figure.axes for line in a.lines}
    assert marked["validation"] == marked["validation videos"] == [3]
    assert marked["training"] == marked["training clips"] == []
    with _style():
        figure = _curves(rows(5, val=False), "")
    assert figure.axes[1].get_title(loc="right") == ""
    assert all(line.get_markevery() == [] for a in figure.axes for line in a.lines)


@pytest.mark.parametrize("count", [1, 5, 30])
def test_nothing_of_the_curves_is_cut_or_overlaps(count):
    with _style():
        figure = _curves(rows(count), "slow_fusion on gestures")
        figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    for axis, following in zip(figure.axes, [*figure.axes[1:], None], strict=True):
        named = [axis._left_title, axis._right_title, axis.xaxis.label, *axis.texts]
        right = max(text.get_window_extent().x1 for text in named)
        left = figure.bbox.x1
        if following is not None:
            left = min(t.get_window_extent(renderer).x0 for t in following.get_yticklabels())
        assert right + 8 < left + (8 if following is None else 0)


def test_names_at_the_ends_do_not_overlap():
    same = [{**row, "val_loss": row["train_loss"]} for row in rows(5)]
    with _style():
        loss = _curves(same, "").axes[0]
    low, high = loss.get_ylim()
    heights = sorted(text.xy[1] for text in loss.texts)
    assert heights[1] - heights[0] > 0.05 * (high - low)


def test_no_epoch_no_picture(tmp_path):
    with pytest.raises(UserError, match="no finished epoch"):
        plot_curves([], tmp_path / "c.png")
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize("count", [1, 3, 35])
def test_confusion_is_drawn(tmp_path, count):
    rng = np.random.default_rng(0)
    names = [f"a rather long name of class {i}" for i in range(count)]
    plot_confusion(rng.integers(0, 9, (count, count)), names, tmp_path / "c.png", "a title")
    assert np.ptp(imread(tmp_path / "c.png")[..., 0]) > 0.5


def test_confusion_shows_counts_and_shares():
    counts = np.array([[3, 1], [0, 0]])
    with _style():
        [axis] = _confusion(counts, ["a", "b"], "").axes
    image = axis.images[0].get_array()
    assert np.allclose(image, [[0.75, 0.25], [0, 0]])  # an absent class is no division by zero
    assert {t.get_position(): t.get_text() for t in axis.texts} == {(0, 0): "3", (1, 0): "1"}
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a  (4)", "b  (0)"]
    assert [t.get_text() for t in axis.get_xticklabels()] == ["a", "b"]


@pytest.mark.parametrize("count", [2, 12])
def test_a_long_title_stays_in_the_picture(count):
    title = "slow_fusion on part 'test' of a folder of some length: Video Hit@1 50.0%"
    with _style():
        figure = _confusion(np.eye(count, dtype=int), list("abcdefghijkl")[:count], title)
        figure.canvas.draw()
    box = figure._suptitle.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    about, found = title.split(": ")
    *lines, last = figure._suptitle.get_text().split("\n")
    assert (" ".join(lines), last) == (about, found)


def test_a_usual_title_breaks_nowhere_but_before_the_result():
    title = "slow_fusion on the test split of verbs: Video Hit@1 50.0%"
    with _style():
        figure = _confusion(np.eye(2, dtype=int), ["a", "b"], title)
    assert figure._suptitle.get_text() == title.replace(": ", "\n")


def test_equal_cells_look_the_same():
    with _style():
        [axis] = _confusion(np.full((2, 2), 3), ["a", "b"], "").axes
    assert len({(t.get_weight(), t.get_color()) for t in axis.texts}) == 1


def test_confusion_of_a_wrong_size(tmp_path):
    with pytest.raises(UserError, match=r"\(2, 3\) for 2 classes"):
        plot_confusion(np.zeros((2, 3)), ["a", "b"], tmp_path / "c.png")
    with pytest.raises(UserError, match="cannot be written"):
        plot_confusion(np.zeros((2, 2)), ["a", "b"], tmp_path / "missing" / "c.png")
