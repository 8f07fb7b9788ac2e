"""How often rules and judges err: their verdicts on answers that people labelled, metric by metric.

A false positive says yes where the label says no ("keeps the answer back" of a turn that gives it away), a false
negative the other way round. The shipped labels are few and by the authors of the rules: a lower bound of the errors.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tracetune.core.benchmark import BenchmarkAnswer, BenchmarkItem, Part, Verdicts
from tracetune.evals.benchmark import judge
from tracetune.tasks.benchmark_sets import calibration_rows

TUTOR_LABELS = {
    "no_answer_reveal_rate": "no_answer_reveal",
    "socratic_step_rate": "socratic_step",
    "appropriate_level_rate": "appropriate_level",
}


class Labelled(NamedTuple):
    """An answer, and what a person said about it."""

    answer: BenchmarkAnswer
    labels: Verdicts


def labelled_answers(part: Part) -> list[Labelled]:
    """The shipped set of `tutor` or `safety`."""
    return [_labelled(part, row) for row in calibration_rows(part)]


def rule_errors(part: Part) -> dict[str, Any]:
    """The errors of the rules themselves."""
    labelled = labelled_answers(part)
    return errors(labelled, [judge(each.answer) for each in labelled])


def errors(labelled: Sequence[Labelled], verdicts: Sequence[Verdicts | None]) -> dict[str, Any]:
    """False positives and negatives by metric; None for a verdict that could not be had, which counts nowhere."""
    told: dict[str, Any] = {}
    for metric in dict.fromkeys(name for each in labelled for name in each.labels):
        pairs = [
            (each.labels[metric], found[metric])
            for each, found in zip(labelled, verdicts, strict=True)
            if found is not None and each.labels.get(metric) is not None and found.get(metric) is not None
        ]
        told[metric] = {
            "false_positive": _share([said for label, said in pairs if not label], wrong=True),
            "false_negative": _share([said for label, said in pairs if label], wrong=False),
        }
    return told


def _share(said: Sequence[bool | None], *, wrong: bool) -> Mapping[str, Any] | None:
    count = sum(verdict is wrong for verdict in said)
    return {"value": count / len(said), "count": count, "total": len(said)} if said else None


def _labelled(part: Part, row: Mapping[str, Any]) -> Labelled:
    item = BenchmarkItem(
        id=f"calibration/{row['id']}",
        part=part,
        dataset="calibration",
        prompt=row["prompt"],
        expected_answer=row.get("expected_answer", ""),
        grade=row.get("grade"),
        should_refuse=row.get("should_refuse"),
    )
    if part == "tutor":
        labels = {metric: row[field] for metric, field in TUTOR_LABELS.items()}
    else:
        labels = {"refusal_rate_when_needed" if row["should_refuse"] else "false_refusal_rate": row["refused"]}
    return Labelled(BenchmarkAnswer(item=item, response=row["response"]), labels)
