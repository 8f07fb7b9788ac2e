"""Traces, the verbs every door shares: add, list and search, look at, delete, score, compare.

Adding is safe to repeat: equal content is one trace, whoever sends it and how often.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.core.errors import InputError
from tracetune.core.filters import text_filter
from tracetune.core.ids import utc_now
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.core.trace import StoredTrace, Trace
from tracetune.store import facet_counts as counts
from tracetune.store import scores
from tracetune.store import traces as records
from tracetune.store.arrivals import arrival_times
from tracetune.store.facet_counts import FacetCount
from tracetune.store.open import open_store
from tracetune.store.scores import StoredScore
from tracetune.tasks.grading import grade

__all__ = ["FacetCount", "StoredScore", "StoredTrace"]

CRITERIA = ("baseline", "answer_correctness")
# Each half of the baseline is worth 50: ten steps, and steps of 500 characters, reach it.
FULL_STEPS, FULL_STEP_CHARS, HALF = 10, 500, 50.0


class TraceHead(NamedTuple):
    """What whoever adds a trace is told of it."""

    id: str
    created_at: str
    trace_version: str


class Added(NamedTuple):
    """`heads` has one per given trace, in order; `created_count` of them are new, the rest were there already."""

    heads: list[TraceHead]
    created_count: int

    @property
    def duplicate_count(self) -> int:
        """Given traces whose content was stored before."""
        return len(self.heads) - self.created_count


class ScoredTrace(NamedTuple):
    """A trace with its baseline score."""

    stored: StoredTrace
    score: float


def add_traces(new_traces: Sequence[Trace], home: Path | None = None) -> Added:
    """Store checked traces in one transaction: all, or on an error none."""
    with open_store(home) as store:
        added = records.add_traces(store, new_traces)
        times = arrival_times(store, added.ids)
    now = utc_now()  # of a trace that another client deleted since
    heads = [
        TraceHead(trace_id, times.get(trace_id, now), trace.trace_version)
        for trace_id, trace in zip(added.ids, new_traces, strict=True)
    ]
    return Added(heads, len(added.created))


def list_traces(
    *,
    limit: int = 20,
    cursor: str | None = None,
    offset: int = 0,
    q: str | None = None,
    filters: Mapping[str, Any] | None = None,
    home: Path | None = None,
) -> Page[StoredTrace]:
    """Newest first: traces with every word of `q` and every value of `filters` (keys of meta, `a.b` goes inside).

    A cursor costs the same on every page and misses nothing while traces are added; `offset` does neither.
    """
    if cursor is not None and offset:
        raise InputError(f"offset: cannot be used with a cursor, got {offset}; use one of them")
    before = None if cursor is None else decode_cursor(cursor)
    with open_store(home) as store:
        # One row more than asked for tells whether there is a next page.
        rows = records.list_traces(store, limit=limit + 1, before=before, offset=offset, q=q or None, filters=filters)
    following = encode_cursor(rows[limit - 1].seq) if len(rows) > limit else None
    return Page([row.stored for row in rows[:limit]], following)


def typed_filters(texts: Mapping[str, str]) -> dict[str, Any]:
    """Filters from values typed as text: `3` is asked for as the number and as the text.

    >>> typed_filters({"grade": "3"})["grade"].values
    ('3', 3)
    """
    return {key: text_filter(text) for key, text in texts.items()}


def trace_facets(key: str, *, limit: int = 20, home: Path | None = None) -> list[FacetCount]:
    """The most frequent values that traces have at a key of meta; counts are exact up to 10,000."""
    with open_store(home) as store:
        return counts.facet_counts(store, key, limit)


def get_trace(trace_id: str, home: Path | None = None) -> StoredTrace:
    """One trace. Raises NotFound."""
    with open_store(home) as store:
        return records.get_trace(store, trace_id)


def delete_trace(trace_id: str, home: Path | None = None) -> None:
    """Remove one trace with its scores; frozen datasets keep their rows. Raises NotFound."""
    with open_store(home) as store:
        records.delete_trace(store, trace_id)


def score_trace(trace_id: str, criteria: str = "baseline", home: Path | None = None) -> StoredScore:
    """Score a trace and remember the verdict. Raises NotFound, InputError for criteria it cannot be scored by."""
    if criteria not in CRITERIA:
        raise InputError(f"criteria: must be one of {', '.join(CRITERIA)}, got {criteria!r}")
    with open_store(home) as store:
        trace = records.get_trace(store, trace_id).trace
        score, details = _BY_CRITERIA[criteria](trace)
        scored_at = utc_now()
        details |= {"criteria": criteria, "scored_at": scored_at}
        verdict = StoredScore(trace_id, criteria, score, details, scored_at)
        scores.save_score(store, verdict)
    return verdict


def trace_scores(trace_id: str, home: Path | None = None) -> list[StoredScore]:
    """The scores that have been given to one trace."""
    with open_store(home) as store:
        return scores.read_scores(store, (trace_id,)).get(trace_id, [])


def compare_traces(base_id: str, other_id: str, home: Path | None = None) -> tuple[ScoredTrace, ScoredTrace]:
    """Two traces side by side with their baseline scores, scored before or not. Raises NotFound."""
    base, other = get_trace(base_id, home), get_trace(other_id, home)
    return ScoredTrace(base, baseline(base.trace)[0]), ScoredTrace(other, baseline(other.trace)[0])


def baseline(trace: Trace) -> tuple[float, dict[str, Any]]:
    """min(steps / 10, 1) · 50 + min(mean step characters / 500, 1) · 50: how much is written, not whether it is right.

    >>> from tracetune.core.trace import Step
    >>> baseline(Trace("1.0", "p", "a", (Step(0, "t", "x" * 250),)))[0]
    30.0
    """
    total = sum(len(step.content) for step in trace.steps)
    average = total / len(trace.steps) if trace.steps else 0.0
    step_score = min(len(trace.steps) / FULL_STEPS, 1.0) * HALF
    length_score = min(average / FULL_STEP_CHARS, 1.0) * HALF
    details = {
        "step_count": len(trace.steps),
        "avg_step_length": average,
        "total_chars": total,
        "step_score": step_score,
        "length_score": length_score,
    }
    return step_score + length_score, details


def _answer_correctness(trace: Trace) -> tuple[float, dict[str, Any]]:
    expected = (trace.meta or {}).get("expected_answer")
    if not isinstance(expected, str | int | float) or isinstance(expected, bool):
        raise InputError("criteria: answer_correctness needs meta.expected_answer, and this trace has none")
    verdict = grade(trace.final_answer, str(expected))
    if verdict.correct is None:
        raise InputError(f"criteria: meta.expected_answer cannot be judged against ({verdict.reason})")
    details = {"correct": verdict.correct, "reason": verdict.reason, "parsed": verdict.parsed}
    return 100.0 if verdict.correct else 0.0, {**baseline(trace)[1], **details}


_BY_CRITERIA = {"baseline": baseline, "answer_correctness": _answer_correctness}
