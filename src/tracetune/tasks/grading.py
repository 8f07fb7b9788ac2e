from tracetune.core.values import Score


def grade(response: str, expected_answer: str) -> Score:
    return Score(None, "")
