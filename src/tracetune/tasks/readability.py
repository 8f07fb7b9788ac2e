"""Is a text in words that a school grade can read? A reading level, and words that belong to later grades.

The level is Flesch–Kincaid's: 0.39 × words per sentence + 11.8 × syllables per word − 15.59 (Kincaid et al. 1975).
Numbers and formulas count as words of one syllable; so does a word that the question itself used, since the student
knows it. Syllables are groups of vowels, a silent final e aside.
"""

import re
from collections.abc import Iterator

# A short text has few sentences to judge by: as many grades above the student's are allowed.
MARGIN = 3.0
# Below this many words one long word would decide.
MIN_WORDS = 6
MAX_CHARS = 8_000
# The first grade in which a word of mathematics is at home (Common Core's domains, roughly).
WORD_GRADES = {
    **dict.fromkeys(("denominator", "numerator", "quotient", "equivalent fraction", "perimeter"), 3),
    **dict.fromkeys(("exponent", "decimal point", "volume", "coordinate"), 5),
    **dict.fromkeys(("variable", "ratio", "coefficient", "integer", "inequality", "percent of change"), 6),
    **dict.fromkeys(("proportional", "constant of proportionality", "additive inverse", "reciprocal"), 6),
    **dict.fromkeys(("hypotenuse", "slope", "scientific notation", "linear function", "irrational"), 8),
    **dict.fromkeys(("quadratic", "polynomial", "discriminant", "parabola", "vertex form"), 8),
    **dict.fromkeys(("sine", "cosine", "tangent ratio", "congruence", "radian"), 9),
    **dict.fromkeys(("logarithm", "permutation", "factorial", "asymptote", "complex number"), 10),
    **dict.fromkeys(("derivative", "integral", "differentiate", "limit definition", "matrix", "eigenvalue"), 11),
    **dict.fromkeys(("isomorphism", "homomorphism", "axiomatic", "bijection", "monotonicity", "group theory"), 13),
}
_LATER = {word: re.compile(rf"\b{word}(?:e?s|al|ive)?\b", re.IGNORECASE) for word in WORD_GRADES}
_SENTENCE = re.compile(r"[.!?]+(?=\s|$)|\n+")
_WORD = re.compile(r"[A-Za-z]+(?:'[a-z]+)?|\d[^\sA-Za-z]*")
_VOWELS = re.compile(r"[aeiouy]+")


def reading_level(text: str, known: str = "") -> float:
    """The school grade that reads `text`; words of `known` count one syllable. 0 for a text without words.

    >>> round(reading_level("The cat sat on the mat. It was warm."), 1)
    -2.0
    """
    words = _WORD.findall(text)
    if not words:
        return 0.0
    sentences = max(1, sum(bool(_WORD.search(part)) for part in _SENTENCE.split(text)))
    easy = {word.lower() for word in _WORD.findall(known)}
    syllables = sum(1 if word.lower() in easy else syllables_of(word) for word in words)
    return 0.39 * len(words) / sentences + 11.8 * syllables / len(words) - 15.59


def syllables_of(word: str) -> int:
    """Groups of vowels, at least one; a final e is silent unless `le` makes it heard.

    >>> [syllables_of(word) for word in ("divide", "table", "equation", "42", "denominator")]
    [2, 2, 3, 1, 5]
    """
    word = word.lower()
    groups = len(_VOWELS.findall(word))
    if word.endswith("e") and not word.endswith(("le", "ee")) and groups > 1:
        groups -= 1
    return max(1, groups)


def later_words(text: str, grade: int, known: str = "") -> Iterator[str]:
    """Words of `text` that later grades learn, unless `known` has them."""
    for word, pattern in _LATER.items():
        if WORD_GRADES[word] > grade and pattern.search(text) and not pattern.search(known):
            yield word


def fits_grade(text: str, grade: int, known: str = "") -> bool:
    """Whether a student of `grade` who wrote `known` can read `text`. A text without words fits nobody."""
    text = text[:MAX_CHARS]
    words = _WORD.findall(text)
    if not words or next(later_words(text, grade, known), None) is not None:
        return False
    return len(words) < MIN_WORDS or reading_level(text, known) <= max(grade, 1) + MARGIN
