"""The pages of the repository taken apart: links, headings and fenced blocks, each with its place."""

import re
from collections.abc import Iterator
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from docs.pages.reference import PAGES as WRITTEN
from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
PAGES = (
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "training/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
)
# Written by `make docs`, so not there before it.
REFERENCE = frozenset(ROOT / "docs" / "reference" / name for name in WRITTEN)


class Block(NamedTuple):
    """A fenced block: `place` is file:line of its fence."""

    place: str
    language: str
    text: str


def blocks(*languages: str) -> list[Block]:
    """Every fenced block of the pages in one of the languages; `""` is one without."""
    return [block for page in PAGES for block in _blocks(page) if block.language in languages]


def links(text: str) -> Iterator[str]:
    """The target of each link and image of a text."""
    for token in MarkdownIt().enable("table").parse(text):
        for child in token.children or ():
            href = child.attrGet("href") or child.attrGet("src")
            if href:
                yield str(href)


@cache
def anchors(page: Path) -> frozenset[str]:
    """What a link may name after `#`: the headings, as GitHub and the built pages both write them."""
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    titles = [inline.content for opening, inline in pairwise(tokens) if opening.type == "heading_open"]
    return frozenset(re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-") for title in titles)


@cache
def _blocks(page: Path) -> tuple[Block, ...]:
    tokens = MarkdownIt().parse(page.read_text(encoding="utf-8"))
    name = page.relative_to(ROOT)
    return tuple(
        Block(f"{name}:{(token.map or [0])[0] + 1}", token.info.split(" ")[0], token.content)
        for token in tokens
        if token.type == "fence"
    )
