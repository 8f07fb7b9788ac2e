"""A problem as a teacher reads it: words, numbers and signs, with every hyphen, slash and colon told apart.

A hyphen joins a word (`word-problem`), spans a range (`pages 3-5`), stands before a negative number (`is -8`) or
subtracts (`x - 3`); a slash divides, or makes a fraction or a date. LaTeX and Unicode signs are read as what they
mean. Every expression is bounded, so reading is linear in the text.
"""

import re
import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from tracetune.data.text import NUMBER_WORDS, SUPERSCRIPT, VULGAR_FRACTION

# What a token may be asked as, beside its own spelling; `{w}` is any token but a stop.
CLASSES = ("{n}", "{dec}", "{neg}", "{frac}", "{ord}", "{ratio}", "{clock}", "{date}", "{range}", "{v}", "{w}")
STOP = "."
# Before the singular of a word, among its keys.
SINGULAR = "~"

# The classes of each kind of token, by the name of its group.
_KINDS = {
    "date": ("{date}",),
    "clock": ("{clock}",),
    "ratio": ("{ratio}",),
    "fraction": ("{frac}", "{n}"),
    "ordinal": ("{ord}",),
    "decimal": ("{dec}", "{n}"),
    "number": ("{n}",),
}
_TOKEN = re.compile(
    r"(?P<word>[^\W\d_]{1,60}(?:'(?!s(?![^\W_]))[^\W\d_]{1,9})?)(?:'s(?![^\W_]))?"
    r"|(?P<date>\d{1,4}(?P<joint>[-/])\d{1,2}(?P=joint)\d{1,4}(?![\d/]))"
    r"|(?P<clock>(?:[01]?\d|2[0-4]):[0-5]\d(?![\d:]))"
    r"|(?P<ratio>\d{1,9}(?: ?: ?\d{1,9}){1,5})"
    r"|(?P<fraction>\d{1,12}/\d{1,12}(?![\d.]))"
    r"|(?P<ordinal>\d{1,12}(?:st|nd|rd|th)(?![^\W_]))"
    r"|(?P<decimal>(?:\d{1,3}(?:,\d{3}){1,9}|\d{0,40})\.\d{1,40})"
    r"|(?P<number>\d{1,3}(?:,\d{3}){1,9}(?!\d)|\d{1,40})"
    r"|(?P<blank>_{2,})"
    r"|(?P<sign>[-+*/÷=<>≤≥≠±^%$€£¢°√∛π∞∑∫∂∪∩∈⊂⊥∥≅≈→∠°∘|!()\[\]{}:,'])"
    r"|(?P<stop>[.?;](?!\d)|\n{2,})"
)
_SIGNS = str.maketrans(
    {
        **dict.fromkeys("−–‐‑‒", "-"),
        **dict.fromkeys("×·∙⋅", "*"),
        **dict.fromkeys("’‘′", "'"),
        **dict.fromkeys("⁄∕", "/"),
        **dict.fromkeys("—", ". "),
        **dict.fromkeys("º", "°"),
        **dict.fromkeys("θ", " theta "),
    }
)
# Each sign or word with the LaTeX commands that stand for it.
_SPELLINGS = """
* times cdot | ÷ div | ± pm | ≤ le leq | ≥ ge geq | < lt | > gt | ≠ ne neq | √ sqrt | ∑ sum | ∫ int iint oint
° circ degree | ∠ angle | ⊥ perp | ∥ parallel | ≅ cong | π pi | ∞ infty | → to rightarrow | ∂ partial
∪ cup | ∩ cap | ⊂ subset subseteq | matrix bmatrix pmatrix | determinant vmatrix
"""
_COMMANDS: dict[str, str] = dict.fromkeys(("left", "right", "text", "mathrm", "mathbf", "displaystyle", "quad"), "")
for _entry in _SPELLINGS.replace("\n", "|").split("|"):
    _COMMANDS.update({name: _entry.split()[0] for name in _entry.split()[1:]})
