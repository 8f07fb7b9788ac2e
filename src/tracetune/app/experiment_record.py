"""What one experiment was and found, read from the files of its run: nothing is stored twice.

A file that is not there says that its part has not happened yet; one that cannot be read is an error that names it.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from tracetune.app.experiment_facts import (
    BenchmarkFacts,
    ComparisonFacts,
    Curve,
    Experiment,
    Rate,
    RateChange,
    RateVerdict,
    RunFacts,
)
from tracetune.app.experiments import Place, read_identity
from tracetune.config.schema import OutputSettings
from tracetune.core.errors import InputError
from tracetune.core.results import Interval
from tracetune.core.strict_json import BadJson, parse_json

BENCHMARK_FILE, COMPARISON_FILE = "benchmark_results.json", "comparison.json"
STATUSES = ("running", "interrupted", "failed", "finished")
TAIL_BYTES = 65_536
# Lists of comparison.json, and what stands in each.
VERDICTS: Mapping[str, RateVerdict] = MappingProxyType(
    {"improvements": "better", "regressions": "worse", "unchanged": "no significant change"}
)
# The curves a reader asks for first, each with its first and last logged value.
CURVES = ("loss", "eval_loss", "reward_mean", "validation_accuracy", "kl")


def read_experiment(place: Place) -> Experiment:
    """Raises InputError naming the file that cannot be read."""
    identity = read_identity(place)
    words = place.name.split("_", 2)[-1].replace("_", " ")
    return Experiment(
        place=place,
        description=_text(identity.get("description")) or (words if place.kind != "baseline" else ""),
        created_at=_text(identity.get("created_at")),
        run=_run(place),
        benchmark=_benchmark(place),
        comparison=_comparison(place),
    )


def _comparison(place: Place) -> ComparisonFacts | None:
    found = _object(place, COMPARISON_FILE)
    return None if found is None else comparison_of(found)


def _benchmark(place: Place) -> BenchmarkFacts | None:
    results = _object(place, BENCHMARK_FILE)
    if results is None:
        return None
    sections, counted = _mapping(results.get("evaluations")), _mapping(results.get("rates"))
    values = [
        (str(section), str(name), value)
        for section, metrics in sections.items()
        for name, found in _mapping(metrics).items()
        if (value := _number(found)) is not None
    ]
    return BenchmarkFacts(
        model=_named(_text(results.get("model_name"))),
        suite=_text(results.get("suite")),
        measured_at=_text(results.get("timestamp")),
        answered=_whole(results.get("answered")),
        failed=_whole(results.get("failed")),
        rates=tuple(
            Rate(section, name, value, _whole(of.get("total")), _interval(of.get("interval")))
            for section, name, value in values
            for of in (_mapping(counted.get(name)),)
        ),
    )


def comparison_of(found: Mapping[str, Any]) -> ComparisonFacts:
    """What a comparison.json tells, row by row; a row that is none is left out."""
    changes = [
        _change(_mapping(row), VERDICTS[kind])
        for kind in VERDICTS
        for row in (found[kind] if isinstance(found.get(kind), list) else ())
    ]
    baseline = _mapping(found.get("baseline"))
    return ComparisonFacts(
        baseline=_named(_text(baseline.get("model_name"))),
        changes=tuple(change for change in changes if change is not None),
    )


def _change(row: Mapping[str, Any], verdict: RateVerdict) -> RateChange | None:
    name, before, after = _text(row.get("metric")), _number(row.get("baseline")), _number(row.get("current"))
    if name is None or before is None or after is None:
        return None
    return RateChange(
        name, before, after, after - before, _interval(row.get("interval")), _number(row.get("p_adjusted")), verdict
    )


def _run(place: Place) -> RunFacts | None:
    names = OutputSettings()
    manifest = _object(place, names.manifest_file)
    if manifest is None:
        return None
    config, result = (_mapping(manifest.get(name)) for name in ("training_config", "result"))
    model, data = _mapping(config.get("model")), _mapping(manifest.get("data"))
    first, last = _ends(place, names.metrics_file)
    status = manifest.get("status")
    return RunFacts(
        status=status if status in STATUSES else "failed",
        reason=_text(manifest.get("exit_reason")),
        model=_named(_text(model.get("name")) or _text(model.get("path"))),
        data=_text(manifest.get("dataset_key")) or _last_part(_text(data.get("path"))) or _text(data.get("kind")),
        data_hash=_text(manifest.get("dataset_content_hash")) or _text(data.get("rows_hash")),
        seed=_whole(manifest.get("seed")),
        steps=_whole(result.get("steps")) or _whole(last.get("step")),
        num_steps=_whole(manifest.get("num_steps")),
        tokens=_whole(last.get("tokens")),
        seconds=_number(_mapping(manifest.get("durations")).get("total_seconds")),
        device=_device(_mapping(manifest.get("device"))),
        ended_at=_text(manifest.get("ended_at")),
        curves=tuple(_curves(first, last)),
        config=config,
    )


def _curves(first: Mapping[str, Any], last: Mapping[str, Any]) -> Sequence[Curve]:
    found = ((name, _number(first.get(name)), _number(last.get(name))) for name in CURVES)
    return [Curve(name, last if first is None else first, last) for name, first, last in found if last is not None]


def _ends(place: Place, name: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first and the last whole line of a metrics file, both empty before the first."""
    path = place.folder / name
    if not path.is_file():
        return {}, {}
    with path.open("rb") as file:
        first = file.readline()
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        lines = file.read().split(b"\n")[:-1]
    if not first.endswith(b"\n") or not lines:
        return {}, {}
    return _parsed(first, place, name), _parsed(lines[-1], place, name)


def _object(place: Place, name: str) -> dict[str, Any] | None:
    path = place.folder / name
    if not path.is_file():
        return None
    try:
        return _parsed(path.read_bytes(), place, name)
    except OSError as error:
        raise InputError(f"{place.title}/{name}: cannot be read ({error.strerror}); mend its permissions") from error


def _parsed(data: bytes, place: Place, name: str) -> dict[str, Any]:
    where = f"{place.title}/{name}"
    try:
        value = parse_json(data)
    except BadJson as error:
        raise InputError(f"{where}: {error}; restore the file, or run the experiment again") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: must hold JSON objects; restore the file, or run the experiment again")
    return value


def _device(device: Mapping[str, Any]) -> str | None:
    kind, count = _text(device.get("kind")), _whole(device.get("count"))
    return kind and f"{kind} × {count or 1}"


def _named(model: str | None) -> str | None:
    """A model's name; of a folder of this machine its last name, with the run's where that says nothing."""
    if model is None or not model.startswith("/"):
        return model
    parts = [part for part in model.split("/") if part] or [model]
    return "/".join(parts[-2:]) if parts[-1].startswith("checkpoint") else parts[-1]


def _interval(value: Any) -> Interval | None:
    bounds = [_number(bound) for bound in value] if isinstance(value, list) and len(value) == 2 else []
    return None if not bounds or bounds[0] is None or bounds[1] is None else Interval(bounds[0], bounds[1])


def _last_part(path: str | None) -> str | None:
    """A place on the disk is never told, only its last name."""
    return path and path.replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
