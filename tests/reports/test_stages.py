"""The report of stages: every step with its adjusted p, every item by what became of it, hostile text harmless."""

import re

import pytest
from tests.reports.make_stages import make_stages
from tests.reports.test_html import Page

from tracetune.reports.stage_wording import pattern_name, pattern_outcome, stages_headline
from tracetune.reports.stages_html import render_stages_html
from tracetune.reports.stages_markdown import render_stages_markdown
from tracetune.reports.summary import summarize_stages
from tracetune.reports.svg import stages_chart


@pytest.fixture(scope="module")
def page() -> str:
    return render_stages_html(make_stages())


@pytest.fixture(scope="module")
def markdown() -> str:
    return render_stages_markdown(make_stages())


def test_the_headline_walks_through_the_stages():
    assert stages_headline(make_stages()) == "base 9.1 % → SFT <b> 72.7 % → GRPO 72.7 % correct"


def test_a_step_that_shows_nothing_is_not_called_a_change(markdown):
    lines = markdown.splitlines()
    assert lines[2].startswith("**▲ base 9.1 %")
    assert lines[4].startswith("- base → SFT &lt;b&gt; improved: +63.6 points")
    assert "7 fixed, 0 broken, p = 0.047." in lines[4]
    assert "did not change significantly: 0.0 points" in lines[5]


def test_the_tables_show_raw_and_adjusted_p(markdown):
    (row,) = [line for line in markdown.splitlines() if line.startswith("| base → SFT")]
    assert "| 7 | 0 | 0.016 | 0.047 | improved |" in row
    assert "adjusted for the 3 changes shown (Holm)" in markdown
    assert "| geo\\|metry | 11 | 9.1 % | 72.7 % | 72.7 % |" in markdown


def test_items_are_grouped_by_what_became_of_them(markdown):
    for line in (
        "right at every stage: 1",
        "fixed by SFT &lt;b&gt;: 6",
        "fixed by GRPO: 1",
        "wrong → right → wrong: 1",
    ):
        assert f"- {line}" in markdown
    assert "### wrong at every stage" not in markdown
    assert markdown.count("  - expected: 7") == 8


@pytest.mark.parametrize(
    ("pattern", "name", "outcome"),
    [
        ((True, True, True), "right at every stage", "both right"),
        ((False, False, False), "wrong at every stage", "both wrong"),
        ((False, True, True), "fixed by B", "fixed"),
        ((True, True, False), "broken by C", "broken"),
        ((True, False, True), "right → wrong → right", "fixed"),
        ((False, True, False), "wrong → right → wrong", "broken"),
    ],
)
def test_a_pattern_has_a_name_and_the_colour_of_its_last_turn(pattern, name, outcome):
    assert pattern_name(pattern, "ABC") == name
    assert pattern_outcome(pattern) == outcome


def test_the_page_is_well_formed_and_loads_nothing(page):
    parsed = Page(page)
    assert parsed.open == []
    assert {tag for tag, _ in parsed.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    attributes = [(name, value) for _, attrs in parsed.tags for name, value in attrs.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "src"]
    assert all((value or "").startswith("#") for name, value in attributes if name == "href")
    assert not re.search(r"https?://|url\(|@import", page)


def test_hostile_text_stays_text(page, markdown):
    for text in (page, markdown):
        assert "<script" not in text
        assert "SFT <b>" not in text
        assert "&lt;script&gt;" in text


def test_every_item_is_a_square_and_every_change_leads_to_its_texts(page):
    parsed = Page(page)
    assert len([attrs for _, attrs in parsed.tags if "title" in attrs]) == 11
    targets = [attrs["href"] for tag, attrs in parsed.tags if tag == "a"]
    assert targets == [f"#{attrs['id']}" for tag, attrs in parsed.tags if tag == "details"]
    assert len(targets) == 8


def test_the_picture_has_a_dot_and_a_band_a_stage_and_colours_only_what_is_significant():
    chart = stages_chart(make_stages())
    assert chart.count("<circle") == chart.count('class="band') == 3
    assert chart.count('class="new up"') == 1
    assert chart.count('class="new level"') == 1
    assert "SFT &lt;b&gt;" in chart


def test_the_numbers_are_json_of_every_change():
    numbers = summarize_stages(make_stages())
    assert [stage["correct"] for stage in numbers["stages"]] == [1, 8, 8]
    changes = [(change["from"], change["to"], change["verdict"]) for change in numbers["changes"]]
    assert changes[0] == ("base", "SFT <b>", "improved")
    assert changes[1][2] == "no significant change"
    assert changes[2][:2] == ("base", "GRPO")
    assert numbers["unscored"] == ["failed (GRPO: <failed>)"]


def test_what_was_left_out_is_named(page, markdown):
    for text in (page, markdown):
        assert "1 without a score: failed (GRPO: &lt;failed&gt;)" in text


def test_the_same_stages_give_the_same_bytes(page, markdown):
    assert render_stages_html(make_stages()) == page
    assert render_stages_markdown(make_stages()) == markdown
