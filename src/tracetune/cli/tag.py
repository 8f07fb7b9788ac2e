"""`tracetune tag` and `tracetune split`: topics for problems; train, eval and test with equal shares of each grade."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from tracetune.app.tag import TagReport, TopicScore


def tag(
    *,
    source: Annotated[
        Path | None, typer.Option("--input", help="Rows with `question` or `prompt`, JSONL or a JSON array.")
    ] = None,
    output: Annotated[Path | None, typer.Option(help="With --input: the same rows with their topics, JSONL.")] = None,
    question: Annotated[str | None, typer.Option(help="Tag this one problem and print it as JSON.")] = None,
    evaluate: Annotated[
        Path | None, typer.Option(help="Compare with the `topic_tags` of this labelled file, topic by topic.")
    ] = None,
    grade: Annotated[str | None, typer.Option(help="Only topics taught in this grade: K or 0, 1 … 12.")] = None,
    min_confidence: Annotated[float, typer.Option(min=0, max=1, help="Leave out topics less sure than this.")] = 0.5,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share a large file.")] = 1,
    taxonomy: Annotated[Path | None, typer.Option(help="A curriculum of your own, TOML (docs/tagging.md).")] = None,
) -> None:
    """Add `topic_tags` and `tagging_metadata` to problems, from a curriculum of grades K to 12."""
    from tracetune.app.tag import TagSettings, evaluate_tags, tag_file, tag_problem

    if sum(door is not None for door in (source, question, evaluate)) != 1:
        raise typer.BadParameter("give one of --input, --question and --evaluate")
    if (source is None) != (output is None):
        raise typer.BadParameter("--input and --output go together; give both")
    settings = TagSettings(taxonomy, _grade(grade), min_confidence)
    if question is not None:
        typer.echo(json.dumps(tag_problem(question, settings), ensure_ascii=False))
    elif evaluate is not None:
        print_scores(evaluate_tags(evaluate, settings))
    elif source is not None and output is not None:
        _print_report(tag_file(source, output, settings, workers=workers, warn=_warn), output)


def split(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="Training rows or problems, JSONL or a JSON array.")],
    *,
    output: Annotated[Path, typer.Option(help="The folder for train, eval and test, and the manifest.")],
    eval_share: Annotated[float, typer.Option("--eval", min=0, max=1, help="The share to evaluate on.")] = 0.1,
    test_share: Annotated[float, typer.Option("--test", min=0, max=1, help="The share to test on.")] = 0.1,
    by: Annotated[
        Literal["grade", "topic"], typer.Option(help="Equal shares of each grade, or of each first topic.")
    ] = "grade",
    seed: Annotated[int, typer.Option(help="Equal seeds give equal splits.")] = 42,
) -> None:
    """Share out rows by grade or topic into train, eval and test; one problem is never on two sides."""
    from tracetune.app.split import NO_STRATUM, split_file

    manifest = split_file(source, output, eval_share=eval_share, test_share=test_share, by=by, seed=seed)
    for name, file in manifest["files"].items():
        typer.echo(f"{output / name}: {file['num_rows']:,} rows")
    if list(manifest["strata"]) == [NO_STRATUM]:
        lacking = "grade" if by == "grade" else "topic_tags"
        typer.echo(f"note: no row has {lacking}; all rows are one stratum", err=True)


def print_scores(scores: "Sequence[TopicScore]") -> None:
    """One line a topic: labelled and told, precision and recall."""
    typer.echo(f"{'topic':<24}{'labelled':>9}{'told':>6}{'right':>7}{'precision':>11}{'recall':>8}")
    for score in scores:
        labelled, told = score.right + score.missed, score.right + score.wrong
        shares = (f"{'-' if share is None else f'{share:.2f}'}" for share in (score.precision, score.recall))
        precision, recall = shares
        typer.echo(f"{score.topic:<24}{labelled:>9}{told:>6}{score.right:>7}{precision:>11}{recall:>8}")


def _print_report(report: "TagReport", output: Path) -> None:
    typer.echo(f"{output}: {report.num_rows:,} rows, {report.untagged:,} without a topic")
    if report.kept:
        typer.echo(f"{report.kept:,} rows had topic_tags of their own, which stay")
    for topic, count in report.topics.most_common():
        typer.echo(f"{count:>9,}  {topic}")


def _warn(text: str) -> None:
    typer.secho(f"WARNING: {text}", err=True, fg=typer.colors.RED, bold=True)


def _grade(text: str | None) -> int | None:
    if text is None:
        return None
    grade = "0" if text.strip().upper() == "K" else text.strip()
    if not grade.isdecimal() or int(grade) > 12:
        raise typer.BadParameter(f"--grade must be K or a number from 0 to 12, got {text!r}")
    return int(grade)
