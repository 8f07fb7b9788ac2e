"""`tracetune benchmark`: a model, an endpoint or recorded answers on mathematics, tutoring and safety; or results."""

import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracetune.core.errors import InputError

if TYPE_CHECKING:
    from tracetune.app.benchmark import BenchmarkOutcome, EndpointSettings, Subject

Text = str | None
Model = Annotated[Text, typer.Option(help="Ask a model of this machine: a folder, an alias or tiny.")]
Url = Annotated[Text, typer.Option(help="Ask an OpenAI-compatible address (http://HOST:PORT/v1) or a {question} one.")]
Answers = Annotated[Path | None, typer.Option(help="Judge recorded answers: of a benchmark, an evaluation, solutions.")]
AnswersOf = Annotated[Text, typer.Option(help="Whose answers, where a file has several models'.")]
Results = Annotated[Path | None, typer.Option(help="Ask nobody: compare this finished result with --compare.")]
ModelName = Annotated[Text, typer.Option(help="What the results call it; also the model asked for at an endpoint.")]
EndpointModel = Annotated[Text, typer.Option(help="The model asked for at an endpoint, where --model-name is another.")]
EndpointKind = Annotated[str, typer.Option(help="auto (by the address), openai or question.")]
KeyVariable = Annotated[Text, typer.Option(help="The variable with the endpoint's key; OpenAI's is OPENAI_API_KEY.")]
Timeout = Annotated[float, typer.Option(help="Seconds for one whole answer of an endpoint.")]
Suite = Annotated[Text, typer.Option(help="quick, standard (the default without --datasets) or comprehensive.")]
Datasets = Annotated[Text, typer.Option(help="Shipped sets (arithmetic, k12, tutoring, safety) and JSONL files: a,b.")]
Base = Annotated[Path | None, typer.Option("--compare", help="The benchmark_results.json to compare with.")]
OutputDir = Annotated[Path | None, typer.Option(help="Where the files go; artifacts/benchmarks/NAME by default.")]
BatchSize = Annotated[int | None, typer.Option(min=1, help="At once: answers of a model (32) or requests (8).")]
MaxTokens = Annotated[int | None, typer.Option(min=1, help="Longest answer, in tokens (512).")]
MaxItems = Annotated[int | None, typer.Option(min=1, help="Only the first N of each evaluation.")]
System = Annotated[Text, typer.Option(help="System text before every item; see docs/benchmark.md for the default.")]
Judge = Annotated[Text, typer.Option(help="Also ask an OpenAI-compatible model to judge tutoring and safety.")]
JudgeModel = Annotated[Text, typer.Option(help="The judge's model.")]
PriceIn = Annotated[float | None, typer.Option(min=0.0, help="Price of a million prompt tokens.")]
PriceOut = Annotated[float | None, typer.Option(min=0.0, help="Price of a million answer tokens.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the numbers as JSON.")]
Gate = Annotated[bool, typer.Option("--fail-on-regression", help="Exit 1 when anything got significantly worse.")]


def benchmark(
    *,
    model: Model = None,
    endpoint: Url = None,
    answers: Answers = None,
    answers_of: AnswersOf = None,
    results: Results = None,
    model_name: ModelName = None,
    endpoint_model: EndpointModel = None,
    endpoint_kind: EndpointKind = "auto",
    key_variable: KeyVariable = None,
    timeout: Timeout = 120.0,
    suite: Suite = None,
    datasets: Datasets = None,
    compare: Base = None,
    output_dir: OutputDir = None,
    batch_size: BatchSize = None,
    max_tokens: MaxTokens = None,
    max_items: MaxItems = None,
    system: System = None,
    judge: Judge = None,
    judge_model: JudgeModel = None,
    price_in: PriceIn = None,
    price_out: PriceOut = None,
    as_json: AsJson = False,
    fail_on_regression: Gate = False,
) -> None:
    """Measure mathematics, tutoring and safety; the same command again asks only what is missing."""
    _refuse_idle({"--judge-model": judge_model}, "--judge", judge)
    _refuse_idle({"--endpoint-model": endpoint_model, "--key-variable": key_variable}, "--endpoint", endpoint)
    _refuse_idle({"--fail-on-regression": fail_on_regression or None}, "--compare", compare)
    if results is not None:
        _refuse_asking(model=model, endpoint=endpoint, answers=answers, answers_of=answers_of, model_name=model_name)
        _refuse_asking(suite=suite, datasets=datasets, max_items=max_items, max_tokens=max_tokens, judge=judge)
        _refuse_asking(batch_size=batch_size, system=system, price_in=price_in, price_out=price_out)
        _compare_only(results, compare, output_dir, as_json=as_json, fail_on_regression=fail_on_regression)
        return
    from tracetune.app import benchmark as app
    from tracetune.app.progress import Reporter

    asked = {"kind": endpoint_kind, "model": endpoint_model or model_name, "key_variable": key_variable}
    asked |= {"timeout": timeout} | ({} if batch_size is None else {"concurrency": batch_size})
    with Reporter(sys.stderr) as reporter:
        done = app.benchmark(
            _subject(model, _endpoint(endpoint, asked), answers, answers_of),
            output=output_dir or _folder(model_name or answers_of or model or (answers and answers.stem)),
            suite=suite,
            datasets=_names(datasets),
            compare=compare,
            model_name=model_name,
            max_tokens=max_tokens or 512,
            batch_size=batch_size or 32,
            max_items=max_items,
            system_instruction=system,
            prices=_prices(price_in, price_out),
            judge=_endpoint(judge, {"kind": "openai", "model": judge_model}),
            reporter=reporter,
        )
    _tell(done, as_json=as_json, fail_on_regression=fail_on_regression)


