"""Prompts to distil on: which rows ask something, and what their gold answers are."""

import json
from pathlib import Path
from typing import Any

import pytest

from tracetune.app.distill_prompts import PromptRow, read_prompts
from tracetune.config.distill import load_distill_config
from tracetune.core.errors import InputError


def read(path: Path, *rows: dict[str, Any]) -> tuple[PromptRow, ...]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = load_distill_config({"method": "sequence"})
    return read_prompts(config, data=path, dataset=None, max_samples=None, home=None).rows


@pytest.mark.parametrize(
    ("response", "gold"),
    [
        ("I hope this answer is helpful.", ""),
        ("So the answer was based on 3 facts.", ""),
        ("The answer is 18. I hope this answer is helpful.", "18"),
        ("Answer: 18\nI hope this answer is helpful.", "18"),
        ("The answer is eighteen apples.", "eighteen apples"),
        ("The answer is no.", "no."),
        ("The answer is Paris.", "Paris."),
        ("The answer is: blue", "blue"),
        ("Answer: blue", "blue"),
        ("Answer: 3; 4", "3; 4"),
        ("<answer>\n</answer>\n\\boxed{5!}", "5!"),
        ("Nothing is stated", ""),
    ],
)
def test_a_gold_answer_is_what_a_response_states_and_no_prose(tmp_path, response, gold):
    (row,) = read(tmp_path / "rows.jsonl", {"prompt": "What?", "response": response})
    assert row.gold == gold


def test_a_gold_answer_of_its_own_field_stands_behind_its_mark(tmp_path):
    turns = [{"role": "user", "content": "6 + 12?"}]
    answers = {"6 + 12 = 18\n#### 18": "18", "18 apples": "18 apples", 18: "18"}
    for answer, gold in answers.items():
        (row,) = read(tmp_path / "rows.jsonl", {"messages": turns, "answer": answer})
        assert row.gold == gold


@pytest.mark.parametrize("field", ["prompt", "question", "problem"])
def test_a_prompt_alone_is_enough(tmp_path, field):
    (row,) = read(tmp_path / "rows.jsonl", {field: "Why?", "id": "a", "grade": 3})
    assert (row.id, row.messages[-1].content, row.gold) == ("a", "Why?", "")


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({"prompt": " "}, r"rows\.jsonl:1: prompt must be text, got ' '; mend or remove the row"),
        ({"prompt": "Why?", "question": "Why?"}, "no known kind of row"),
        ({"prompt": "Why?", "answer": ""}, "answer must be text or a number"),
        ({"prompt": "Why?", "final_answer": "x"}, "no known kind of row"),
    ],
)
def test_what_is_no_prompt_alone_is_refused(tmp_path, row, told):
    with pytest.raises(InputError, match=told):
        read(tmp_path / "rows.jsonl", row)
