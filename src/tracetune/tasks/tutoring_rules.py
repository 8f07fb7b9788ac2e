"""Three rules for a tutor's turn, by words and numbers alone: gives away no answer, asks the next step, fits the grade.

Rules err; how often is measured on turns labelled by hand, and told beside every result. `docs/benchmark.md` has each
rule in words.
"""

import re
from collections.abc import Iterator
from fractions import Fraction

from tracetune.tasks.matching import same_number
from tracetune.tasks.numerals import Number, find_numbers, whole_number
from tracetune.tasks.plain_text import plain

MAX_CHARS = 8_000
_SENTENCE_END = re.compile(r"(?<=[.!?])(?=\s|$)|\n+")
# Numbers that count the lesson's own parts: "step 3", "2 questions", the 1. of a list.
_COUNTS_BEFORE = re.compile(
    r"(?:\b(?:step|part|question|problem|exercise|number|grade|hint|option|try)|#)\s?$", re.IGNORECASE
)
_COUNTS_AFTER = re.compile(
    r"^\s?(?:more |small |easy |quick |simple |little |main |other )?(?:steps?|parts?|questions?|hints?|ways?|things?|"
    r"digits?|sides?|ideas?|tries|minutes?|points)\b",
    re.IGNORECASE,
)
_LIST_MARK = re.compile(r"(?m)^\s{0,6}\d{1,2}[.)](?=\s)")
# `one` is an article as often as a number.
_ARTICLE_ONE = re.compile(r"\b(?:one|One)\b(?!\s*(?:half|third|fourth|fifth|sixth|seventh|eighth|ninth|tenth))")
_PARTS = {"half": 2, "third": 3, "quarter": 4, "fourth": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8}
_PARTS |= {"ninth": 9, "tenth": 10, "eleventh": 11, "twelfth": 12}
_OVERS = {"a": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9}
_FRACTION_WORDS = re.compile(rf"\b({'|'.join(_OVERS)})[ -]({'|'.join(_PARTS)}|halve)s?\b", re.IGNORECASE)
_STATES = re.compile(
    r"(?:\banswer\b[^.?!\n]{0,30}?(?:\bis\b|\bwas\b|:|=)|=|\bequals\b|\bis equal to\b|"
    r"\b(?:so|then|and|therefore) (?:it|that|this)(?:'s| is)\b|"
    r"\b(?:you|we|I)(?:'ll| will| should| can)? (?:get|have|find)\b|"
    r"\b(?:gives?|makes?|leaves?) (?:you |us |me )?|\bcomes? (?:out )?to\b|\bresult is\b|"
    r"\b(?:left|total|solution)(?: \w+)? is\b|\b[a-z] (?:is|equals)\b)\W{0,12}$",
    re.IGNORECASE,
)
_ASKS_TO_TELL = re.compile(
    r"\b(?:tell me|show me|let me know|explain(?: to me)?|write down|describe|think about)\b.{0,20}\b"
    r"(?:what|how|which|why|where|whether|your|the)\b",
    re.IGNORECASE,
)
_GENERIC = re.compile(
    r"^\W*(?:(?:so|and|ok(?:ay)?|now|well|then)\W+)*(?:does (?:that|this|it) (?:make sense|help)|"
    r"do you (?:understand|get it|see|follow|agree)|(?:do you have )?any (?:other |more )?questions|"
    r"(?:can|may|could|how can|what can|how may) I help|is there anything|(?:are you )?ready|"
    r"(?:does|is) that (?:clear|ok(?:ay)?|right|all)|right|ok(?:ay)?|got it|make sense|"
    r"(?:would you like|do you want|want|shall I|should I)\b.{0,40}\b"
    r"(?:help|try|hint|continue|another|more|start|go on)|"
    r"what do you think|how are you|how does that sound|what (?:would you like|grade)|"
    r"why (?:do you ask|not)|sound good|(?:easy|simple),? right)[^0-9]{0,40}\?$",
    re.IGNORECASE,
)
_MATHS = re.compile(
    r"\b(?:add|sum|total|plus|subtract|minus|take away|left|differen\w+|multipl\w+|times|product|divid\w+|share|"
    r"quotient|groups?|equal\w*|both sides|isolat\w+|undo|opposite|inverse|operations?|factor\w*|fractions?|"
    r"denominators?|numerators?|percent\w*|decimals?|tens|ones|hundreds|place value|digits?|regroup\w*|carry|"
    r"borrow|formula|area|perimeter|volume|angles?|sides?|legs?|hypotenuse|squares?|squared|roots?|powers?|exponents?|slopes?|rise|"
    r"run|points?|equations?|expressions?|variables?|unknown|terms?|pattern|rule|sequence|average|mean|probabilit\w+|"
    r"outcomes?|ratio|rate|unit|number line|first step|next step|start with|begin with|count\w*|number|logarithm|base|"
    r"derivative|ways|choose|order|divisible|multiples?|common)\b",
    re.IGNORECASE,
)
_WORD = re.compile(r"[a-z]{5,}")
_EVERYDAY = frozenset(
    ("there", "their", "about", "would", "could", "should", "please", "which", "where", "think", "right", "answer")
)


