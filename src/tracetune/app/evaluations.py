"""Evaluations on record: written once by the run that made them, listed, read row by row, compared in pairs.

An evaluation is named by its id; its file is under the home folder and is checked against its sha256 when read.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tracetune.core.durable import write_durably
from tracetune.core.errors import Corrupt, InputError
from tracetune.core.home import home_folder
from tracetune.core.ids import file_hash
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.core.results import Comparison, EvalItem, EvalResult
from tracetune.core.values import EvalSet
from tracetune.evals.compare import compare
from tracetune.evals.metrics import BY_NAME, METRICS, Measured, Metric, MetricChange, compare_metrics, measure_all
from tracetune.evals.records import read_result
from tracetune.reports.summary import summarize
from tracetune.store import evalsets
from tracetune.store import evaluations as records
from tracetune.store.evaluations import EvaluationFilter, NewEvaluation, StoredEvaluation
from tracetune.store.open import open_store
from tracetune.tasks.grading import grade

__all__ = ["BY_NAME", "METRICS", "Measured", "Metric", "MetricChange", "StoredEvaluation"]

Verdict = Literal["correct", "wrong", "unscored"]
VERDICTS: Mapping[Verdict, bool | None] = {"correct": True, "wrong": False, "unscored": None}
FOLDER = "evaluations"
KEPT_RESULTS, MAX_KEPT_BYTES = 8, 8 * 2**20


class EvaluationRow(NamedTuple):
    """One answer: the item with its score, and how the answer ended where that was recorded."""

    item: EvalItem
    stop_reason: str | None
    num_tokens: int | None


def record_evaluation(
    home: Path | None, *, run_id: str | None, model: str, eval_set: str, file: Path
) -> StoredEvaluation:
    """Put an answers file on record, with its metrics; recording it again gives the same evaluation.

    `model` is the reference it was asked for by, `eval_set` the name of a registered set. The file is copied, so the
    record outlives its run. Raises NotFound for an unknown set, InputError for answers to other problems.
    """
    with open_store(home) as store:
        known = evalsets.get_evalset(store, eval_set)
        result = read_result(file, grade=grade, problems=known.problems)
        _check_problems(result, known, file.name)
        data = file.read_bytes()
        sha256 = hashlib.sha256(data).hexdigest()
        new = NewEvaluation(run_id, model, eval_set, known.content_hash, _summary(result, known), "", sha256)
        new = new._replace(file=f"{FOLDER}/{records.evaluation_id_of(new)}.jsonl")
        write_durably(home_folder(home) / new.file, data)
        return records.add_evaluation(store, new)


def get_evaluation(evaluation_id: str, home: Path | None = None) -> StoredEvaluation:
    """One evaluation. Raises NotFound."""
    with open_store(home) as store:
        return records.get_evaluation(store, evaluation_id)


def list_evaluations(
    *,
    limit: int = 20,
    cursor: str | None = None,
    eval_set: str | None = None,
    model: str | None = None,
    run_id: str | None = None,
    home: Path | None = None,
) -> Page[StoredEvaluation]:
    """The newest first."""
    before = None if cursor is None else decode_cursor(cursor)
    chosen = EvaluationFilter(eval_set=eval_set, model=model, run_id=run_id)
    with open_store(home) as store:
        found = records.list_evaluations(store, limit=limit + 1, before=before, chosen=chosen)
    more = len(found) > limit
    return Page(found[:limit], encode_cursor(found[limit - 1].seq) if more else None)


def evaluation_rows(
    evaluation_id: str,
    *,
    limit: int = 50,
    cursor: str | None = None,
    verdict: Verdict | None = None,
    home: Path | None = None,
) -> Page[EvaluationRow]:
    """Its answers in the eval set's order, all or those with one verdict."""
    start = 0 if cursor is None else decode_cursor(cursor)
    result = read_evaluation(get_evaluation(evaluation_id, home), home)
    places = [
        place
        for place, item in enumerate(result.items)
        if place >= start and (verdict is None or item.score.correct is VERDICTS[verdict])
    ][: limit + 1]
    rows = [_row(result, place) for place in places[:limit]]
    return Page(rows, encode_cursor(places[limit]) if len(places) > limit else None)


def compare_evaluations(before: str, after: str, home: Path | None = None) -> Comparison:
    """What changed between two evaluations, paired by eval_id.

    Raises NotFound, Corrupt for a file that was changed, InputError when they share no scored item.
    """
    old, new = (read_evaluation(get_evaluation(side, home), home) for side in (before, after))
    return compare(old, new)


def changes_between(before: str, after: str, home: Path | None = None) -> tuple[MetricChange, ...]:
    """Every metric's change between two evaluations, on the items that both have. Raises as `compare_evaluations`."""
    old, new = (read_evaluation(get_evaluation(side, home), home) for side in (before, after))
    return compare_metrics(old, new, METRICS)


def comparison_numbers(comparison: Comparison) -> dict[str, Any]:
    """A comparison as JSON values; texts of items are left out."""
    return summarize(comparison)


def read_evaluation(stored: StoredEvaluation, home: Path | None = None) -> EvalResult:
    """Its answers, called by the reference the model was asked for by. Raises Corrupt when the file has changed."""
    path = home_folder(home) / stored.file
    if not path.is_file():
        raise Corrupt(f"evaluation {stored.evaluation_id}: its file {stored.file} is missing; restore it from a backup")
    status = path.stat()
    read = _read_kept if status.st_size <= MAX_KEPT_BYTES else _read
    result = read(path, stored.file_sha256, status.st_mtime_ns, status.st_size)
    if result is None:
        told = f"its file {stored.file} differs from its recorded sha256; restore it from a backup"
        raise Corrupt(f"evaluation {stored.evaluation_id}: {told}")
    return replace(result, model=stored.model)


def _read(path: Path, sha256: str, modified_ns: int, num_bytes: int) -> EvalResult | None:
    """None when the bytes are others. Time and size are there to read again what was touched."""
    del modified_ns, num_bytes
    return None if file_hash(path) != sha256 else read_result(path, grade=grade)


_read_kept = lru_cache(maxsize=KEPT_RESULTS)(_read)


def _row(result: EvalResult, place: int) -> EvaluationRow:
    item = result.items[place]
    ending = result.meta["items"].get(item.eval_id, {})
    return EvaluationRow(item, ending.get("stop_reason"), ending.get("num_tokens"))


def _check_problems(result: EvalResult, known: EvalSet, where: str) -> None:
    """Every row must answer a problem of the set as it is registered."""
    problems = {problem.id: problem for problem in known.problems}
    for item in result.items:
        problem = problems.get(item.eval_id)
        if problem is None or (problem.prompt, problem.answer) != (item.prompt, item.expected_answer):
            told = "is not in it" if problem is None else "has another prompt or expected answer there"
            raise InputError(f"{where}: eval set {known.name}: {item.eval_id!r:.80} {told}; evaluate on that set")


def _summary(result: EvalResult, known: EvalSet) -> dict[str, Any]:
    return {
        "num_items": len(result.items),
        "num_problems": len(known.problems),
        "metrics": {name: _measured(found) for name, found in measure_all(result).items()},
    }


def _measured(found: Measured) -> dict[str, Any]:
    return {**found._asdict(), "interval": None if found.interval is None else list(found.interval)}
