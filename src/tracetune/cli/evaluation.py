"""`tracetune eval run|compare`: measure a model, then say whether a change is real."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="Measure a model on an eval set; compare two measurements.", no_args_is_help=True)


@app.command()
def run(
    eval_set: Annotated[Path, typer.Option(help="JSONL of {id, prompt, expected_answer, category?, difficulty?}.")],
    output: Annotated[Path, typer.Option(help="Where the answers go, one trace a line.")],
    model: Annotated[str, typer.Option(help="A name, a folder, or `base`: what the run beside OUTPUT started from.")],
    *,
    seed: Annotated[int, typer.Option(help="Seed of the sampling; without temperature it changes nothing.")] = 42,
    max_examples: Annotated[int | None, typer.Option(min=1, help="Only the first N items.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 takes the likeliest token each time.")] = 0.0,
    batch_size: Annotated[int, typer.Option(min=1, help="Answers written at once.")] = 32,
    system_instruction: Annotated[
        str | None, typer.Option(help="System text before every prompt; by default that of the run beside OUTPUT.")
    ] = None,
) -> None:
    """Let a model answer an eval set and grade the answers."""
    from tracetune.app.evaluate import evaluate

    result = evaluate(
        model,
        eval_set,
        output,
        seed=seed,
        max_examples=max_examples,
        max_tokens=max_tokens,
        temperature=temperature,
        batch_size=batch_size,
        system_instruction=system_instruction,
        say=lambda text: typer.echo(text, err=True),
    )
    scored = [item for item in result.items if item.score.correct is not None]
    right = sum(bool(item.score.correct) for item in scored)
    share = f" ({100 * right / len(scored):.1f} %)" if scored else ""
    failed = len(result.items) - len(scored)
    typer.echo(f"{result.model}: {right} of {len(scored)} correct{share}, {failed} without a score → {output}")


Output = Annotated[Path, typer.Option(help="The Markdown report; a page ending in .html is written beside it.")]
EvalSet = Annotated[Path | None, typer.Option(help="The eval set, where older files lack the expected answers.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]
Gate = Annotated[bool, typer.Option("--fail-on-regression", help="Exit 1 when the model got significantly worse.")]


Names = Annotated[
    str | None, typer.Option(help="What the stages are called, `base,SFT,GRPO`; by default as their files.")
]


@app.command()
def compare(
    files: Annotated[list[Path], typer.Argument(help="BEFORE AFTER, or more stages in order, on the same items.")],
    output: Output,
    *,
    names: Names = None,
    eval_set: EvalSet = None,
    as_json: AsJson = False,
    fail_on_regression: Gate = False,
) -> None:
    """Compare evaluations item by item: what was fixed, what broke, and how sure that is."""
    if len(files) == 2 and names is None:
        before, after = files
        report(before, after, output, eval_set=eval_set, as_json=as_json, fail_on_regression=fail_on_regression)
        return
    from tracetune.app.stages import report_stages, stage_numbers, stage_sentences

    called = () if names is None else tuple(name.strip() for name in names.split(","))
    written = report_stages(files, output, names=called, eval_set=eval_set)
    _tell(stage_numbers(written) if as_json else stage_sentences(written))
    if fail_on_regression and written.regressed:
        raise typer.Exit(1)


def report(
    before: Annotated[Path, typer.Option(help="Answers of the model before.")],
    after: Annotated[Path, typer.Option(help="Answers of the model after, on the same items.")],
    output: Output,
    *,
    eval_set: EvalSet = None,
    as_json: AsJson = False,
    fail_on_regression: Gate = False,
) -> None:
    """Compare two evaluations, named by options as `training/eval_report.py` does."""
    from tracetune.app.report import numbers, sentences
    from tracetune.app.report import report as write

    written = write(before, after, output, eval_set=eval_set)
    _tell(numbers(written) if as_json else sentences(written))
    if fail_on_regression and written.regressed:
        raise typer.Exit(1)


def _tell(what: dict[str, Any] | tuple[str, ...]) -> None:
    if isinstance(what, dict):
        typer.echo(json.dumps(what, indent=2, ensure_ascii=False, allow_nan=False))
    else:
        typer.echo("\n".join(what))
