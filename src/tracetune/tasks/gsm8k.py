"""GSM8K rows `{question, answer}`: the gold answer stands after `####`, sometimes with thousands commas."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tracetune.core.errors import InputError
from tracetune.core.values import Problem
from tracetune.tasks.problem_rows import read_problems, text_field

MARK = "####"


def problems_from_gsm8k(path: Path) -> tuple[Problem, ...]:
    """Every row of a GSM8K file as a problem. Raises as read_evalset does, and for a row of another shape."""
    return read_problems(path, gsm8k_problem)


def gsm8k_problem(row: Mapping[str, Any], where: str) -> Problem:
    """One row; the id is the hash of the question, so the order and choice of rows do not change it.

    >>> gsm8k_problem({"question": "Two dozen?", "answer": "2 * 12 = 24\\n#### 1,024"}, "line 1").answer
    '1024'
    """
    question, answer = (text_field(row, field, where) for field in ("question", "answer"))
    _, mark, gold = answer.rpartition(MARK)
    gold = gold.strip().replace(",", "")
    if not mark or not gold:
        raise InputError(f"{where}: answer must end with '{MARK} <gold answer>', got {answer[-40:]!r}")
    identity = hashlib.sha256(question.encode()).hexdigest()[:16]
    return Problem(f"gsm8k-{identity}", question, gold, category="word_problem", meta={"source": "gsm8k"})
