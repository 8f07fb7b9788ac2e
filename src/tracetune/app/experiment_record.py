"""What one experiment was and found, read from the files of its run: nothing is stored twice.

A file that is not there says that its part has not happened yet; one that cannot be read is an error that names it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from tracetune.app.experiments import Place, read_identity
from tracetune.config.schema import OutputSettings
from tracetune.core.errors import InputError
from tracetune.core.strict_json import BadJson, parse_json

Status = Literal["not run", "running", "interrupted", "failed", "finished", "measured"]
STATUSES = ("running", "interrupted", "failed", "finished")
TAIL_BYTES = 65_536
# The curves a reader asks for first, each with its first and last logged value.
CURVES = ("loss", "eval_loss", "reward_mean", "validation_accuracy", "kl")


class Curve(NamedTuple):
    """A number of metrics.jsonl: where it began and where it ended."""

    name: str
    first: float
    last: float


@dataclass(frozen=True, kw_only=True, slots=True)
class RunFacts:
    """What the manifest and the metrics of a run tell; None where they do not."""

    status: Status
    reason: str | None
    model: str | None
    data: str | None
    data_hash: str | None
    seed: int | None
    steps: int | None
    num_steps: int | None
    tokens: int | None
    seconds: float | None
    device: str | None
    ended_at: str | None
    curves: tuple[Curve, ...]
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Experiment:
    """One folder of the tree. `run` is None before training has begun, and of a baseline."""

    place: Place
    description: str
    created_at: str | None
    run: RunFacts | None


def read_experiment(place: Place) -> Experiment:
    """Raises InputError naming the file that cannot be read."""
    identity = read_identity(place)
    words = place.name.split("_", 2)[-1].replace("_", " ")
    return Experiment(
        place=place,
        description=_text(identity.get("description")) or (words if place.kind != "baseline" else ""),
        created_at=_text(identity.get("created_at")),
        run=_run(place),
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
        model=_text(model.get("name")) or _text(model.get("path")),
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
