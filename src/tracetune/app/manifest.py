"""A run's manifest: what was asked, on which data, model, code and machine; and where two manifests first differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tracetune.app import machine
from tracetune.app.runs import RunFolder, write_manifest
from tracetune.app.training_data import TrainingData
from tracetune.config.resolve import config_mapping
from tracetune.config.schema import SftConfig
from tracetune.core.ids import file_hash, new_id, utc_now

RECIPE = "trace_sft_v1"
# Where two manifests are of two runs. Weights that a service holds have no hash; their tokenizer has.
_COMPARED = (
    *("training_config", "max_samples", "data", "eval_data"),
    *("base_model_hash", "adapter_hash", "tokenizer_hash", "teacher"),
)


def describe_inputs(
    config: SftConfig, data: TrainingData, eval_data: TrainingData | None, *, max_samples: int | None
) -> dict[str, Any]:
    """What decides a supervised run before its model is loaded."""
    facts = None if eval_data is None else eval_data.facts
    return describe_run(RECIPE, config_mapping(config), data.facts, facts, max_samples=max_samples)


def describe_run(
    recipe: str,
    training_config: dict[str, Any],
    data: Mapping[str, Any],
    eval_data: Mapping[str, Any] | None,
    *,
    max_samples: int | None,
) -> dict[str, Any]:
    """What decides a run: its resolved settings and its data. Two equal descriptions are one run."""
    # Where a run is written and how it is measured change nothing in it: a folder may be moved, a benchmark added.
    deciding = {name: value for name, value in training_config.items() if name != "benchmark"}
    output = {name: value for name, value in training_config["output"].items() if name != "folder"}
    return {
        "recipe": recipe,
        "seed": training_config["training"]["seed"],
        "training_config": {**deciding, "output": output},
        "max_samples": max_samples,
        "dataset_key": data.get("dataset_key"),
        "build_id": data.get("build_id"),
        "dataset_content_hash": data.get("content_hash", data["rows_hash"]),
        "data": data,
        "eval_data": eval_data,
    }


def describe_machine() -> dict[str, Any]:
    """What decides the bits of a run beside its inputs. Starts JAX."""
    return {
        **machine.code(),
        "versions": machine.versions(),
        "device": machine.device(),
        "xla_flags": machine.xla_flags(),
        "switches": machine.switches(),
    }


def begin_manifest(folder: RunFolder, inputs: Mapping[str, Any], model: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest of a run that begins; `model` describes the base model and its adapter."""
    return {
        "run_id": new_id(),
        "created_at": utc_now(),
        "status": "running",
        "exit_reason": None,
        **inputs,
        **model,
        **describe_machine(),
        "artifacts_path": str(folder.root),
        "durations": {"total_seconds": 0.0, "training_seconds": 0.0},
        "sessions": [],
    }


def named(run_id: str | None) -> dict[str, str]:
    """The field of a manifest for an id that was given, before the run began."""
    return {} if run_id is None else {"run_id": run_id}


def begin_session(path: Path, manifest: dict[str, Any]) -> None:
    """One more process works on the run."""
    manifest["sessions"].append({"started_at": utc_now(), "from_step": None})
    manifest |= {"status": "running", "exit_reason": None}
    write_manifest(path, manifest)


def end_session(path: Path, manifest: dict[str, Any], *, status: str, reason: str | None, seconds: float) -> None:
    """How that process ended, after so many seconds."""
    durations = manifest["durations"]
    durations["total_seconds"] = round(durations["total_seconds"] + seconds, 3)
    manifest |= {"status": status, "exit_reason": reason, "ended_at": utc_now()}
    manifest["sessions"][-1] |= {"ended_at": utc_now(), "status": status, **_computing()}
    write_manifest(path, manifest)


def _computing() -> dict[str, Any]:
    """What this process has compiled, and on an accelerator which way attention took and why."""
    from tracetune.app.compile_cache import compiled_so_far
    from tracetune.models.attention import ways_told

    ways = ways_told()
    return {"compiled": compiled_so_far().told()} | ({"attention": ways} if ways else {})


def first_input_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first setting, row or base model in which two manifests differ, as `name was X, is Y`; None when equal.

    The path of a data file and the counts are not compared: the rows' hash says it all.
    """
    return next(
        (
            told
            for section in _COMPARED
            if section in before and section in now
            for told in _differences(_comparable(before[section]), _comparable(now[section]), section)
        ),
        None,
    )


def first_machine_difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """The first of code, versions and device in which two manifests differ; None when equal."""
    # A commit that leaves the package's source alone, a document's for example, is no difference.
    code = ("git_sha", "code_hash") if before.get("code_hash") != now.get("code_hash") else ()
    return next(
        (
            f"{kind}: {told}"
            for kind, section in (
                *(("code", section) for section in code),
                ("versions", "versions"),
                ("device", "device"),
                ("device", "xla_flags"),
                ("device", "switches"),
            )
            for told in _differences(before.get(section), now.get(section), section)
        ),
        None,
    )


def folder_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file of a folder, by name."""
    return {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.is_file()}


def _comparable(section: Any) -> Any:
    """Of a data section only the hashes of its rows and of the prompts that they answer; of the settings all but the
    mesh, which decides only last bits."""
    if isinstance(section, Mapping) and "rows_hash" in section:
        return {name: section[name] for name in ("rows_hash", "prompts_hash") if name in section}
    if isinstance(section, Mapping) and isinstance(section.get("model"), Mapping):
        return {**section, "model": {name: dial for name, dial in section["model"].items() if name != "mesh_shape"}}
    return section


def _differences(before: Any, now: Any, name: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted(before.keys() | now.keys()):
            yield from _differences(before.get(key), now.get(key), f"{name}.{key}".removeprefix("training_config."))
    elif before != now:
        yield f"{name} was {before!r}, is {now!r}"
