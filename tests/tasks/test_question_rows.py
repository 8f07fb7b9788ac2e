"""The gold answer of a row that has a response in place of an answer."""

import pytest

from tracetune.core.errors import InputError
from tracetune.tasks.question_rows import row_to_problem


@pytest.mark.parametrize(
    "response",
    [
        "2 + 3 = 5\nThe answer is 5. I hope this answer is helpful.",
        "2 + 3 = 5\n#### 5",
        "<reasoning>a</reasoning><answer>5</answer>",
        "We add.\nAnswer: 5",
        "So the answer is 5.",
        "5",
    ],
)
def test_a_response_states_its_gold_answer(response):
    problem = row_to_problem({"prompt": "2 + 3?", "response": response, "grade": 1, "topic_tags": ["sums"]}, "f:1")
    assert (problem.answer, problem.meta) == ("5", {"grade": 1, "topic_tags": ["sums"]})


def test_a_response_without_an_answer_is_refused_with_its_line():
    with pytest.raises(InputError, match=r"f:7: response must end with its gold answer, after '####'"):
        row_to_problem({"prompt": "2 + 3?", "response": "Let us think about it. " * 9}, "f:7")
