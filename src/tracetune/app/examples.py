"""Rows as proven examples of the lengths that a run asks for, and which of several files each comes from."""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, islice, pairwise
from typing import NamedTuple

from tracetune.app.row_choice import FileRows
from tracetune.config.schema import SftConfig
from tracetune.core.errors import InputError
from tracetune.core.values import Example
from tracetune.data.mix import Part, num_drawn
from tracetune.data.render import TrainingRow, render_rows
from tracetune.models.tokenizer import Tokenizer

Say = Callable[[str], None]
_NAMED = 5


class Fitted(NamedTuple):
    """Examples of the asked lengths, and the place of each among the rows."""

    examples: list[Example]
    places: list[int]


def tokenize(rows: Iterable[TrainingRow], tokenizer: Tokenizer, config: SftConfig, *, say: Say) -> Fitted:
    """Proven examples of at most `max_length` tokens, and within `data.min_tokens` and `data.max_tokens`; rows of
    another length are counted and named.

    Raises InputError when a row is too long and `truncation` is off, or when none has a length that is asked for.
    """
    fitted = _fit(rows, tokenizer, config, say)
    if not fitted.examples:
        raise _nothing_fits(config)
    return fitted


def first_examples(
    rows: Sequence[TrainingRow], tokenizer: Tokenizer, config: SftConfig, count: int, *, say: Say
) -> list[Example]:
    """The first examples of an asked length, `count` where there are as many. Raises as `tokenize`."""
    rest, found = iter(rows), list[Example]()
    while len(found) < count and (chunk := list(islice(rest, count))):
        found += _fit(chunk, tokenizer, config, say).examples
    if not found:
        raise _nothing_fits(config)
    return found[:count]


def parts_of(files: Sequence[FileRows], fitted: Fitted) -> tuple[Part, ...]:
    """Which examples come from which file; nothing for rows of one origin. Raises InputError when an epoch would be
    empty."""
    if not files:
        return ()
    ends = [bisect_left(fitted.places, end) for end in accumulate(file.num_rows for file in files)]
    parts = tuple(
        Part(start, end, file.weight)
        for (start, end), file in zip(pairwise((0, *ends)), files, strict=True)
        if end > start
    )
    if sum(part.weight * (part.end - part.start) for part in parts) < 1:
        raise InputError("data.train_files: these weights leave less than one row an epoch; raise them")
    return parts


def mix_told(files: Sequence[FileRows], parts: Sequence[Part]) -> list[str]:
    """What an epoch sees of each file, in words; nothing for rows of one origin."""
    if not files:
        return []
    each = ", ".join(f"{file.path} {file.num_rows} × {file.weight:g}" for file in files)
    return [f"rows by file and weight: {each}; the first epoch sees {num_drawn(parts, 0)} examples"]


def _fit(rows: Iterable[TrainingRow], tokenizer: Tokenizer, config: SftConfig, say: Say) -> Fitted:
    length, data = config.model.max_length, config.data
    rendered = render_rows(rows, tokenizer, max_length=data.max_tokens or length)
    limit = f"{data.max_tokens} tokens (data.max_tokens)" if data.max_tokens else f"{length} tokens (model.max_length)"
    if rendered.too_long:
        if not config.model.drop_long and not data.max_tokens:
            raise InputError(
                f"{_named(rendered.too_long)}: longer than {limit}; raise it, or set model.truncation to leave such "
                "rows out"
            )
        say(f"left out {len(rendered.too_long)} rows longer than {limit}: {_named(rendered.too_long)}")
    if data.min_tokens is None:
        return Fitted(rendered.examples, rendered.places)
    pairs = list(zip(rendered.examples, rendered.places, strict=True))
    short = [example.trace_id for example, _ in pairs if len(example.tokens) < data.min_tokens]
    if short:
        say(f"left out {len(short)} rows shorter than {data.min_tokens} tokens (data.min_tokens): {_named(short)}")
    kept = [pair for pair in pairs if len(pair[0].tokens) >= data.min_tokens]
    return Fitted([example for example, _ in kept], [place for _, place in kept])


def _named(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NAMED]) + (", …" if len(ids) > _NAMED else "")


def _nothing_fits(config: SftConfig) -> InputError:
    """The error of a run that is left without rows, by the lengths that it asks for."""
    low, high = config.data.min_tokens, config.data.max_tokens
    if low is None and high is None:
        return InputError(
            f"data: every row is longer than {config.model.max_length} tokens (model.max_length); raise it"
        )
    most = high or config.model.max_length
    asked = f"at most {most} tokens" if low is None else f"from {low} to {most} tokens"
    return InputError(f"data: no row has {asked}; ask for other lengths")
