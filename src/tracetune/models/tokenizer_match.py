"""Whether two tokenizers mean the same by the same ids, so that one model's log-probs are about the other's tokens."""

from collections.abc import Mapping
from dataclasses import asdict

from tracetune.models.templates import ChatFormat
from tracetune.models.tokenizer import Tokenizer


def first_mismatch(teacher: Tokenizer, student: Tokenizer) -> str | None:
    """The first thing in which they differ, in words; None when control tokens, vocabulary, ids and chat format agree.

    A vocabulary is the tokenizer's: rows that a model's head has beyond it stand for nothing.
    """
    if teacher is student:
        return None
    return (
        _first_difference("control token", teacher.control_tokens, student.control_tokens)
        or _first_difference("token", teacher.vocabulary, student.vocabulary)
        or _format_difference(teacher.chat_format, student.chat_format)
    )


def _first_difference(kind: str, teacher: Mapping[str, int], student: Mapping[str, int]) -> str | None:
    """In the order of the student's ids, then of the teacher's."""
    in_order = (sorted(table.items(), key=lambda item: item[1]) for table in (student, teacher))
    for piece in (piece for table in in_order for piece, _ in table):
        if teacher.get(piece) != student.get(piece):
            theirs, ours = _told(teacher, piece), _told(student, piece)
            return f"the {kind} {piece!r} {theirs} in the teacher's and {ours} in the student's"
    return None


def _told(table: Mapping[str, int], piece: str) -> str:
    return f"has the id {table[piece]}" if piece in table else "does not exist"


def _format_difference(teacher: ChatFormat, student: ChatFormat) -> str | None:
    theirs, ours = asdict(teacher), asdict(student)
    return next(
        (
            f"the chat format's {name} is {theirs[name]!r} in the teacher's and {ours[name]!r} in the student's"
            for name in ours
            if theirs[name] != ours[name]
        ),
        None,
    )
