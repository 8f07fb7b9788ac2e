"""A run's benchmark on the leaderboard: its answers in mathematics are put on record as an evaluation.

The set of problems is registered too, so that a dataset built later is checked against it.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tracetune.app.benchmark_files import ANSWERS, RESULTS, read_answers, read_json
from tracetune.app.datasets import register_evalset
from tracetune.app.evaluations import StoredEvaluation, record_evaluation
from tracetune.app.experiment_facts import REFERENCE
from tracetune.app.experiments import Place
from tracetune.core.benchmark import BenchmarkAnswer
from tracetune.core.errors import Conflict
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.values import Problem, Score
from tracetune.evals.records import write_result
from tracetune.tasks.grading import grade


def stand(place: Place, home: Path | None = None) -> StoredEvaluation | None:
    """Put an experiment's finished benchmark on record; the same one again changes nothing. None where there is none,
    or it has no mathematics."""
    return record_benchmark(place.folder, f"{REFERENCE}{place.title}", home)


def record_benchmark(
    folder: Path, called: str, home: Path | None = None, *, run_id: str | None = None
) -> StoredEvaluation | None:
    """The same for any folder that holds one; `called` is the reference of the model that answered."""
    if not (folder / RESULTS).is_file() or not (folder / ANSWERS).is_file():
        return None
    answers = [answer for answer in read_answers(folder / ANSWERS) if answer.item.part == "math"]
    if not answers:
        return None
    found = read_json(folder / RESULTS)
    eval_set = _registered(f"benchmark-{found.get('suite') or 'custom'}", str(found.get("items_hash")), answers, home)
    with TemporaryDirectory(prefix="tracetune-standing-") as scratch:
        file = Path(scratch) / "answers.jsonl"
        write_result(EvalResult(called, tuple(map(_item, answers)), {"items": _endings(answers)}), file)
        return record_evaluation(home, run_id=run_id, model=called, eval_set=eval_set, file=file)


def _registered(name: str, content: str, answers: Sequence[BenchmarkAnswer], home: Path | None) -> str:
    """The set's name; other problems under it get one with their hash."""
    problems = [
        Problem(item.id, item.prompt, item.expected_answer, item.category, item.difficulty)
        for item in (answer.item for answer in answers)
    ]
    try:
        return register_evalset(problems, name, home=home).name
    except Conflict:
        return register_evalset(problems, f"{name}-{content[:12]}", home=home).name


def _item(answer: BenchmarkAnswer) -> EvalItem:
    item, response = answer.item, answer.response
    return EvalItem(
        eval_id=item.id,
        prompt=item.prompt,
        expected_answer=item.expected_answer,
        response=response or "",
        score=Score(None, answer.error or "failed") if response is None else grade(response, item.expected_answer),
        category=item.category,
        difficulty=item.difficulty,
    )


def _endings(answers: Sequence[BenchmarkAnswer]) -> dict[str, dict[str, Any]]:
    return {
        answer.item.id: {"stop_reason": answer.finish_reason, "num_tokens": answer.completion_tokens}
        for answer in answers
        if answer.response is not None
    }
