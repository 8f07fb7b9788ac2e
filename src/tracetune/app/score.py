"""Score: rows of text, messages or token ids → the log-probability of every token but the first."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tracetune.app import rows
from tracetune.app.compile_cache import use_compile_cache
from tracetune.core.errors import InputError
from tracetune.data.render import render
from tracetune.engine.scoring import check_sequence, score_tokens
from tracetune.models.load import load_model
from tracetune.models.tokenizer import Tokenizer

FIELDS = ("text", "messages", "token_ids")


def score(
    model_name: str, path: Path, *, on_progress: Callable[[int, int], None] | None = None
) -> Iterator[dict[str, Any]]:
    """`{"token_ids", "logprobs"}` per row, in order; logprobs are nats and one fewer than the tokens.

    `text` is encoded after the model's start token where it has one, with no control token from text;
    `messages` is a whole conversation in the model's chat format; `token_ids` are taken as they are. Raises
    InputError naming file and line.
    """
    use_compile_cache()
    model = load_model(model_name)
    sequences = []
    for row in rows.read_objects(path):
        tokens = _tokens(row, model.tokenizer)
        check_sequence(tokens, model.arch, row.where)
        sequences.append(tokens)
    for tokens, logprobs in zip(sequences, score_tokens(model, sequences, on_progress=on_progress), strict=True):
        yield {"token_ids": tokens, "logprobs": [float(value) for value in logprobs]}


def _tokens(row: rows.Row, tokenizer: Tokenizer) -> list[int]:
    field = rows.one_of(row, FIELDS)
    if field == "token_ids":
        return rows.token_ids(row)
    try:
        if field == "text":
            start = [] if tokenizer.bos_id is None else [tokenizer.bos_id]
            return start + tokenizer.encode_text(rows.text(row, "text"))
        return _conversation(row, tokenizer)
    except InputError as error:
        raise error if str(error).startswith(row.where) else InputError(f"{row.where}: {error}") from error


def _conversation(row: rows.Row, tokenizer: Tokenizer) -> list[int]:
    """Every token of a conversation; one that waits for an answer ends with the header that asks for it."""
    said = rows.messages(row)
    if said[-1].role != "assistant":
        return rows.prompt_tokens(row, said, tokenizer)
    return list(render(said, tokenizer, trace_id=row.where).tokens)
