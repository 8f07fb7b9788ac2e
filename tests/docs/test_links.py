"""Every link between the pages leads somewhere, also to the right heading."""

from pathlib import Path

import pytest
from tests.docs.markdown import PAGES, REFERENCE, ROOT, anchors, links


def broken(page: Path, text: str) -> list[str]:
    """The links of `text`, standing in `page`, that lead nowhere."""
    found = []
    for link in links(text):
        if link.startswith(("http:", "https:", "mailto:")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        is_there = target in REFERENCE or target.exists()
        if not is_there or (anchor and target.suffix == ".md" and anchor not in anchors(target)):
            found.append(link)
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_of_a_page_leads_somewhere(page):
    assert not broken(page, page.read_text(encoding="utf-8"))


def test_a_link_to_nothing_and_one_to_no_heading_are_found():
    page = ROOT / "docs" / "sft.md"
    text = "[a](nothing.md) [b](grpo.md#no-such-heading) [c](grpo.md#rewards) [d](#rows) ![e](report.png) [f](#no)"
    assert broken(page, text) == ["nothing.md", "grpo.md#no-such-heading", "#no"]


def test_every_page_stands_in_the_contents():
    index = ROOT / "docs" / "index.md"
    listed = index.read_text(encoding="utf-8").splitlines()
    pages = [page for page in PAGES if page.parent == index.parent and page != index]
    assert not [page.stem for page in pages if page.stem not in listed]
