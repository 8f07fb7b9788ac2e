"""What a person looks at before training: every token of an example, and whether it is trained."""

from typing import NamedTuple

from tracetune.core.values import Example
from tracetune.models.tokenizer import Tokenizer

HALF_CHARACTER = "\ufffd"
MAX_CHARACTER_TOKENS = 8


class TokenSpan(NamedTuple):
    """One token, or the few tokens of one character, as text; together the spans are the whole example.

    >>> TokenSpan("5", (41,), trained=True, control=False).text
    '5'
    """

    text: str
    tokens: tuple[int, ...]
    trained: bool
    control: bool


def token_spans(example: Example, tokenizer: Tokenizer) -> list[TokenSpan]:
    """The example's tokens in order; tokens that are only part of a character stand together."""
    spans: list[TokenSpan] = []
    part: list[int] = []
    for place, token in enumerate(example.tokens):
        part.append(token)
        text = tokenizer.decode(part)
        trained, control = bool(example.mask[place]), tokenizer.is_control(token)
        if text.endswith(HALF_CHARACTER) and _continues(example, place, tokenizer) and len(part) < MAX_CHARACTER_TOKENS:
            continue
        spans.append(TokenSpan(text, tuple(part), trained, control))
        part = []
    return spans


def _continues(example: Example, place: int, tokenizer: Tokenizer) -> bool:
    """Whether the next token belongs to the same stretch of text."""
    after = place + 1
    return (
        after < len(example.tokens)
        and example.mask[after] == example.mask[place]
        and not tokenizer.is_control(example.tokens[after])
    )
