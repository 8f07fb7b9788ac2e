"""Phrases of a taxonomy and their search: all of them in one walk along a problem's tokens.

A phrase is words and signs with a blank between them. A word is found in the singular and the plural, `=word` as it
stands. `a|b` is either, `a|` is a or nothing; `{n}` and its kin are classes of tokens; `...` is up to six tokens of the
same sentence. There is nothing else, so a search costs a bounded number of steps a token, whatever the text.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from tracetune.core.errors import InputError
from tracetune.data.problem_tokens import CLASSES, SINGULAR, STOP, read_tokens

GAP, MAX_GAP = "...", 6
MAX_GAPS, MAX_WORDS, MAX_SPELLINGS = 2, 12, 512


class PhraseIndex:
    """Numbered phrases, found together."""

    def __init__(self, phrases: Iterable[tuple[int, str]]) -> None:
        """Takes (number, phrase) pairs; equal numbers count as one. Raises InputError for a phrase it cannot read."""
        self._root = _Node()
        for number, phrase in phrases:
            for spelling in spellings(phrase):
                self._root.add(spelling, number)

    def find(self, tokens: Sequence[tuple[str, ...]]) -> set[int]:
        """The numbers of the phrases that stand in `tokens`."""
        found: set[int] = set()
        following = self._root.following
        for at, keys in enumerate(tokens):
            for key in keys:
                node = following.get(key)
                if node is not None:
                    node.walk(tokens, at + 1, found)
        return found


class _Node:
    """Where the first words of some phrases lead."""

    __slots__ = ("ends", "following", "gap")

    def __init__(self) -> None:
        self.following: dict[str, _Node] = {}
        self.gap: _Node | None = None
        self.ends: tuple[int, ...] = ()

    def add(self, words: Sequence[str], number: int) -> None:
        node = self
        for word in words:
            if word == GAP:
                node.gap = node.gap or _Node()
                node = node.gap
            else:
                node = node.following.setdefault(word, _Node())
        if number not in node.ends:
            node.ends += (number,)

    def walk(self, tokens: Sequence[tuple[str, ...]], at: int, found: set[int]) -> None:
        """Add every phrase that goes on from here at `at`."""
        if self.ends:
            found.update(self.ends)
        if self.following and at < len(tokens):
            following = self.following
            for key in tokens[at]:
                node = following.get(key)
                if node is not None:
                    node.walk(tokens, at + 1, found)
        if self.gap is not None:
            for end in range(at, min(at + MAX_GAP + 1, len(tokens))):
                self.gap.walk(tokens, end, found)
                if tokens[end][0] == STOP:
                    break


def spellings(phrase: str) -> list[tuple[str, ...]]:
    """Every sequence of keys that `phrase` stands for. Raises InputError saying what it cannot be.

    >>> spellings("=half|quarter of|")
    [('half', '~of'), ('half',), ('~quarter', '~of'), ('~quarter',)]
    """
    words = phrase.split()
    if not words or len(words) > MAX_WORDS:
        raise InputError(f"a phrase must have 1 to {MAX_WORDS} words, got {phrase!r}")
    if words[0] == GAP or words[-1] == GAP or words.count(GAP) > MAX_GAPS:
        raise InputError(f"a phrase may have {MAX_GAPS} gaps ... between words, got {phrase!r}")
    choices = [_choices(word, phrase) for word in words]
    count = 1
    for choice in choices:
        count *= len(choice)
    if count > MAX_SPELLINGS:
        raise InputError(f"a phrase may stand for {MAX_SPELLINGS} spellings, got {count} by {phrase!r}; make it two")
    chosen = [tuple(word for word in words if word) for words in product(*choices)]
    if () in chosen:
        raise InputError(f"a phrase must have a word that cannot be left out, got {phrase!r}")
    return chosen


def _choices(word: str, phrase: str) -> tuple[str, ...]:
    """What may stand for one word of a phrase; "" is nothing."""
    if word in (GAP, "|"):
        return (word,)  # `|` alone is the sign of an absolute value
    found: list[str] = []
    for part in word.split("|"):
        found += _forms(part, phrase)
    return tuple(dict.fromkeys(found))


def _forms(part: str, phrase: str) -> Iterator[str]:
    """One alternative: a class, a sign, or a word with its plural."""
    exact = part[1:] if part.startswith("=") and len(part) > 1 else None
    word = part if exact is None else exact
    if word in ("", *CLASSES):
        yield word
        return
    if word.startswith("{") and word.endswith("}") and len(word) > 1:
        raise InputError(f"there is no class {word} in {phrase!r}; there are {' '.join(CLASSES)}")
    tokens = read_tokens(word)
    if len(tokens) != 1 or word != word.lower():
        raise InputError(
            f"{word!r} in {phrase!r} is never one word of a problem; write lower case, a blank between words"
        )
    text, *others = tokens[0]
    yield next((key for key in others if key.startswith(SINGULAR) and exact is None), text)