def _refuse_idle(given: dict[str, Any], read_with: str, other: Any) -> None:
    """Raises InputError for options that are read with another one only, which is not there."""
    idle = [name for name, value in given.items() if value is not None]
    if idle and other is None:
        raise InputError(f"benchmark: {', '.join(idle)} would do nothing without {read_with}; add it")


def _refuse_asking(**given: Any) -> None:
    """Raises InputError for options of a benchmark that asks, where two that are finished are compared."""
    asking = [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]
    if asking:
        raise InputError(f"benchmark: {', '.join(asking)} would do nothing beside --results; leave one of them out")


def _endpoint(url: str | None, asked: dict[str, Any]) -> "EndpointSettings | None":
    from tracetune.app.benchmark import EndpointSettings

    return None if url is None else EndpointSettings(url=url, **asked)


def _subject(
    model: str | None, endpoint: "EndpointSettings | None", answers: Path | None, answers_of: str | None
) -> "Subject":
    from tracetune.app.benchmark import EndpointSubject, ModelSubject, RecordedSubject

    _refuse_idle({"--answers-of": answers_of}, "--answers", answers)
    given = [each for each in (model, endpoint, answers) if each is not None]
    if len(given) != 1:
        raise InputError(
            f"benchmark: needs exactly one of --model, --endpoint, --answers and --results, got {len(given) or 'none'}"
        )
    if model is not None:
        return ModelSubject(model)
    return EndpointSubject(endpoint) if endpoint is not None else RecordedSubject(answers or Path(), answers_of)


def _prices(price_in: float | None, price_out: float | None) -> Any:
    from tracetune.app.benchmark import Prices

    return None if price_in is None and price_out is None else Prices(price_in or 0.0, price_out or 0.0)


def _names(datasets: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (datasets or "").split(",") if name.strip())


def _folder(name: str | None) -> Path:
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name or "endpoint").strip("-.")
    return Path("artifacts/benchmarks") / (plain[-80:] or "benchmark")


def _compare_only(
    results: Path, base: Path | None, output_dir: Path | None, *, as_json: bool, fail_on_regression: bool
) -> None:
    if base is None:
        raise InputError("benchmark: --results needs --compare, the result to compare with")
    from tracetune.app.benchmark import compare_benchmarks
    from tracetune.app.benchmark_words import comparison_lines

    found = compare_benchmarks(base, results, output_dir or (results if results.is_dir() else results.parent))
    typer.echo(_json(found.numbers) if as_json else "\n".join(comparison_lines(found.numbers)))
    if fail_on_regression and found.numbers["regressions"]:
        raise typer.Exit(1)


def _tell(done: "BenchmarkOutcome", *, as_json: bool, fail_on_regression: bool) -> None:
    from tracetune.app.benchmark_words import benchmark_lines, comparison_lines

    compared = done.comparison.numbers if done.comparison else None
    if as_json:
        typer.echo(_json({**done.results, **({"comparison": compared} if compared else {})}))
    else:
        lines = [*benchmark_lines(done.results, done.folder), *(comparison_lines(compared) if compared else ())]
        typer.echo("\n".join(lines))
    if done.all_failed or (fail_on_regression and done.regressed):
        raise typer.Exit(1)


def _json(value: dict[str, Any]) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
