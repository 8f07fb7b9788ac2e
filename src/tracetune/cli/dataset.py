"""`tracetune dataset`: build, list, show, export and diff frozen datasets."""

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from tracetune.core.errors import InputError
from tracetune.core.filters import read_filters

app = typer.Typer(help="Freeze traces into datasets; list, show, export and compare them.", no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")]
Key = Annotated[str, typer.Argument(help="The dataset's key, as build and list print it.")]


@app.command()
def build(
    name: Annotated[str, typer.Argument(help="The dataset's name.")],
    version: Annotated[str, typer.Argument(help="Its version; name and version stand for one content for ever.")],
    *,
    filters: Annotated[
        list[str] | None,
        typer.Option(
            "--filter", help="KEY=VALUE over meta, as often as needed; a.b goes into objects, VALUE is JSON or text."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(help="At most this many traces.")] = 1_000_000,
    strategy: Annotated[
        Literal["latest", "random"], typer.Option(help="Newest first, or a seeded random choice.")
    ] = "latest",
    seed: Annotated[int | None, typer.Option(help="Needed by --strategy random.")] = None,
    dedup: Annotated[Literal["near", "exact", "none"], typer.Option(help="near drops exact duplicates too.")] = "near",
    threshold: Annotated[float, typer.Option(help="Share of common shingles that makes a near-duplicate.")] = 0.8,
    contamination: Annotated[
        Literal["drop", "fail", "keep"], typer.Option(help="Rows that show a problem of a registered eval set.")
    ] = "drop",
    eval_sets: Annotated[
        list[Path] | None, typer.Option("--eval-set", help="Register this eval set (JSONL) first, as often as needed.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Freeze chosen traces: filter, select, drop contaminated and duplicate rows, write Parquet and a manifest."""
    from tracetune.app.datasets import Cleaning, build_dataset, recheck_contamination, register_evalset
    from tracetune.cli.dataset_text import build_lines

    for path in eval_sets or []:
        register_evalset(path)
    manifest = build_dataset(
        name,
        version,
        filters=read_filters(filters or [], "--filter"),
        limit=limit,
        strategy=strategy,
        seed=seed,
        cleaning=Cleaning(
            exact_dedup=dedup != "none",
            near_dedup=threshold if dedup == "near" else None,
            contamination=contamination,
        ),
    )
    now = recheck_contamination(manifest.dataset_key)
    _print({**manifest.to_json(), "contamination_now": now}, build_lines(manifest, now), as_json=as_json)


@app.command("list")
def list_all(*, as_json: Json = False) -> None:
    """Every dataset, newest first."""
    from tracetune.app.datasets import list_datasets
    from tracetune.cli.dataset_text import list_lines

    records = list_datasets()
    _print([record._asdict() for record in records], list_lines(records), as_json=as_json)


@app.command()
def show(
    key: Key,
    *,
    tokens: Annotated[bool, typer.Option("--tokens", help="Show rows as tokens; trained ones are marked.")] = False,
    rows: Annotated[int, typer.Option(help="With --tokens: how many rows.", min=1)] = 1,
    tokenizer: Annotated[str, typer.Option(help="With --tokens: tiny, or a folder with a tokenizer.json.")] = "tiny",
    system_instruction: Annotated[
        str | None, typer.Option(help="With --tokens: a system message before each row.")
    ] = None,
    as_json: Json = False,
) -> None:
    """The manifest and the lengths of the rows; or, with --tokens, exactly what a model is trained on."""
    from tracetune.app.datasets import dataset_tokens, length_histogram, open_dataset, recheck_contamination
    from tracetune.cli.dataset_text import print_tokens, show_lines

    dataset = open_dataset(key)
    if tokens:
        views = dataset_tokens(dataset, num_rows=rows, tokenizer=tokenizer, system_instruction=system_instruction)
        if as_json:
            rows_json = [
                {"trace_id": view.trace_id, "spans": [span._asdict() for span in view.spans]} for view in views
            ]
            _print(rows_json, [], as_json=True)
        else:
            print_tokens(views)
        return
    bins = length_histogram(dataset)
    now = recheck_contamination(key)
    lengths = [item._asdict() for item in bins]
    shown = {**dataset.manifest.to_json(), "contamination_now": now, "length_histogram": lengths}
    _print(shown, show_lines(dataset.manifest, bins, now), as_json=as_json)


@app.command()
def export(
    key: Key,
    *,
    export_format: Annotated[
        Literal["trace", "tunix_sft", "training_example"], typer.Option("--format", help="The shape of a row.")
    ] = "trace",
    output: Annotated[Path | None, typer.Option(help="Write JSONL to this file; without it, to stdout.")] = None,
    system_instruction: Annotated[str | None, typer.Option(help="tunix_sft only: stands before every prompt.")] = None,
    as_json: Json = False,
) -> None:
    """Every row as one line of JSON; with --output, --json prints a summary of what was written."""
    from tracetune.app.datasets import export_dataset, export_to_file

    if output is None:
        if as_json:
            raise InputError(
                "dataset export: rows on stdout are JSON already, got --json; leave it out, or add --output"
            )
        for line in export_dataset(key, export_format, system_instruction=system_instruction):
            sys.stdout.buffer.write(line)
        return
    num_rows = export_to_file(key, output, export_format, system_instruction=system_instruction)
    summary = {"dataset_key": key, "format": export_format, "rows": num_rows, "path": str(output)}
    _print(summary, [f"{num_rows:,} rows written to {output} as {export_format}"], as_json=as_json)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(help="The older dataset's key.")],
    after: Annotated[str, typer.Argument(help="The newer dataset's key.")],
    *,
    examples: Annotated[int, typer.Option(help="How many rows of each kind to print.", min=0)] = 3,
    as_json: Json = False,
) -> None:
    """Rows added, removed and changed (the same prompt, other content) between two datasets."""
    from tracetune.app.dataset_views import diff_json
    from tracetune.app.datasets import diff_datasets
    from tracetune.cli.dataset_text import diff_lines

    found = diff_datasets(before, after, num_examples=examples)
    _print(diff_json(found), diff_lines(found, examples), as_json=as_json)


def _print(value: Any, lines: list[str], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(value, ensure_ascii=False))
        return
    for line in lines:
        typer.echo(line)
