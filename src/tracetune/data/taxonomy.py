"""A curriculum: strands, topics, the grades that teach them, and the phrases that tell them.

The one that is shipped is `taxonomy.toml` beside this file, and says how to write one. A file of one's own is
checked whole: every mistake is told at once.
"""

import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.config.check import nearest
from tracetune.core.errors import InputError, NotFound
from tracetune.data.phrases import spellings

SHIPPED = Path(__file__).with_name("taxonomy.toml")
MAX_GRADE = 12
STRENGTHS = ("sure", "likely", "hint")
TOPIC_KEYS = ("name", "strand", "grades", *STRENGTHS, "unless", "yields_to")


class Topic(NamedTuple):
    """`sure`, `likely` and `hint` are phrases by what they prove; one of `unless` proves that it is another thing.

    `first` and `last` are the grades that teach it, 0 for kindergarten. Where a topic of `yields_to` is told as
    strongly, this one is only a part of it and is left out.
    """

    id: str
    name: str
    strand: str
    first: int
    last: int
    sure: tuple[str, ...]
    likely: tuple[str, ...]
    hint: tuple[str, ...]
    unless: tuple[str, ...]
    yields_to: tuple[str, ...]

    def taught_in(self, grade: int) -> bool:
        """Whether `grade` is one of its grades."""
        return self.first <= grade <= self.last


class Taxonomy(NamedTuple):
    """`strands` and `topics` by id, in the order of the file."""

    strands: Mapping[str, str]
    topics: Mapping[str, Topic]


def load_taxonomy(path: Path | None = None) -> Taxonomy:
    """The taxonomy of a TOML file, or the one that is shipped. Raises NotFound, InputError telling every mistake."""
    return _shipped() if path is None else _read(path)


def parse_taxonomy(text: str, where: str) -> Taxonomy:
    """Raises InputError naming `where` with every mistake of `text`."""
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{where}: is not TOML: {error}") from error
    mistakes: list[str] = []
    strands = _strands(content, mistakes)
    topics = _section(content, "topics", mistakes)
    unknown = [key for key in content if key not in ("strands", "topics")]
    mistakes += [f"unknown key {key}; there are strands and topics" for key in unknown]
    found = [_topic(name, topics[name], (strands, topics), mistakes) for name in topics]
    by_id = {topic.id: topic for topic in found if topic is not None}
    mistakes += _circles(by_id)
    if mistakes:
        raise InputError("\n".join(f"{where}: {mistake}" for mistake in mistakes))
    return Taxonomy(strands, by_id)


@cache
def _shipped() -> Taxonomy:
    return _read(SHIPPED)


def _read(path: Path) -> Taxonomy:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise NotFound(f"{path}: no such taxonomy; check the name and the folder") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); give a TOML file in UTF-8") from error
    return parse_taxonomy(text, str(path))


def _section(content: Mapping[str, Any], name: str, mistakes: list[str]) -> Mapping[str, Any]:
    section = content.get(name)
    if isinstance(section, Mapping) and section:
        return section
    mistakes.append(f"{name} must be a section with at least one entry, got {section!r:.60}")
    return {}


def _strands(content: Mapping[str, Any], mistakes: list[str]) -> dict[str, str]:
    strands = _section(content, "strands", mistakes)
    mistakes += [
        f"strands.{key} must be a name, got {name!r:.60}" for key, name in strands.items() if not _is_text(name)
    ]
    return {key: str(name) for key, name in strands.items()}


def _topic(
    name: str, content: Any, known: tuple[Mapping[str, str], Mapping[str, Any]], mistakes: list[str]
) -> Topic | None:
    """One topic, or None with its mistakes; `known` are the strands and the topics."""
    place, before = f"topics.{name}", len(mistakes)
    if not isinstance(content, Mapping):
        mistakes.append(f"{place} must be a section, got {content!r:.60}")
        return None
    strands, topics = known
    for key in content:
        if key not in TOPIC_KEYS:
            mistakes.append(f"{place}: unknown key {key}{nearest(key, TOPIC_KEYS)}")
    if not _is_text(content.get("name")):
        mistakes.append(f"{place}.name must be text, got {content.get('name')!r:.60}")
    _check_known(f"{place}.strand", [content.get("strand")], strands, mistakes)
    lists = {key: _texts(f"{place}.{key}", content.get(key, []), mistakes) for key in TOPIC_KEYS[3:]}
    _check_known(f"{place}.yields_to", lists["yields_to"], topics, mistakes)
    for key in (*STRENGTHS, "unless"):
        _check_phrases(f"{place}.{key}", lists[key], mistakes)
    if not any(lists[key] for key in STRENGTHS):
        mistakes.append(f"{place} must have a phrase under {', '.join(STRENGTHS)}; nothing tells it")
    grades = _grades(place, content.get("grades"), mistakes)
    if len(mistakes) > before:
        return None
    return Topic(name, content["name"], content["strand"], *grades, **lists)


def _circles(topics: Mapping[str, Topic]) -> list[str]:
    """Topics that yield to each other would all be left out."""
    try:
        TopologicalSorter({name: topic.yields_to for name, topic in topics.items()}).prepare()
    except CycleError as error:
        circle = " ← ".join(error.args[1])
        return [f"yields_to goes in a circle ({circle}), so all of these would be left out; take one out of it"]
    return []


def _grades(place: str, value: Any, mistakes: list[str]) -> tuple[int, int]:
    good = isinstance(value, list) and len(value) == 2 and all(type(grade) is int for grade in value)
    if good and 0 <= value[0] <= value[1] <= MAX_GRADE:
        return value[0], value[1]
    mistakes.append(f"{place}.grades must be [first, last] from 0 (kindergarten) to {MAX_GRADE}, got {value!r:.60}")
    return 0, 0


def _texts(place: str, value: Any, mistakes: list[str]) -> tuple[str, ...]:
    if isinstance(value, list) and all(map(_is_text, value)):
        return tuple(value)
    mistakes.append(f"{place} must be a list of texts, got {value!r:.60}")
    return ()


def _check_known(place: str, names: Iterable[Any], known: Mapping[str, Any], mistakes: list[str]) -> None:
    for name in names:
        if name not in known:
            near = nearest(name, list(known)) if isinstance(name, str) else ""
            mistakes.append(f"{place}: there is no {name!r:.60}{near or f'; there are {len(known)}'}")


def _check_phrases(place: str, phrases: Iterable[str], mistakes: list[str]) -> None:
    for phrase in phrases:
        try:
            spellings(phrase)
        except InputError as error:
            mistakes.append(f"{place}: {error}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())
