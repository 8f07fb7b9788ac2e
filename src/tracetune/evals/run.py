"""A model answers problems and is graded: problems and a way to answer them in, EvalResult out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.values import Completion, Problem, Score, storable
from tracetune.tasks.grading import grade

Answer = Callable[[Sequence[Problem]], Sequence[Completion]]


def evaluate(problems: Sequence[Problem], answer: Answer, *, model: str, meta: Mapping[str, Any]) -> EvalResult:
    """Grade one completion per problem, in order; a failed completion is an unscored item with its reason.

    `meta` describes the run (seed, temperature); how each completion ended joins it under `items`.
    """
    completions = answer(problems)
    endings = {
        problem.id: {"stop_reason": completion.stop_reason, "num_tokens": len(completion.tokens)}
        for problem, completion in zip(problems, completions, strict=True)
    }
    items = tuple(map(_item, problems, completions))
    return EvalResult(model=model, items=items, meta={**meta, "items": endings})


def _item(problem: Problem, completion: Completion) -> EvalItem:
    failed = completion.stop_reason == "error"
    score = Score(None, completion.error or "failed") if failed else grade(completion.text, problem.answer)
    return EvalItem(
        eval_id=problem.id,
        prompt=problem.prompt,
        expected_answer=problem.answer,
        response=storable(completion.text),
        score=score,
        category=problem.category,
        difficulty=problem.difficulty,
    )