_LATEX_FRACTION = re.compile(r"\\[dt]?frac\s?\{([^{}]{1,40})\}\s?\{([^{}]{1,40})\}")
_LATEX_COMMAND = re.compile(r"\\(?:(?:begin|end)\{)?([a-z]{1,30})\}?|\\(.)")
# Pandoc's rule: what stands between two dollars is mathematics when no blank touches it and no digit follows.
_LATEX_MATHS = re.compile(r"\$(?=[^\s$])([^$]{0,300})(?<=[^\s$])\$(?!\d)")
_RAISED = re.compile(r"\^\{([^{}]{1,40})\}")
_DOUBLE_SIGNS = re.compile(r"<=|>=|!=|\*\*")
_HALF_DAY = re.compile(r"(?<![^\W_])([ap])\.m\.?(?![^\W_])")
_SINGLE_SIGN = {"<=": "≤", ">=": "≥", "!=": "≠", "**": "^"}

_CARDINALS = NUMBER_WORDS - {"dozen", "half", "third", "quarter", "once", "twice", "double", "triple"}
_TOUCHING = frozenset("^+=)*/|(")
_OPENS = frozenset("([{=+*/÷<>≤≥^|,:√-")
# Behind these words, and behind signs, 8-3 is a difference; elsewhere it is a range.
_COMPUTES = frozenset(("is", "are", "calculate", "compute", "evaluate", "find", "solve", "simplify", "subtract", "out"))


class Token(NamedTuple):
    """`keys` are what it answers to: its spelling, then its classes; `start` and `end` its place in the plain text."""

    keys: tuple[str, ...]
    start: int
    end: int


def read_tokens(text: str) -> list[tuple[str, ...]]:
    """The keys of each token, in reading order.

    >>> [keys[0] for keys in read_tokens("A word-problem: is -8 - 3/4 = 2x²?")]
    ['a', 'word', 'problem', ':', 'is', '-8', '-', '3/4', '=', '2', 'x', '^', '2', '.']
    """
    plain = plain_problem(text)
    if "-" not in plain:
        return [_keys(match, plain) for match in _TOKEN.finditer(plain)]
    tokens = [Token(_keys(match, plain), match.start(), match.end()) for match in _TOKEN.finditer(plain)]
    return [token.keys for token in _without_hyphens(tokens)]


def plain_problem(text: str) -> str:
    """Lower case, with LaTeX, superscripts and the many dashes and products written with one sign each."""
    if not text.isascii():
        text = SUPERSCRIPT.sub(lambda match: "^" + match.group(), VULGAR_FRACTION.sub(" ", text)).translate(_SIGNS)
        text = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    text = text.lower()
    if text.count("$") > 1:
        text = _LATEX_MATHS.sub(r" \1 ", text)
    if "^{" in text:
        text = _RAISED.sub(lambda match: f"^{match[1]}" if len(match[1]) == 1 else f"^({match[1]})", text)
    if "\\" in text:
        text = _LATEX_COMMAND.sub(_command, _LATEX_FRACTION.sub(_quotient, text))
    if ".m" in text:
        text = _HALF_DAY.sub(r"\1m", text)
    return _DOUBLE_SIGNS.sub(lambda match: _SINGLE_SIGN[match[0]], text)


def _quotient(match: re.Match[str]) -> str:
    """3/4, but (x+1)/(2)."""
    above, below = match[1], match[2]
    return f" {above}/{below} " if above.isdigit() and below.isdigit() else f" ({above})/({below}) "


def _command(match: re.Match[str]) -> str:
    """A command as its sign or word; an escaped sign as the sign."""
    name = match[1]
    return match[2] if name is None else f" {_COMMANDS.get(name, name)} "


