"""Several runs side by side: first what was asked differently, then how each went."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tracetune.config.check import leaves

MAX_POINTS = 1_000
# Columns of metrics.jsonl that are no curve.
NOT_CURVES = ("step", "timestamp")


class Difference(NamedTuple):
    """One dial that the runs do not share; a run that does not have it has None."""

    key: str
    values: dict[str, Any]


@dataclass(frozen=True, slots=True)
class RunComparison:
    """`series` has a curve per metric and run, `[(step, value), …]`; `names` is the run's name by id."""

    names: Mapping[str, str]
    config_diff: Sequence[Difference]
    series: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]


def compare(
    names: Mapping[str, str], specs: Mapping[str, Mapping[str, Any]], rows: Mapping[str, Sequence[Mapping[str, Any]]]
) -> RunComparison:
    """Compare runs by id: what each was asked to do, and the metrics it has logged."""
    return RunComparison(names, _differences(specs), _series(rows))


def thinned(points: Sequence[tuple[int, float]], most: int = MAX_POINTS) -> list[tuple[int, float]]:
    """At most `most` points, evenly chosen, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    share = (len(points) - 1) / (most - 1)
    return [points[round(index * share)] for index in range(most)]


def _differences(specs: Mapping[str, Mapping[str, Any]]) -> list[Difference]:
    settings = {run_id: _asked(spec) for run_id, spec in specs.items()}
    keys = list(dict.fromkeys(key for asked in settings.values() for key in asked))
    found = [Difference(key, {run_id: asked.get(key) for run_id, asked in settings.items()}) for key in keys]
    return [item for item in found if any(value != next(iter(item.values.values())) for value in item.values.values())]


def _asked(spec: Mapping[str, Any]) -> dict[str, Any]:
    """Ids first, then every dial; how it was written down, `overrides`, is told by the dials."""
    ids = {name: spec.get(name) for name in ("kind", "model", "dataset", "eval_set")}
    return {**ids, **dict(leaves(spec.get("config") or {}))}


def _series(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, dict[str, list[tuple[int, float]]]]:
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for run_id, logged in rows.items():
        for row in logged:
            for name, value in row.items():
                is_number = isinstance(value, int | float) and not isinstance(value, bool)
                if is_number and name not in NOT_CURVES:
                    curves.setdefault(name, {}).setdefault(run_id, []).append((row["step"], value))
    return {name: {run_id: thinned(points) for run_id, points in runs.items()} for name, runs in curves.items()}
