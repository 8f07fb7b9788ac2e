"""Text as comparisons see it: duplicates and contamination are judged on these tokens, never on raw bytes.

Numbers and operators are tokens of their own, so `3 + 4`, `3 + 5` and `34` never look alike: sentence
punctuation goes, a decimal point, a minus, a power or a bracket stays. Shapes: T tokens.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import chain
from typing import NamedTuple

import numpy as np

NUMBER_WORDS = frozenset(
    (
        *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
        *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty"),
        *("forty", "fifty", "sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million", "billion"),
        *("dozen", "half", "third", "quarter", "once", "twice", "double", "triple"),
    )
)
WIDE = "\u3040-\u30ff\u3400-\u9fff"  # scripts written without spaces: one character, one token
LETTERS = rf"[^\W\d_{WIDE}]+"
# The first group holds what must be equal, the second the rest; sentence punctuation matches neither.
TOKEN = (
    r"(\d+(?:[.]\d+)?"  # a number; thousands commas are gone by now
    rf"|(?<=\d){LETTERS}"  # letters after a digit: the card 5H
    r"%s"  # codes
    r"|[^\w\s.,;:!?'\"“”‘’`´«»…—#$\\()\[\]{}])"  # operators and other signs
    rf"|({LETTERS}|[{WIDE}]|[()\[\]{{}}])"
)
WITH_CODES = re.compile(TOKEN % rf"|\b[A-Z]{{2,3}}\b(?![{WIDE}])")
# In a text that is all capitals, capitals say nothing.
WITHOUT_CODES = re.compile(TOKEN % "")
# NFKC would turn 5² into 52 and 2½ into 21/2, so these are set apart first.
SUPERSCRIPT = re.compile(r"[⁰¹²³⁴-⁹]+")
VULGAR_FRACTION = re.compile(r"(?<=\d)(?=[¼-¾⅐-⅞])")
THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
HYPHEN = re.compile(r"(?<=[^\W\d_])-(?=[^\W\d_])")
SIGNS = str.maketrans({"−": "-", "–": "-", "‐": "-", "‑": "-", "×": "*", "·": "*", "÷": "/", "⁄": "/"})
MAX_REMEMBERED = 1 << 16
MAX_REMEMBERED_CHARS = 64
HASH_STEP = np.uint64(0x9E3779B97F4A7C15)


def same_text(text: str) -> str:
    """The form in which two texts are the same: Unicode NFC, case and white space do not count."""
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


class Words(NamedTuple):
    """A text's tokens; `exact` marks those that must be equal for two problems to be one.

    Exact are numbers in digits or words, operators, and codes: short capitals such as the card `TS`, and
    letters that follow a digit without a space, as in `5H`.
    """

    tokens: tuple[str, ...]
    exact: tuple[bool, ...]

    def exact_tokens(self, first: int = 0, end: int | None = None) -> list[str]:
        """The exact tokens from `first` up to `end`, in reading order."""
        pairs = zip(self.tokens[first:end], self.exact[first:end], strict=True)
        return [token for token, exact in pairs if exact]


def read_words(text: str) -> Words:
    """Words, numbers and signs in reading order; case does not count.

    >>> " ".join(read_words("Sam's 1,200 word-problems: 2.5 × 5² = ?").tokens)
    'sam s 1200 word problems 2.5 * 5 ^ 2 ='
    """
    text = _plain_signs(text)
    return _read(text, WITHOUT_CODES if text == text.upper() else WITH_CODES)


def exact_tokens(text: str) -> list[str]:
    """What `read_words(text).exact_tokens()` gives, three times as fast: every row of every build is read so.

    >>> exact_tokens("Sam has two 5H and 1,200 more.")
    ['two', '5', 'h', '1200']
    """
    text = _plain_signs(text)
    # No token goes over white space, and the same pieces stand between it again and again.
    pieces = text.split()
    if text == text.upper() or max(map(len, pieces), default=0) > MAX_REMEMBERED_CHARS:
        return read_words(text).exact_tokens()
    return list(chain.from_iterable(map(_EXACT.__getitem__, pieces)))


class _ExactTokens(dict[str, tuple[str, ...]]):
    """Of pieces read before; an `lru_cache` takes twice as long to find one."""

    def __missing__(self, piece: str) -> tuple[str, ...]:
        if len(self) >= MAX_REMEMBERED:
            self.clear()
        found = self[piece] = tuple(_read(piece, WITH_CODES).exact_tokens())
        return found


_EXACT = _ExactTokens()


def _plain_signs(text: str) -> str:
    if text.isascii():
        return text
    text = SUPERSCRIPT.sub(lambda match: "^" + match.group(), VULGAR_FRACTION.sub(" ", text))
    return unicodedata.normalize("NFKC", text).translate(SIGNS)


def _read(text: str, pattern: re.Pattern[str]) -> Words:
    if "," in text:
        text = THOUSANDS.sub("", text)
    if "-" in text:
        text = HYPHEN.sub(" ", text)
    pairs = pattern.findall(text)
    # One call for all tokens.
    tokens = "\0".join(exact or rest for exact, rest in pairs).casefold().split("\0") if pairs else []
    exact = tuple(pair[0] != "" or token in NUMBER_WORDS for pair, token in zip(pairs, tokens, strict=True))
    return Words(tuple(tokens), exact)


def token_hashes(tokens: Sequence[str]) -> np.ndarray:
    """uint64 [T], the same on every machine and in every process."""
    return np.fromiter(map(_token_hash, tokens), dtype=np.uint64, count=len(tokens))


def ngram_hashes(hashes_T: np.ndarray, size: int) -> np.ndarray:
    """uint64 [T - size + 1]: one hash for every run of `size` tokens; a shorter text is one run."""
    size = min(size, len(hashes_T))
    if size == 0:
        return hashes_T
    num_grams = len(hashes_T) - size + 1
    grams = np.zeros(num_grams, dtype=np.uint64)
    for offset in range(size):
        grams = grams * HASH_STEP + hashes_T[offset : offset + num_grams]
    return mix(grams)


def mix(values: np.ndarray) -> np.ndarray:
    """Spread every bit of uint64 values over the word (the finaliser of splitmix64, Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def sequence_hash(tokens: Sequence[str]) -> int:
    """One 64-bit hash of a whole sequence, order included."""
    return int.from_bytes(blake2b("\0".join(tokens).encode(), digest_size=8).digest(), "little")


@lru_cache(maxsize=1 << 16)
def _token_hash(token: str) -> int:
    return int.from_bytes(blake2b(token.encode(), digest_size=8).digest(), "little")
