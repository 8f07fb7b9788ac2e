"""Conversations to tokens with a loss mask: the one place where it is decided what a model is trained on.

Only the text of assistant turns and the stop token behind each carry loss. `prove_mask` finds that out again
from the tokens alone, without the bookkeeping that made the mask, and refuses a row where it is not so.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import islice, pairwise
from typing import NamedTuple

from tracetune.core.errors import InputError, MaskError
from tracetune.core.labels import Labels
from tracetune.core.trace import Trace
from tracetune.core.values import Example, Message
from tracetune.data.export import response_text
from tracetune.models.templates import Piece
from tracetune.models.tokenizer import Tokenizer

ROWS_AT_ONCE = 1024


class TrainingRow(NamedTuple):
    """A conversation to learn from, with the id that errors and lineage name it by."""

    id: str
    messages: tuple[Message, ...]
    labels: Labels = Labels()


class Rendered(NamedTuple):
    """Proven examples in the order of their rows, the ids of rows longer than allowed, left out, and the place of each
    example among the rows."""

    examples: list[Example]
    too_long: list[str]
    places: list[int]


class Span(NamedTuple):
    """Tokens `start` to `end` (excluded) of an example, all of them trained."""

    start: int
    end: int


def trace_messages(trace: Trace, *, system_instruction: str | None = None) -> tuple[Message, ...]:
    """A trace as a conversation; without an instruction there is no system message."""
    system = (Message("system", system_instruction),) if system_instruction else ()
    return (*system, Message("user", trace.prompt), Message("assistant", response_text(trace)))


def render(
    messages: Sequence[Message], tokenizer: Tokenizer, *, trace_id: str, max_length: int | None = None
) -> Example:
    """One proven example. Raises InputError when it is longer than `max_length` tokens; nothing is ever cut."""
    rendered = render_rows([TrainingRow(trace_id, tuple(messages))], tokenizer, max_length=max_length)
    if rendered.too_long:
        raise InputError(f"{trace_id}: is longer than max_length {max_length} tokens; raise it or leave the row out")
    return rendered.examples[0]


def render_prompt(messages: Sequence[Message], tokenizer: Tokenizer) -> list[int]:
    """Tokens of a conversation that ends with the user's turn, then the header that asks for an answer."""
    pieces = tokenizer.chat_format.pieces(messages, generate=True)
    return [token for ids in _encode(pieces, tokenizer) for token in ids]


def render_rows(rows: Iterable[TrainingRow], tokenizer: Tokenizer, *, max_length: int | None = None) -> Rendered:
    """Render and prove many rows. Raises InputError or MaskError naming the row's id."""
    rendered = Rendered([], [], [])
    rest, place = iter(rows), -1
    while chunk := list(islice(rest, ROWS_AT_ONCE)):
        for row, example in zip(chunk, _examples(chunk, tokenizer), strict=True):
            place += 1
            if max_length is not None and len(example.tokens) > max_length:
                rendered.too_long.append(row.id)
            else:
                prove_mask(example, row.messages, tokenizer)
                rendered.examples.append(example)
                rendered.places.append(place)
    return rendered


def _examples(rows: Sequence[TrainingRow], tokenizer: Tokenizer) -> Iterator[Example]:
    """One encoding call for all rows, then each row's share of it."""
    pieces = [_pieces(row, tokenizer) for row in rows]
    encoded = iter(_encode([piece for row_pieces in pieces for piece in row_pieces], tokenizer))
    for row, row_pieces in zip(rows, pieces, strict=True):
        tokens: list[int] = []
        mask: list[int] = []
        for piece, ids in zip(row_pieces, islice(encoded, len(row_pieces)), strict=True):
            tokens += ids
            mask += [int(piece.trained)] * len(ids)
        yield Example(tuple(tokens), tuple(mask), row.id)


def _pieces(row: TrainingRow, tokenizer: Tokenizer) -> list[Piece]:
    try:
        return tokenizer.chat_format.pieces(row.messages)
    except InputError as error:
        raise InputError(f"{row.id}: {error}") from error


