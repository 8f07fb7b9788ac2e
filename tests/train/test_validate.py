"""What counts as right in validation depends on what the prompts asked for."""

import pytest

from tracetune.config.grpo_schema import PromptSettings
from tracetune.core.values import Completion, Problem
from tracetune.train.prompts import Prompt
from tracetune.train.validate import validate

PROMPTS = [
    Prompt(Problem("a", "2+3?", "5", meta={"grade": 1}), "2+3?", (1, 2)),
    Prompt(Problem("b", "90+10?", "100", meta={"grade": 2}), "90+10?", (1, 3)),
]


class Sayer:
    """Answers with given texts; None is a completion that failed."""

    def __init__(self, *texts):
        self.texts = texts

    def answer(self, prompts, *, temperature, seed):  # noqa: ARG002 - an Answerer has them
        return [Completion((1,), (0.0,), text or "", "stop" if text is not None else "error") for text in self.texts]


def measured(*texts, tagged):
    return validate(Sayer(*texts), PROMPTS, seed=1, tagged=tagged).metrics()


def test_without_tags_in_the_prompt_the_stated_answer_counts():
    told = measured("2 and 3 make 5.\nAnswer: 5", "Answer: 95", tagged=False)
    assert told["validation_accuracy"] == 0.5
    assert told["validation_partial"] == 1.0
    assert told["validation_accuracy/grade/1"] == 1.0
    assert "validation_format" not in told


def test_with_tags_in_the_prompt_only_what_they_hold_counts():
    told = measured("Answer: 5", "<reasoning>90+10</reasoning><answer>100</answer>", tagged=True)
    assert told["validation_accuracy"] == 0.5
    assert told["validation_format"] == 0.5


def test_a_completion_that_failed_is_right_nowhere():
    assert measured(None, "Answer: 100", tagged=False)["validation_accuracy"] == 0.5


@pytest.mark.parametrize(
    ("settings", "asks"), [(PromptSettings(), True), (PromptSettings(instruction=""), False)], ids=["default", "none"]
)
def test_the_default_instruction_asks_for_tags(settings, asks):
    assert settings.asks_for_tags is asks
