"""What every page shares: the frame with its style sheet inline, and how texts of models and items enter it."""

from collections.abc import Iterable, Sequence
from html import escape
from importlib.resources import files

MARKS = {"both right": "✓", "fixed": "▲", "broken": "▼", "both wrong": "·"}
MAX_TEXT_CHARS = 20_000


def frame(title: str, tone: str, body: Iterable[str]) -> str:
    """The whole page: no script, no request; `tone` is the class that colours the badge."""
    style = files("tracetune.reports").joinpath("page.css").read_text("utf-8")
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style></head>\n"
        f'<body class="{tone}"><main>\n{"".join(body)}</main></body></html>\n'
    )


def unbroken(sentence: str) -> str:
    """Escaped, with no line break between a number and its percent sign, nor inside a p-value."""
    text = escape(sentence).replace(" %", "&nbsp;%")
    return text.replace("p = ", "p&nbsp;=&nbsp;").replace("p &lt; ", "p&nbsp;&lt;&nbsp;")


def warning(lines: Sequence[str]) -> str:
    """What was left out; empty when nothing was."""
    if not lines:
        return ""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f'<div class="warn"><b>Left out, counted neither for nor against</b><ul>{items}</ul></div>'


def square(name: str) -> str:
    """The little square of an outcome, for a legend or a heading."""
    return f'<span class="sq {outcome_class(name)}" aria-hidden="true">{MARKS[name]}</span>'


def outcome_class(name: str) -> str:
    """An outcome as a class of the style sheet."""
    return name.replace(" ", "-")


def long_text(text: str) -> str:
    """Escaped, and cut where no one reads on."""
    shown = text if len(text) <= MAX_TEXT_CHARS else text[:MAX_TEXT_CHARS] + "…"
    return escape(shown)
