"""Running a manifest again: identical, or the first thing that differs, in the order a person would look."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tracetune.app.distill import run_distill
from tracetune.app.manifest import (
    describe_inputs,
    describe_machine,
    first_input_difference,
    first_machine_difference,
    folder_hashes,
)
from tracetune.app.runs import RunFolder, find_manifest, first_metrics_difference
from tracetune.app.sft import run_sft
from tracetune.app.training_data import read_eval_rows, read_training_data
from tracetune.config.distill import load_distill_config
from tracetune.config.resolve import load_sft_config
from tracetune.core.errors import InputError


class Reproduction(NamedTuple):
    """`identical` says whether weights and metrics have the same bytes (timing fields aside); None when the run
    could not be repeated at all because its inputs changed. `difference` is the first thing that differs, in the
    order data, config, code, versions, device, weights; None when nothing does."""

    identical: bool | None
    difference: str | None


def reproduce(folder: Path, *, home: Path | None = None, stream: TextIO | None = None) -> Reproduction:
    """Run the finished run in `folder` again, in a temporary folder, and compare.

    Raises NotFound without a manifest, or when the data or the model is gone; InputError for an unfinished run.
    """
    path, manifest = find_manifest(folder)
    if manifest.get("status") != "finished":
        raise InputError(f"{path}: the run is {manifest.get('status')}, not finished; run it again to its end first")
    if manifest["recipe"].startswith("distill_"):
        return _distil_again(folder, path, manifest, home=home, stream=stream)
    config = load_sft_config(manifest["training_config"], where=f"{path}: training_config")
    source = _source(manifest)
    rows = read_training_data(config, **source, max_samples=manifest["max_samples"], home=home)
    inputs = describe_inputs(config, rows, read_eval_rows(config, rows), max_samples=manifest["max_samples"])
    for section, kind in (("data", "data"), ("eval_data", "data"), ("training_config", "config")):
        if told := first_input_difference({section: manifest[section]}, inputs):
            return Reproduction(None, f"{kind}: {told}")
    original = RunFolder(folder, config.output)
    written = describe_inputs(load_sft_config(original.config), rows, None, max_samples=None)
    if told := first_input_difference({"training_config": manifest["training_config"]}, written):
        return Reproduction(None, f"config: {original.config}: {told}")
    with tempfile.TemporaryDirectory(prefix="tracetune-reproduce-") as scratch:
        again = RunFolder(Path(scratch) / "run", config.output)
        run_sft(config, **source, output=again.root, max_samples=manifest["max_samples"], home=home, stream=stream)
        _, repeated = find_manifest(again.root)
        if told := first_input_difference({"base_model_hash": manifest["base_model_hash"]}, repeated):
            return Reproduction(None, f"config: {told}")
        outcome = _outcome_difference(manifest, original, again)
    return Reproduction(outcome is None, first_machine_difference(manifest, describe_machine()) or outcome)


def _distil_again(
    folder: Path, path: Path, manifest: dict[str, Any], *, home: Path | None, stream: TextIO | None
) -> Reproduction:
    """What the teacher said is part of the data, so it is compared once the run has been repeated."""
    config = load_distill_config(manifest["training_config"], where=f"{path}: training_config")
    original = RunFolder(folder, config.output)
    written = load_distill_config(original.config)
    # Neither decides the run: the manifest has no benchmark, and a folder may have been moved.
    if written != replace(config, output=written.output, benchmark=written.benchmark):
        return Reproduction(None, f"config: {original.config}: holds other settings than the manifest")
    with tempfile.TemporaryDirectory(prefix="tracetune-reproduce-") as scratch:
        again = RunFolder(Path(scratch) / "run", config.output)
        named = {**_source(manifest), "max_samples": manifest["max_samples"]}
        run_distill(config, **named, output=again.root, home=home, stream=stream)
        _, repeated = find_manifest(again.root)
        for section, kind in (
            *(("data", "data"), ("eval_data", "data"), ("training_config", "config")),
            *(("base_model_hash", "config"), ("teacher", "config")),
        ):
            if told := first_input_difference({section: manifest[section]}, repeated):
                return Reproduction(None, f"{kind}: {told}")
        outcome = _outcome_difference(manifest, original, again)
    return Reproduction(outcome is None, first_machine_difference(manifest, describe_machine()) or outcome)


def _source(manifest: dict[str, Any]) -> dict[str, Any]:
    data = manifest["data"]
    if data["kind"] == "dataset":
        return {"data": None, "dataset": data["dataset_key"]}
    path = Path(data["path"]) if data["kind"] == "file" else None
    return {"data": path, "dataset": None}


def _outcome_difference(manifest: dict[str, Any], original: RunFolder, again: RunFolder) -> str | None:
    recorded, found, repeated = manifest["files"], folder_hashes(original.final), folder_hashes(again.final)
    for name in sorted(recorded | found):
        if recorded.get(name) != found.get(name):
            return f"weights: {original.final / name} is not what this run wrote"
    for name in sorted(recorded | repeated):
        if recorded.get(name) != repeated.get(name):
            return f"weights: {name} was {recorded.get(name)}, is {repeated.get(name)}"
    told = first_metrics_difference(original.metrics, again.metrics)
    return told and f"metrics: {told}"
