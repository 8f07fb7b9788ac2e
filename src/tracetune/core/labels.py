"""What a row says about itself beside its text: the school grade it is for, and the topics it is tagged with.

A label may stand in the row or in its `meta` or `metadata`; one that stands in the row must be readable.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tracetune.core.errors import InputError

# What labels a row, wherever it stands: for a trace, beside its fields or in its meta.
LABEL_FIELDS = ("grade", "topic_tags", "tagging_metadata")
_GRADE_WORD = re.compile(r"grade[\s_-]*", re.IGNORECASE)


class Labels(NamedTuple):
    """A row's grade and topics.

    >>> Labels("3", ("fractions",)).grade
    '3'
    """

    grade: str | None = None
    topics: tuple[str, ...] = ()


class Wanted(NamedTuple):
    """Which rows are chosen by their labels; None takes any. Of `topics` a row needs one."""

    grades: tuple[str, ...] | None = None
    topics: tuple[str, ...] | None = None

    def takes(self, labels: Labels) -> bool:
        """Whether a row with these labels is chosen."""
        grade_fits = self.grades is None or labels.grade in self.grades
        return grade_fits and (self.topics is None or not set(self.topics).isdisjoint(labels.topics))

    def told(self) -> str:
        """The choice in words, as the end of a sentence."""
        parts = (("grade", self.grades), ("topic", self.topics))
        return " and ".join(f"{name} {' or '.join(names)}" for name, names in parts if names is not None)


def read_labels(row: Mapping[str, Any], where: str) -> Labels:
    """The labels of a row as JSON gave it. Raises InputError naming `where` for `grade` or `topic_tags` of another
    kind.

    >>> read_labels({"grade": "Grade 3", "topic_tags": ["fractions"]}, "f:1")
    Labels(grade='3', topics=('fractions',))
    """
    for name, good, meaning in (
        ("grade", _is_grade, "text or a number"),
        ("topic_tags", _is_topics, "a list of texts"),
    ):
        if row.get(name) is not None and not good(row[name]):
            raise InputError(f"{where}: {name} must be {meaning}, got {row[name]!r:.80}; mend it or leave it out")
    return labels_of(row)


def labels_of(row: Mapping[str, Any]) -> Labels:
    """The labels that a row and its meta hold; what cannot be read as one is none."""
    inner = [value for name in ("meta", "metadata") if isinstance(value := row.get(name), Mapping)]
    grades = [fields["grade"] for fields in (row, *inner) if _is_grade(fields.get("grade"))]
    topics = [fields["topic_tags"] for fields in (row, *inner) if _is_topics(fields.get("topic_tags"))]
    return Labels(grade_name(grades[0]) if grades else None, tuple(topics[0]) if topics else ())


def grade_name(value: Any) -> str:
    """One spelling for a grade: `3`, `"3"` and `"Grade 3"` are one, and so are `k` and `K`.

    >>> grade_name(3), grade_name("grade 3"), grade_name("k")
    ('3', '3', 'K')
    """
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return _GRADE_WORD.sub("", text.strip()).upper()


def grade_order(names: Iterable[str]) -> list[str]:
    """Grades from the youngest: pre-kindergarten, kindergarten, then numbers, then other names.

    >>> grade_order(["10", "2", "K", "PK"])
    ['PK', 'K', '2', '10']
    """
    return sorted(names, key=_rank)


def _rank(name: str) -> tuple[float, str]:
    early = {"PK": -2.0, "PREK": -2.0, "PRE-K": -2.0, "K": -1.0}
    if name in early:
        return early[name], name
    number = re.match(r"\d+(\.\d+)?", name)
    return (float(number[0]) if number else float("inf")), name


def _is_grade(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool) and bool(grade_name(value))


def _is_topics(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(tag, str) for tag in value)
