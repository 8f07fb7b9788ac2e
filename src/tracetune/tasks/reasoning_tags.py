"""The form a reasoning answer must have: what the prompt asks for, and what is read back out of a completion.

Reading is by `str.find` and never by a backtracking expression, so it takes linear time on any input.
"""

REASONING_START, REASONING_END = "<reasoning>", "</reasoning>"
ANSWER_START, ANSWER_END = "<answer>", "</answer>"
TAGS = (REASONING_START, REASONING_END, ANSWER_START, ANSWER_END)


def exact_answer(completion: str) -> str | None:
    """The answer of a completion that is reasoning, anything, answer and nothing else; None for any other.

    White space around the whole is free; each part needs at least one character. The answer reaches from the first
    answer tag that can open it to the end, so a second pair of answer tags becomes a part of it.

    >>> exact_answer("<reasoning>6 * 7 is 42</reasoning>\\n<answer>42</answer>")
    '42'
    >>> exact_answer("So: <reasoning>6 * 7 is 42</reasoning><answer>42</answer>") is None
    True
    """
    body = completion.strip()
    if not body.startswith(REASONING_START) or not body.endswith(ANSWER_END):
        return None
    reasoning_end = body.find(REASONING_END, len(REASONING_START) + 1)
    if reasoning_end < 0:
        return None
    answer_start = body.find(ANSWER_START, reasoning_end + len(REASONING_END))
    if answer_start < 0:
        return None
    return body[answer_start + len(ANSWER_START) : -len(ANSWER_END)] or None


def first_answer(completion: str) -> str | None:
    """What stands inside the first answer tags that are closed; None without them.

    >>> first_answer("I say <answer>41</answer>, no, <answer>42</answer>")
    '41'
    """
    _, opened, rest = completion.partition(ANSWER_START)
    answer, closed, _ = rest.partition(ANSWER_END)
    return answer if opened and closed else None


def parsed_answer(completion: str) -> str | None:
    """The answer to show for a completion, whatever its form: the exact one, else the first closed one."""
    exact = exact_answer(completion)
    return first_answer(completion) if exact is None else exact