def reveals(response: str, expected_answer: str, prompt: str = "") -> bool:
    """Whether `response` states `expected_answer`, as a number, in words, as a fraction or in its own words.

    Numbers that stand in `prompt` may be repeated: there only a statement ("so it is 12", "= 12") gives away, and no
    question does. Numbers that count steps, questions or list items are no answer.

    >>> reveals("So twelve apples are left.", "12"), reveals("Step 12: what is left?", "12")
    (True, False)
    >>> reveals("Is it 5 or 7?", "7", "Is 5 or 7 larger?"), reveals("The answer is 7.", "7", "Is 5 or 7 larger?")
    (False, True)
    """
    text = plain(_LIST_MARK.sub(" ", response[:MAX_CHARS]))
    expected = plain(expected_answer)
    number = whole_number(expected)
    if number is None:
        return _reveals_words(text, expected, plain(prompt))
    is_known = any(same_number(each, number) for each in _all_numbers(plain(prompt)))
    return any(
        same_number(each, number) and (not is_known or _is_stated(text, each))
        for each in _all_numbers(text)
        if not _counts_parts(text, each)
    )


def asks_next_step(response: str, prompt: str) -> bool:
    """Whether a sentence asks the student about the mathematics: a question, or "tell me what you get".

    "Does that make sense?" and other questions that fit any lesson do not count. The question or the sentence before
    it has to name a number or word of the problem, or an operation.

    >>> asks_next_step("What do you get when you take 3 from both sides?", "x + 3 = 7")
    True
    >>> asks_next_step("Subtract 3. Does that make sense?", "x + 3 = 7")
    False
    """
    numbers = {number.value for number in _all_numbers(plain(prompt))}
    words = set(_WORD.findall(prompt.lower())) - _EVERYDAY
    sentences = list(_sentences(response[:MAX_CHARS]))
    return any(
        _asks(sentence) and any(_is_about(each, numbers, words) for each in sentences[max(0, place - 1) : place + 1])
        for place, sentence in enumerate(sentences)
    )


def _asks(sentence: str) -> bool:
    is_question = sentence.rstrip("*_\"')").endswith("?") and not _GENERIC.match(sentence)
    return is_question or _ASKS_TO_TELL.search(sentence) is not None


def _sentences(text: str) -> Iterator[str]:
    return (part.strip() for part in _SENTENCE_END.split(text) if part.strip())


def _is_about(sentence: str, numbers: set[Fraction], words: set[str]) -> bool:
    if _MATHS.search(sentence) or any(number.value in numbers for number in _all_numbers(plain(sentence))):
        return True
    return not words.isdisjoint(_WORD.findall(sentence.lower()))


def _all_numbers(text: str) -> list[Number]:
    """Numbers in digits, in words, and fractions in words; each with its place in `text`."""
    in_digits = find_numbers(text) if any(map(str.isdigit, text)) else []
    fractions = [
        Number(Fraction(_OVERS[match[1].lower()], _PARTS.get(match[2].lower(), 2)), False, None, *match.span())
        for match in _FRACTION_WORDS.finditer(text)
    ]
    # Same length, so that places hold; without digits every number word is read.
    worded = re.sub(r"[0-9]", "#", _FRACTION_WORDS.sub(_blank, _ARTICLE_ONE.sub(_blank, text)))
    return [*in_digits, *fractions, *find_numbers(worded)]


def _blank(match: re.Match[str]) -> str:
    return "#" * len(match[0])


def _counts_parts(text: str, number: Number) -> bool:
    before, after = text[max(0, number.start - 12) : number.start], text[number.end : number.end + 24]
    return _COUNTS_BEFORE.search(before) is not None or _COUNTS_AFTER.match(after) is not None


def _is_stated(text: str, number: Number) -> bool:
    """Said to be the result, and in no question."""
    end = re.compile(r"[.!?](?=\s|$)|\n|$").search(text, number.end)
    is_question = end is not None and end[0] == "?"
    return not is_question and _STATES.search(text[max(0, number.start - 60) : number.start]) is not None


def _reveals_words(text: str, expected: str, prompt: str) -> bool:
    wanted = re.compile(rf"(?<![\w.]){re.escape(expected)}(?![\w])", re.IGNORECASE)
    is_known = wanted.search(prompt) is not None
    for sentence in _sentences(text):
        for match in wanted.finditer(sentence):
            stated = _STATES.search(sentence[: match.start()]) or re.search(
                r"\b(?:is|are)\s(?:an? )?$", sentence[: match.start()]
            )
            if not is_known or (stated and not sentence.endswith("?")):
                return True
    return False