def _encode(pieces: Sequence[Piece], tokenizer: Tokenizer) -> list[list[int]]:
    texts = list({piece.text: None for piece in pieces if not piece.control})
    ids = dict(zip(texts, tokenizer.encode_batch(texts), strict=True))
    return [[tokenizer.control_id(piece.text)] if piece.control else ids[piece.text] for piece in pieces]


def prove_mask(example: Example, messages: Sequence[Message], tokenizer: Tokenizer) -> None:
    """Show that exactly the assistant's words, and the stop token behind each turn, are trained.

    Control tokens cannot come from text, so the model's header in the tokens is where an answer starts, and the
    stop token where it ends. Raises MaskError naming the example when no token is trained, when a user, system
    or header token is, when a stop token is not, when a trained span does not decode to the assistant's message,
    or when a prompt is not in the untrained part.
    """
    spans = _trained_spans(example)
    answers = [message.content for message in messages if message.role == "assistant"]
    for span in spans:
        _prove_span(example, span, tokenizer)
    if len(spans) != len(answers):
        raise MaskError(f"{example.trace_id}: has {len(answers)} assistant turns, but {len(spans)} of them are trained")
    for span, answer in zip(spans, answers, strict=True):
        learnt = tokenizer.decode(example.tokens[span.start : span.end - 1])
        if learnt != answer and learnt != tokenizer.normalized(answer):
            raise MaskError(f"{example.trace_id}: would learn {learnt[:80]!r}, but the assistant said {answer[:80]!r}")
    _prove_prompts(example, messages, tokenizer)


def _trained_spans(example: Example) -> list[Span]:
    if len(example.mask) != len(example.tokens) or not set(example.mask) <= {0, 1}:
        raise MaskError(f"{example.trace_id}: the mask must hold a 0 or 1 for each of {len(example.tokens)} tokens")
    edges = [place for place, (left, right) in enumerate(pairwise((0, *example.mask, 0))) if left != right]
    if not edges:
        raise MaskError(f"{example.trace_id}: no token is trained; the conversation needs an assistant's message")
    return [Span(start, end) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def _prove_span(example: Example, span: Span, tokenizer: Tokenizer) -> None:
    before = example.tokens[: span.start]
    if not any(before[-len(header) :] == header for header in _answer_headers(tokenizer)):
        near = tokenizer.decode(example.tokens[span.start : span.start + 8])
        raise MaskError(
            f"{example.trace_id}: training starts at token {span.start} ({near!r}), not behind the model's header; "
            "a user, system or header token would be trained, or an answer in part"
        )
    if example.tokens[span.end - 1] != tokenizer.control_id(tokenizer.chat_format.stop):
        raise MaskError(f"{example.trace_id}: the stop token of the answer at token {span.start} is not trained")
    if any(tokenizer.is_control(token) for token in example.tokens[span.start : span.end - 1]):
        raise MaskError(f"{example.trace_id}: a control token inside the answer at token {span.start} is trained")


def _prove_prompts(example: Example, messages: Sequence[Message], tokenizer: Tokenizer) -> None:
    untrained = [token for token, trained in zip(example.tokens, example.mask, strict=True) if not trained]
    text, place = tokenizer.decode(untrained, skip_control=True), 0
    for message in messages:
        if message.role != "assistant":
            prompt = tokenizer.normalized(message.content.strip())
            found = text.find(prompt, place)
            if found < 0:
                raise MaskError(f"{example.trace_id}: the {message.role}'s text {prompt[:80]!r} is not in the prompt")
            place = found + len(prompt)


@lru_cache(maxsize=8)
def _answer_headers(tokenizer: Tokenizer) -> tuple[tuple[int, ...], ...]:
    """The tokens that may stand directly before an answer."""
    headers = tokenizer.chat_format.answer_headers()
    return tuple(tuple(token for ids in _encode(header, tokenizer) for token in ids) for header in headers)
