"""The page of results: sections are written between markers, and those of other data stay."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
from small_results import made_up_results

from tinyvid.errors import UserError

SCRIPT = Path(__file__).resolve().parents[2] / "docs" / "make_results.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("make_results", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_section_takes_the_place_of_that_of_the_same_data(script, tmp_path):
    one = made_up_results(tmp_path, "gestures")
    other = replace(one, data="room")
    page = f"# Results\n\n{script.BEGIN}\n{script.END}\n\n## Speed\n"
    first = script.written(page, [one, other])
    assert first.startswith(f"# Results\n\n{script.BEGIN}\n\n## The papers' comparisons on gest")
    assert first.endswith(f"{script.END}\n\n## Speed\n")
    assert first.count("## The papers' comparisons on") == 2
    assert script.written(first, [one]) == first
    changed = script.written(first, [replace(one, command="another command")])
    assert changed.count("## The papers' comparisons on") == 2
    assert changed.count("another command") == 1
    assert changed.index("on gestures") < changed.index("another command") < changed.index("room")


def test_every_row_of_both_tables_is_there(script, tmp_path):
    results = made_up_results(tmp_path)
    text = script.section(results)
    for table in results.tables:
        for row in table.rows:
            assert f"| {row.name} |" in text
    later = "### When an action comes later: made up"
    assert later in text
    assert later not in script.section(replace(results, shift=[]))


def test_a_page_without_markers_is_left_alone(script, tmp_path):
    with pytest.raises(UserError, match="no lines"):
        script.written("# Results\n", [made_up_results(tmp_path)])


def test_the_page_has_the_markers(script):
    page = script.PAGE.read_text(encoding="utf-8")
    assert page.index(script.BEGIN) < page.index(script.END)
