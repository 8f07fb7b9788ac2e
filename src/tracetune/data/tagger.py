"""Which topics of a curriculum a problem is about, how sure that is, and in which grades it belongs.

Confidence is 1 − ∏(1 − w) over the phrases of a topic that stand in the problem, w by what each proves: a topic
with one `sure` phrase has 0.95, with one `likely` 0.75, with two hints 0.64. A phrase counts once, however often it
stands there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tracetune.core.errors import InputError
from tracetune.data.phrases import PhraseIndex
from tracetune.data.problem_tokens import read_tokens
from tracetune.data.taxonomy import MAX_GRADE, STRENGTHS, Taxonomy, Topic

WEIGHTS = {"sure": 0.95, "likely": 0.75, "hint": 0.4}
MIN_CONFIDENCE = 0.5
MAX_SUGGESTIONS = 3
# Below this nothing is told, whatever is asked for.
TOLD = 1e-9
# The largest whole number that the first grades calculate with, by grade.
NUMBERS_BY_GRADE = (10, 20, 100, 1000)


class Tags(NamedTuple):
    """Confidence by topic, the surest first; `grades` lists the likeliest first, 0 for kindergarten.

    >>> from tracetune.data.taxonomy import load_taxonomy
    >>> Tagger(load_taxonomy()).tag("What is 25% of 80?").to_json()
    {'auto_tags': ['percent'], 'confidence': {'percent': 0.95}, 'grade_suggestions': [5, 6, 7]}
    """

    confidence: Mapping[str, float]
    grades: Sequence[int]

    def to_json(self) -> dict[str, Any]:
        """The row's `tagging_metadata`."""
        return {
            "auto_tags": list(self.confidence),
            "confidence": dict(self.confidence),
            "grade_suggestions": list(self.grades),
        }


class Tagger:
    """A taxonomy made ready to search."""

    def __init__(self, taxonomy: Taxonomy, *, grade: int | None = None, min_confidence: float = MIN_CONFIDENCE) -> None:
        """With `grade` only topics taught in it are told. Raises InputError for a grade or confidence out of range."""
        if grade is not None and not 0 <= grade <= MAX_GRADE:
            raise InputError(f"grade must be from 0 (kindergarten) to {MAX_GRADE}, got {grade}")
        if not 0 <= min_confidence <= 1:
            raise InputError(f"min_confidence must be from 0 to 1, got {min_confidence}")
        self._topics = tuple(taxonomy.topics.values())
        places = {topic.id: place for place, topic in enumerate(self._topics)}
        self._wholes = [{places[whole] for whole in topic.yields_to} for topic in self._topics]
        self._untaught = {
            place for place, topic in enumerate(self._topics) if grade is not None and not topic.taught_in(grade)
        }
        self._min_confidence = max(min_confidence, TOLD)
        self._evidence: list[tuple[int, float]] = []
        self._index = PhraseIndex(self._numbered())

    def tag(self, text: str) -> Tags:
        """The topics of one problem."""
        tokens = read_tokens(text)
        told = self._told(tokens)
        # What is only a part of another topic is left out, whether or not the other is taught in the grade.
        places = [place for place in sorted(told) if told.keys().isdisjoint(self._wholes[place])]
        places = [place for place in places if place not in self._untaught]
        places.sort(key=lambda place: -told[place])  # stable: equals stay in the taxonomy's order
        topics = [self._topics[place] for place in places]
        confidence = {topic.id: round(told[place], 4) for topic, place in zip(topics, places, strict=True)}
        return Tags(confidence, _grades(topics, tokens))

    def _numbered(self) -> list[tuple[int, str]]:
        """Every phrase with its number, under which `_evidence` has the place of its topic and the doubt it leaves."""
        phrases = []
        for place, topic in enumerate(self._topics):
            weighed = [(phrase, 1 - WEIGHTS[strength]) for strength in STRENGTHS for phrase in getattr(topic, strength)]
            for phrase, doubt in [*weighed, *((phrase, math.inf) for phrase in topic.unless)]:
                phrases.append((len(self._evidence), phrase))
                self._evidence.append((place, doubt))
        return phrases

    def _told(self, tokens: Sequence[tuple[str, ...]]) -> dict[int, float]:
        """The confidence of each topic that is told surely enough, by place."""
        doubts: dict[int, float] = {}
        for number in self._index.find(tokens):
            place, doubt = self._evidence[number]
            doubts[place] = doubts.get(place, 1.0) * doubt
        return {place: 1 - doubt for place, doubt in doubts.items() if 1 - doubt >= self._min_confidence}


def _grades(topics: Sequence[Topic], tokens: Sequence[tuple[str, ...]]) -> list[int]:
    """From the first grade that teaches all of the topics, on to the last that still teaches the hardest."""
    if not topics:
        return []
    first = max(topic.first for topic in topics)
    last = min(topic.last for topic in topics if topic.first == first)
    if first < len(NUMBERS_BY_GRADE):
        digits = (keys[0].replace(",", "") for keys in tokens if "{n}" in keys)
        largest = max((int(number) for number in digits if number.isdecimal()), default=0)
        first = max(first, min(last, sum(largest > bound for bound in NUMBERS_BY_GRADE)))
    return list(range(first, min(last, first + MAX_SUGGESTIONS - 1) + 1))
