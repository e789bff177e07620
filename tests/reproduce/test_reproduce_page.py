"""The report as text: nothing from outside, everything escaped, and readable by a machine."""

from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest
from small_results import made_up_results

from tinyvid.reproduce.markdown import comparison, markdown
from tinyvid.reproduce.page import page

VOID = {"meta", "link", "img", "input", "br"}
NASTY = "<script>alert('1')</script> & \"quoted\" | `x`"


class Reader(HTMLParser):
    """Keeps tags with their attributes, and the text; checks that tags are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.words = [], [], []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, words):
        self.words.append(words)


@pytest.fixture(scope="module")
def read(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return Reader(page(made_up_results(folder, NASTY), folder))


def test_nothing_comes_from_outside(read):
    for tag, attributes in read.tags:
        assert tag not in ("script", "iframe", "object", "embed", "base", "form")
        for name in ("src", "href", "srcset", "xlink:href", "action", "data"):
            target = attributes.get(name)
            assert target is None or target.startswith(("data:", "#")), (tag, target)
        assert not any(name.startswith("on") for name in attributes)
    style = "".join(read.words) + "".join(a.get("style") or "" for _, a in read.tags)
    assert "@import" not in style
    assert "url(" not in style.replace("url(#", "")
    [policy] = [a["content"] for t, a in read.tags if "http-equiv" in a]
    assert policy.startswith("default-src 'none';")


def test_what_users_named_is_text_and_no_markup(read):
    assert any(NASTY in words for words in read.words)
    assert "script" not in {tag for tag, _ in read.tags}


def test_names_are_unique_and_what_is_pointed_to_is_there(read):
    ids = [a["id"] for _, a in read.tags if "id" in a]
    assert len(ids) == len(set(ids))
    for _, attributes in read.tags:
        for name in ("href", "xlink:href"):
            if (attributes.get(name) or "").startswith("#"):
                assert attributes[name][1:] in ids
        if "aria-labelledby" in attributes:
            assert attributes["aria-labelledby"] in ids


def test_headings_go_down_one_by_one_and_pictures_are_described(read):
    levels = [int(tag[1]) for tag, _ in read.tags if tag in ("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    assert all(a.get("alt") for tag, a in read.tags if tag == "img")
    assert all(a.get("aria-label") for tag, a in read.tags if tag == "svg")
    listed = [a["href"] for tag, a in read.tags if tag == "a"]
    assert len(listed) == len({a["id"] for tag, a in read.tags if tag == "h2"})


def test_the_numbers_stand_in_both(tmp_path):
    results = made_up_results(tmp_path)
    both = page(results, tmp_path), markdown(results)
    found = results.systems["slow_fusion"].measured
    share = f"{100 * found.video_hit_1.value:.1f}"
    interval = f"{100 * found.video_hit_1.low:.1f}–{100 * found.video_hit_1.high:.1f}"
    wilson = f"{100 * found.wilson[0]:.1f}–{100 * found.wilson[1]:.1f}"
    for text in both:
        for number in (share, interval, wilson, "59.3", "5.67 M", "3×4×5×5"):
            assert number in text


def test_a_markdown_table_has_as_many_cells_in_each_row(tmp_path):
    results = made_up_results(tmp_path, NASTY)
    text = markdown(results)
    assert "<script" not in text
    for table in results.tables:
        rows = [line for line in comparison(table, results).splitlines() if line.startswith("|")]
        assert len(rows) == 2 + len(table.rows)
        assert len({row.replace("\\|", "").count("|") for row in rows}) == 1
        assert "20 videos are few" in comparison(table, results)
    many = made_up_results(tmp_path, videos=60)
    assert "are few" not in comparison(many.tables[0], many)


def test_of_many_classes_the_mistakes_are_told(tmp_path):
    results = made_up_results(tmp_path)
    system = results.systems["slow_fusion"]
    counts = np.eye(30, dtype=int)
    counts[4, 7] = 12
    many = {"slow_fusion": replace(system, confusion=counts.tolist())}
    results = replace(results, classes=[f"class {i}" for i in range(30)], systems=many, samples=[])
    assert "| class 4 | class 7 | 12 |" in markdown(results)
    results = replace(results, samples=made_up_results(tmp_path).samples)
    text = page(results, tmp_path)
    assert '<th scope="row">class 4</th><td>class 7</td><td class="number">12</td>' in text
    assert 'class="confusion"' not in text
