"""The delta report says the verdict first, the flips before the slices, and lets no text become markup."""

import math

from tests.reports.make_comparison import make_comparison

from tracetune.reports.markdown import escape, render_markdown


def test_the_verdict_and_its_evidence_come_first():
    lines = render_markdown(make_comparison()).splitlines()
    assert lines[2] == "**▲ The model improved: 18.2 % → 81.8 % correct**"
    assert "exact McNemar p = 0.039" in lines[4]
    assert "+63.6 points (95 % interval +20.0 to +80.0)" in lines[4]
    assert lines[6] == "Verdict: improved"


def test_flips_stand_before_slices_and_fixed_before_broken():
    text = render_markdown(make_comparison())
    places = [text.index(heading) for heading in ("## Fixed: 8", "## Broken: 1", "## By category", "## All pairs")]
    assert places == sorted(places)


def test_hostile_text_is_neither_html_nor_markdown():
    text = render_markdown(make_comparison())
    assert "<script" not in text
    assert "\n# not" not in text
    assert escape("a|b `c` <d> [e](f) *g*") == r"a\|b \`c\` &lt;d&gt; \[e\](f) \*g\*"
    table = [line for line in text.splitlines() if "metry |" in line]
    assert len(table) == 1
    assert table[0].replace(r"\|", "").count("|") == 8


def test_long_text_is_cut():
    assert len(escape("word " * 1000)) <= 160
    assert escape("word " * 1000).endswith("…")


def test_what_was_left_out_is_named():
    text = render_markdown(make_comparison())
    assert "1 without a score: u-1 (before: &lt;failed&gt;)" in text
    assert "1 in only one evaluation: z-9 (after only)" in text


def test_the_smallest_effect_is_said_even_when_there_is_none():
    assert "Smallest effect this set could have shown: 25.0 points" in render_markdown(make_comparison())
    assert "no change, however large" in render_markdown(make_comparison(effect=math.inf))


def test_many_flips_are_listed_up_to_a_limit_with_the_rest_counted():
    assert "- and 50 more" in render_markdown(make_comparison(num_fixed=250))
    assert "more, all of them" not in render_markdown(make_comparison(num_fixed=200))


def test_the_same_comparison_gives_the_same_bytes():
    assert render_markdown(make_comparison()) == render_markdown(make_comparison())
