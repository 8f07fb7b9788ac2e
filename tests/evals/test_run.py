"""One graded item per problem, in order; what failed has a reason and no score."""

from tracetune.core.strict_json import parse_json
from tracetune.core.values import Completion, Problem
from tracetune.evals.records import write_result
from tracetune.evals.run import evaluate

PROBLEMS = (
    Problem("a", "2+3?", "5", category="arithmetic", difficulty="easy"),
    Problem("b", "2+4?", "6"),
    Problem("c", "2+5?", "7"),
)


def answer(problems):
    texts = {"a": "Reasoning:\n1. 2+3=5\nAnswer: 5", "b": "Answer: 7\0"}
    return [
        Completion((1, 2), (-0.1, -0.2), texts[problem.id], "stop")
        if problem.id in texts
        else Completion((), (), "", "error", "the prompt has no tokens")
        for problem in problems
    ]


def test_each_problem_is_graded_in_order():
    result = evaluate(PROBLEMS, answer, model="m", meta={"seed": 3})
    assert [item.eval_id for item in result.items] == ["a", "b", "c"]
    assert [item.score.correct for item in result.items] == [True, False, None]
    assert result.items[2].score.reason == "the prompt has no tokens"
    assert (result.items[0].category, result.items[0].difficulty) == ("arithmetic", "easy")
    assert result.meta["items"]["a"] == {"stop_reason": "stop", "num_tokens": 2}


def test_every_row_of_the_file_is_json_that_the_store_accepts(tmp_path):
    write_result(evaluate(PROBLEMS, answer, model="m", meta={}), tmp_path / "eval.jsonl")
    rows = [parse_json(line) for line in (tmp_path / "eval.jsonl").read_bytes().splitlines()]
    assert [row["meta"]["correct"] for row in rows] == [True, False, None]
    assert rows[1]["meta"]["response"] == "Answer: 7\ufffd"
