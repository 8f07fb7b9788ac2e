"""The state of the trace browser as a URL, and the values of meta that are worth filtering by."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tracetune.api.traces import META_PREFIX
from tracetune.app import traces
from tracetune.core.trace import Trace
from tracetune.web.wording import query

NAMED = ("source", "game")
# Shown first where traces have them; then what most of the shown traces have.
FAMILIAR = ("source", "game", "result", "style", "category", "difficulty", "tags", "topic_tags", "correct", "model")
MAX_GROUPS, MAX_VALUES, MAX_LEAVES = 8, 8, 200
COUNTED_UP_TO = 10_000
MAX_WORDS, MAX_WORD_CHARS = 4, 40


class Browsing(NamedTuple):
    """What is asked for: words, and values of meta as typed."""

    q: str | None
    filters: Mapping[str, str]

    def parameters(self) -> list[tuple[str, str]]:
        """The filters as query parameters; those of the contract by their own names."""
        return [(key if key in NAMED else META_PREFIX + key, value) for key, value in self.filters.items()]

    def url(self, path: str = "/traces", cursor: str | None = None) -> str:
        """The address of this search."""
        return path + query({"q": self.q, **dict(self.parameters()), "cursor": cursor})

    def build_url(self) -> str:
        """The form that freezes what matches; words are no filter of a dataset."""
        return "/datasets/new" + query({"filter": [f"{key}={value}" for key, value in self.filters.items()]})

    def toggled(self, key: str, value: str) -> "Browsing":
        """With one filter more, or without it where it is in force."""
        kept = {name: text for name, text in self.filters.items() if name != key}
        return Browsing(self.q, kept if self.filters.get(key) == value else {**kept, key: value})

    def chips(self) -> list[dict[str, str]]:
        """Everything in force, each with the address without it."""
        words = [{"label": f"words: {self.q}", "without": Browsing(None, self.filters).url()}] if self.q else []
        return words + [
            {"label": f"{key} = {value}", "without": self.toggled(key, value).url()}
            for key, value in self.filters.items()
        ]


def facet_groups(browsing: Browsing, shown: Sequence[Trace], home: Path) -> list[dict[str, Any]]:
    """The keys worth a look, each with its most frequent values among all traces and where they lead."""
    groups = []
    for key in _keys(browsing, shown):
        values = [_value(browsing, key, found) for found in traces.trace_facets(key, limit=MAX_VALUES, home=home)]
        if values:
            groups.append({"key": key, "values": values})
    return groups


def _value(browsing: Browsing, key: str, found: traces.FacetCount) -> dict[str, Any]:
    text = label(found.value)
    return {
        "label": text,
        "total": found.num_traces,
        "at_least": found.num_traces >= COUNTED_UP_TO,
        "url": browsing.toggled(key, text).url(),
        "picked": browsing.filters.get(key) == text,
    }


def _keys(browsing: Browsing, shown: Sequence[Trace]) -> list[str]:
    """Those in force, the familiar ones, then the most common whose values repeat: an id is no facet."""
    counts: Counter[str] = Counter()
    values: dict[str, set[str]] = {}
    for trace in shown:
        for path, value in leaves(trace.meta or {}):
            counts[path] += 1
            values.setdefault(path, set()).add(label(value))
    familiar = [key for key in FAMILIAR if key in counts]
    repeated = [key for key, count in counts.most_common() if len(values[key]) <= max(2, count // 2)]
    return list(dict.fromkeys([*browsing.filters, *familiar, *repeated]))[:MAX_GROUPS]


def leaves(meta: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(path, value) of what stands in meta, an item of a list at the list's path; of at most so many values."""
    waiting: list[tuple[str, Any]] = [(prefix + str(key), value) for key, value in reversed(list(meta.items()))]
    for _ in range(MAX_LEAVES):
        if not waiting:
            return
        path, value = waiting.pop()
        if isinstance(value, Mapping) and value:
            waiting += [(f"{path}.{key}", item) for key, item in reversed(list(value.items()))]
        elif isinstance(value, list) and value:
            waiting += [(path, item) for item in reversed(value)]
        else:
            yield path, value


def label(value: Any) -> str:
    """A value as one types it into a filter."""
    return value if isinstance(value, str) else orjson.dumps(value, default=str).decode()


def telling_words(shown: Sequence[Trace]) -> list[list[str]]:
    """For each trace a few short values of meta that tell it from the others on the page."""
    found = [[(path, label(value)) for path, value in leaves(trace.meta or {})] for trace in shown]
    counts = Counter(pair for pairs in found for pair in set(pairs))
    common = {pair for pair, count in counts.items() if count == len(shown) > 1}
    order = {key: place for place, key in enumerate(FAMILIAR)}
    kept = [
        [(path, text) for path, text in pairs if (path, text) not in common and len(text) <= MAX_WORD_CHARS]
        for pairs in found
    ]
    return [
        [f"{path} {text}" for path, text in sorted(pairs, key=lambda pair: order.get(pair[0], len(order)))[:MAX_WORDS]]
        for pairs in kept
    ]
