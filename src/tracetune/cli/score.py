"""`tracetune score` and `tracetune generate`: JSON rows on stdout and nothing else; progress on stderr."""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any

import typer

Model = Annotated[str, typer.Argument(help="`tiny`, an alias, a repository, or a model, adapter or run folder.")]


def score(
    model: Model,
    file: Annotated[Path, typer.Argument(help="JSON or JSONL rows of `text`, `messages` or `token_ids`.")],
) -> None:
    """Print the log-probability (nats) of every token but the first, one JSON row per row."""
    from tracetune.app.score import score as compute

    _print_rows(compute(model, file, on_progress=_progress("scored")))


def generate(
    model: Model,
    file: Annotated[Path, typer.Argument(help="JSON or JSONL rows of `prompt`, `messages` or `token_ids`.")],
    *,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(help="0 takes the likeliest token each time.")] = 0.0,
    top_k: Annotated[int | None, typer.Option(help="Draw from the K likeliest tokens only.")] = None,
    top_p: Annotated[float, typer.Option(help="Draw from the fewest tokens that reach P together.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Equal seeds draw equal answers.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Answers written at once.")] = 32,
) -> None:
    """Print completions with their token ids, log-probabilities (nats) and stop reason, one JSON row per row."""
    from tracetune.app.generate import generate as compute

    rows = compute(
        model,
        file,
        max_tokens=max_tokens,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        seed=seed,
        batch_size=batch_size,
        on_progress=_progress("completed"),
    )
    _print_rows(rows)


def _print_rows(rows: Iterable[dict[str, Any]]) -> None:
    for row in rows:
        typer.echo(json.dumps(row, ensure_ascii=False, allow_nan=False))


def _progress(verb: str) -> Callable[[int, int], None]:
    """Ten lines on stderr at most."""
    tenths = 0

    def tell(done: int, total: int) -> None:
        nonlocal tenths
        if 10 * done // total > tenths:
            tenths = 10 * done // total
            typer.echo(f"{verb} {done} of {total}", err=True)

    return tell