def _keys(match: re.Match[str], text: str) -> tuple[str, ...]:
    """A single letter is a variable; `a` and `i` only where they touch a number or a sign."""
    kind = match.lastgroup or ""
    if kind == "word":
        word = match["word"]
        if len(word) > 1:
            return _word_keys(word)
        touches = text[match.start() - 1 : match.start()].isdigit() or text[match.end() : match.end() + 1] in _TOUCHING
        return (word, "{v}", "{w}") if touches or word not in "ai" else (word, "{w}")
    if kind == "stop":
        return (STOP,)
    return (match[0] if kind != "blank" else "__", *_KINDS.get(kind, ()), "{w}")


@lru_cache(maxsize=1 << 15)
def _word_keys(word: str) -> tuple[str, ...]:
    stem = SINGULAR + _singular(word)
    return (word, stem, "{n}", "{w}") if word in _CARDINALS else (word, stem, "{w}")


def _singular(word: str) -> str:
    """A plain plural without its ending; whatever becomes of other words becomes of them in a phrase too."""
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith(("ss", "us", "is")) and len(word) > 3 else word


def _without_hyphens(tokens: list[Token]) -> Iterator[Token]:
    """Every `-` becomes a minus, part of a negative number, part of a range, or nothing."""
    at = 0
    while at < len(tokens):
        token = tokens[at]
        if token.keys[0] != "-" or at + 1 == len(tokens):
            yield token
            at += 1
            continue
        before, after = tokens[at - 1] if at else None, tokens[at + 1]
        meaning = _meaning(tokens, at)
        if meaning == "negative":
            yield Token((f"-{after.keys[0]}", "{neg}", *after.keys[1:]), token.start, after.end)
        elif meaning == "range":
            yield Token(
                (f"{before.keys[0] if before else ''}-{after.keys[0]}", "{range}", "{w}"), token.start, after.end
            )
        elif meaning == "minus":
            yield token
        elif meaning == "dash":
            yield Token((STOP,), token.start, token.end)
        at += 2 if meaning in ("negative", "range") else 1


def _meaning(tokens: list[Token], at: int) -> str:
    """What the hyphen at `at` is: minus, negative, range, dash (between clauses) or joint (inside a word)."""
    hyphen, after = tokens[at], tokens[at + 1]
    before = tokens[at - 1] if at else None
    touches_after = hyphen.end == after.start
    if before is None or not _ends_operand(before, tokens[at - 2] if at > 1 else None):
        joins = before is not None and before.end == hyphen.start and before.keys[0] not in _OPENS
        return "joint" if joins else "negative" if touches_after and _begins_operand(after) else "dash"
    if before.end != hyphen.start or not touches_after:
        return "minus" if _begins_operand(after) else "dash" if before.end != hyphen.start else "joint"
    if not _begins_operand(after):
        return "joint"
    both_numbers = "{n}" in before.keys and "{n}" in after.keys
    return "range" if both_numbers and not _is_computed(tokens, at) else "minus"


def _ends_operand(token: Token, before: Token | None) -> bool:
    """A bar ends one when it stands behind one: |x| - 3, but |-3|."""
    text = token.keys[0]
    if text == "|":
        return before is not None and before.keys[0] != "|" and _ends_operand(before, None)
    return text in (")", "]") or "{v}" in token.keys or text[-1:].isdigit()


def _begins_operand(token: Token) -> bool:
    return token.keys[0] in ("(", "[", "|", "√", "$") or "{v}" in token.keys or token.keys[0][-1:].isdigit()


def _is_computed(tokens: list[Token], at: int) -> bool:
    """Whether `a-b` around `at` stands where a value is asked for."""
    leading = tokens[at - 2].keys[0] if at > 1 else ""
    following = tokens[at + 2].keys[0] if at + 2 < len(tokens) else STOP
    if following in ("=", "+", "*", "÷", "/", "<", ">"):
        return True
    return (leading in ("", *_COMPUTES) or leading in _OPENS) and following in (STOP, ")", ",", "-")
