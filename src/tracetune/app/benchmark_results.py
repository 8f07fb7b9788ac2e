"""Answers → the four result files: each rate with its count and interval, by grade, topic, category and set."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tracetune.core.benchmark import FAILED, PART_OF, PARTS, RATES, SECTIONS, BenchmarkAnswer, BenchmarkItem, Part
from tracetune.core.ids import content_hash
from tracetune.core.results import Accuracy, EvalResult
from tracetune.evals.benchmark import as_result, rate
from tracetune.evals.calibration import rule_errors
from tracetune.evals.compare import DIFFICULTIES

VERSION = 1
MAX_FAILURES_NAMED = 50
FILES: Mapping[Part, str] = {part: f"{part}_results.json" for part in PARTS}


class Prices(NamedTuple):
    """Of a million tokens, in any currency."""

    prompt: float
    completion: float


def part_results(
    part: Part, model_name: str, answers: Sequence[BenchmarkAnswer], judged: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`math_results.json` and its siblings; `judged` is what a second judge said about this part."""
    mine = [answer for answer in answers if answer.item.part == part]
    result = as_result(model_name, mine)
    failed = [answer for answer in mine if answer.response is None]
    return {
        "model_name": model_name,
        "evaluation": SECTIONS[part],
        **counts(mine),
        "metrics": {name: told(rate(result, name)) for name, _, _ in RATES[part]},
        **{f"by_{kind}": _slices(part, result, groups) for kind, groups in _groups(mine).items()},
        **({"recorded_verdicts": _agreement(result, mine)} if part == "math" and _is_recorded(mine) else {}),
        **({"judge": {key: judged[key] for key in ("model", "metrics", "unjudged")}} if judged else {}),
        **({"calibration": _calibration(part, judged)} if part != "math" and mine else {}),
        "failures": [{"id": answer.item.id, "error": answer.error} for answer in failed[:MAX_FAILURES_NAMED]],
    }


def evaluations(answers: Sequence[BenchmarkAnswer]) -> dict[str, dict[str, float | None]]:
    """The contract's sections: one number a metric, null where nothing was asked or all failed."""
    result = as_result("", answers)
    values = {name: rate(result, name) for name in PART_OF}
    return {
        SECTIONS[part]: {name: None if (found := values[name]) is None else found.value for name, _, _ in RATES[part]}
        for part in PARTS
    }


def rates(answers: Sequence[BenchmarkAnswer]) -> dict[str, dict[str, Any]]:
    """Every metric that has a number, with its count and interval."""
    result = as_result("", answers)
    found = {name: told(rate(result, name)) for name in (*PART_OF, FAILED)}
    return {name: each for name, each in found.items() if each is not None}


def counts(answers: Sequence[BenchmarkAnswer]) -> dict[str, int]:
    """Failed stands apart: nothing came back, so nothing was wrong."""
    failed = sum(answer.response is None for answer in answers)
    return {"total": len(answers), "answered": len(answers) - failed, "failed": failed}


def costs(answers: Sequence[BenchmarkAnswer], prices: Prices | None) -> dict[str, Any]:
    """Latency in seconds, tokens where they were told, and their price where one was given."""
    times = [answer.latency for answer in answers if answer.latency is not None and answer.response is not None]
    tokens = {
        "prompt": sum(answer.prompt_tokens or 0 for answer in answers),
        "completion": sum(answer.completion_tokens or 0 for answer in answers),
        "told_for": sum(answer.completion_tokens is not None for answer in answers),
    }
    found: dict[str, Any] = {"latency": None, "tokens": tokens, "tries": sum(answer.tries for answer in answers)}
    if times:
        p50, p95 = (float(share) for share in np.percentile(times, (50, 95)))
        found["latency"] = {"p50": p50, "p95": p95, "max": max(times)}
    if prices is not None:
        total = (tokens["prompt"] * prices.prompt + tokens["completion"] * prices.completion) / 1e6
        found["cost"] = {"total": total, "price_in": prices.prompt, "price_out": prices.completion}
    return found


def items_hash(items: Sequence[BenchmarkItem]) -> str:
    """Equal for two benchmarks that asked the same."""
    return content_hash(sorted([item.id, item.prompt, item.expected_answer] for item in items))


def _calibration(part: Part, judged: Mapping[str, Any] | None) -> dict[str, Any]:
    """How often who errs, on answers labelled by hand."""
    return {"rules": rule_errors(part), **({f"judge {judged['model']}": judged["errors"]} if judged else {})}


def told(found: Accuracy | None) -> dict[str, Any] | None:
    """A rate as the files have it."""
    if found is None:
        return None
    return {"value": found.value, "count": found.correct, "total": found.total, "interval": list(found.interval)}


def _groups(answers: Sequence[BenchmarkAnswer]) -> dict[str, dict[str, list[str]]]:
    """Item ids by label: grades and difficulties ascending, others as they appear; an item may have several topics."""
    groups: dict[str, dict[str, list[str]]] = {
        kind: {} for kind in ("grade", "topic", "category", "difficulty", "dataset")
    }
    for answer in sorted(answers, key=lambda answer: -1 if answer.item.grade is None else answer.item.grade):
        item = answer.item
        labels = {"grade": () if item.grade is None else (("K" if item.grade == 0 else str(item.grade)),)}
        labels |= {"topic": item.topics, "dataset": (item.dataset,)}
        labels |= {"category": (item.category,) if item.category else ()}
        labels |= {"difficulty": (item.difficulty,) if item.difficulty else ()}
        for kind, names in labels.items():
            for name in names:
                groups[kind].setdefault(name, []).append(item.id)
    known = {name: groups["difficulty"].pop(name) for name in DIFFICULTIES if name in groups["difficulty"]}
    return {**groups, "difficulty": known | groups["difficulty"]}


def _slices(part: Part, result: EvalResult, groups: Mapping[str, list[str]]) -> dict[str, Any]:
    return {
        name: {
            metric: told(rate(result, metric, set(ids))) for metric in (*(name for name, _, _ in RATES[part]), FAILED)
        }
        for name, ids in groups.items()
    }


def _is_recorded(answers: Sequence[BenchmarkAnswer]) -> bool:
    return any(answer.recorded_correct is not None for answer in answers)


def _agreement(result: EvalResult, answers: Sequence[BenchmarkAnswer]) -> dict[str, Any]:
    """Whether the grader says what the file's own verdicts say."""
    mine = {item.eval_id: item.score.correct for item in result.items}
    judged = [answer for answer in answers if answer.recorded_correct is not None]
    differ = [answer.item.id for answer in judged if mine[answer.item.id] is not answer.recorded_correct]
    return {"agree": len(judged) - len(differ), "differ": len(differ), "differing": differ[:MAX_FAILURES_NAMED]}
