"""Evaluations as the service records them: problems of a registered set, and the answers of a model in a file."""

from pathlib import Path

from tracetune.app.evaluations import StoredEvaluation, record_evaluation
from tracetune.core.results import EvalItem, EvalResult
from tracetune.core.values import Problem, Score
from tracetune.evals.records import write_result
from tracetune.store.evalsets import register_evalset
from tracetune.store.open import open_store


def problems(count: int) -> list[Problem]:
    """`count` problems; the first half is easy."""
    return [
        Problem(f"i{n}", f"What is {n}?", str(n), "counting", "easy" if 2 * n < count else "hard") for n in range(count)
    ]


def registered(home: Path, name: str, count: int) -> None:
    """An eval set of `count` problems under this name."""
    with open_store(home) as store:
        register_evalset(store, name, problems(count))


def answers(path: Path, *verdicts: bool | None, model: str = "tiny", num_tokens: int = 5) -> Path:
    """A file of answers, one for each verdict; None is a generation that failed."""
    items = tuple(
        EvalItem(
            problem.id,
            problem.prompt,
            problem.answer,
            f"Answer: {problem.answer if verdict else 'none'}" if verdict is not None else "",
            Score(verdict, "graded" if verdict is not None else "the prompt has 900 tokens", problem.answer),
            problem.category,
            problem.difficulty,
        )
        for problem, verdict in zip(problems(len(verdicts)), verdicts, strict=True)
    )
    endings = {item.eval_id: {"stop_reason": "stop", "num_tokens": num_tokens} for item in items}
    write_result(EvalResult(model, items, {"seed": 42, "items": endings}), path)
    return path


def recorded(
    home: Path, *verdicts: bool | None, model: str = "tiny", run_id: str | None = None, num_tokens: int = 5
) -> StoredEvaluation:
    """An evaluation on record on `numbers`, a set of as many problems as there are verdicts."""
    eval_set = f"numbers-{len(verdicts)}"
    registered(home, eval_set, len(verdicts))
    folder = home / "runs" / f"{model.replace(':', '-')}-{hash(verdicts):x}-{num_tokens}"
    file = answers(folder / "answers.jsonl", *verdicts, model="/srv/secret/checkpoint-final", num_tokens=num_tokens)
    return record_evaluation(home, run_id=run_id, model=model, eval_set=eval_set, file=file)
