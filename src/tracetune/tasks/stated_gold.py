"""The gold answer that a training row's response states: what graders will hold every other answer against."""

from tracetune.tasks.answers import Statement, first_sentence, statements
from tracetune.tasks.numerals import whole_number
from tracetune.tasks.plain_text import plain

# Words that answer by themselves, where any other in lower case may only speak of an answer.
_VERDICTS = frozenset({"yes", "no", "true", "false"})


def stated_gold(response: str) -> str:
    """The last answer that is stated beyond doubt; blank without one.

    >>> stated_gold("3 * 6 = 18\\nThe answer is 18. I hope this answer is helpful.")
    '18'
    """
    return next((_answer_of(one) for one in statements(response) if one.text and not _is_prose(one)), "")


def _answer_of(statement: Statement) -> str:
    """Without the sentences behind a number."""
    first = first_sentence(statement.text)
    is_number = whole_number(plain(first)) is not None
    return first if is_number and statement.text.startswith(f"{first}.") else statement.text


def _is_prose(statement: Statement) -> bool:
    """Whether words may speak of an answer ("I hope this answer is helpful") where others state one: a gold answer that
    is none would call every right answer wrong, so what is in doubt is none."""
    first = first_sentence(statement.text)
    is_known = first.lower() in _VERDICTS or whole_number(plain(first)) is not None
    return statement.is_told_by_verb and first[:1].islower() and not is_known
