r"""Where a response states its final answer.

A statement is `\boxed{18}`, `<answer>18</answer>`, `#### 18`, `A: 18` at the start of a line, or `Answer: 18`,
`The final answer is 18`, `Ans = 18`. Later statements are more final than earlier ones.
"""

import re
from collections import deque
from typing import NamedTuple

MAX_STATEMENTS = 8
MAX_STATEMENT_CHARS = 300
MAX_BOX_CHARS = 2_000

_MARKER = re.compile(
    r"""(?P<boxed>\\boxed\s?\{)
    | (?P<tag><answer>)
    | (?P<hashes>\#{4})
    | (?P<short>^[\ \t>*]{0,8}A\s?:)
    | (?P<words>\bans(?:wer)?\b[*_"'\ ]{0,4}(?:\([^()\n]{0,40}\))?(?:(?:to|for)\b[^\n.:=]{1,40}?)?[\ *_]{0,4}
        (?::|=|\b(?:is|was|would\ be|must\ be|should\ be|equals)\b))""",
    re.VERBOSE | re.IGNORECASE | re.MULTILINE,
)
_LABELS = {"boxed": "\\boxed", "tag": "<answer>", "hashes": "####", "short": "A:", "words": "answer"}
_LEADING = re.compile(r"(?:[\s*_`:]|\\\[|\\\(|\$\$)*")


class Statement(NamedTuple):
    """One stated answer, a single line, and the marker it followed; `is_told_by_verb` tells `the answer is 18` from
    `Answer: 18`, since prose can only have the first form."""

    text: str
    marker: str
    is_told_by_verb: bool = False


def statements(response: str) -> list[Statement]:
    """Stated answers, blank ones too, the last first; only the last few of very many are read."""
    found = []
    for match in deque(_MARKER.finditer(response), maxlen=MAX_STATEMENTS):
        kind = match.lastgroup or "words"
        text = _content(response, match.end(), kind)
        found.append(Statement(text, _LABELS[kind], kind == "words" and _ends_with_verb(response, match)))
    return found[::-1]


def last_line(response: str) -> str:
    """The end of the last line that is not blank."""
    lines = response[-4 * MAX_STATEMENT_CHARS :].strip().splitlines()
    return lines[-1][-MAX_STATEMENT_CHARS:].strip() if lines else ""


def first_sentence(text: str) -> str:
    """Up to the first full stop, question mark, exclamation mark or semicolon that a space or the end follows."""
    return re.split(r"[.!?;](?=\s|$)", text, maxsplit=1)[0].strip()


def _ends_with_verb(response: str, match: re.Match[str]) -> bool:
    """A colon behind the verb counts before it."""
    leading = _LEADING.match(response, match.end())
    return match.group()[-1].isalpha() and ":" not in (leading.group() if leading else "")


def _content(response: str, start: int, kind: str) -> str:
    if kind == "boxed":
        return _box(response, start)
    if kind == "tag":
        window = response[start : start + MAX_BOX_CHARS]
        return window.partition("</")[0].strip()[:MAX_STATEMENT_CHARS]
    window = response[start : start + 2 * MAX_STATEMENT_CHARS]
    leading = _LEADING.match(window)
    line = window[leading.end() if leading else 0 :].partition("\n")[0]
    return line.partition("</")[0].strip()[:MAX_STATEMENT_CHARS]


def _box(response: str, start: int) -> str:
    """The inside of a box up to its matching brace, or up to the end when it is never closed."""
    depth = 1
    window = response[start : start + MAX_BOX_CHARS]
    for position, character in enumerate(window):
        depth += (character == "{") - (character == "}")
        if depth == 0:
            return window[:position].strip()
    return window.partition("\n")[0].strip()[:MAX_STATEMENT_CHARS]
