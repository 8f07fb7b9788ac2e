"""One page, no request, no script, every text escaped; each item a square and each flip a text to read."""

import re
from html.parser import HTMLParser

import pytest
from tests.reports.make_comparison import make_comparison

from tracetune.reports.html import render_html

VOID = {"meta", "line", "circle"}


class Page(HTMLParser):
    """Collects tags and attributes and checks that every element is closed in order."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def text() -> str:
    return render_html(make_comparison())


def test_the_page_is_well_formed_and_loads_nothing(text):
    page = Page(text)
    assert page.open == []
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "img", "iframe", "object"})
    attributes = [(name, value) for _, attrs in page.tags for name, value in attrs.items()]
    assert not [name for name, _ in attributes if name.startswith("on") or name == "src"]
    assert all((value or "").startswith("#") for name, value in attributes if name == "href")
    assert not re.search(r"https?://|url\(|@import", text)


def test_hostile_text_stays_text(text):
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert "base &lt;i&gt;" in text


def test_every_item_is_a_square_and_every_flip_leads_to_its_texts(text):
    page = Page(text)
    squares = [attrs for _, attrs in page.tags if "title" in attrs and "sq" in (attrs.get("class") or "")]
    assert len(squares) == 11
    assert {attrs["class"] for attrs in squares} == {"sq fixed", "sq broken", "sq both-right", "sq both-wrong"}
    targets = {attrs["href"] for tag, attrs in page.tags if tag == "a"}
    details = {f"#{attrs['id']}" for tag, attrs in page.tags if tag == "details"}
    assert targets == details
    assert len(details) == 9


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        ("improved", "The model improved"),
        ("regressed", "got worse"),
        ("no significant change", "No significant change"),
    ],
)
def test_the_headline_says_the_verdict(verdict, sentence):
    text = render_html(make_comparison(verdict=verdict))
    assert sentence in re.findall(r"<h1>(.*?)</h1>", text)[0]


def test_the_same_comparison_gives_the_same_bytes(text):
    assert render_html(make_comparison()) == text
