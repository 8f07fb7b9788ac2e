"""The model card of an export: what the model was made from, how, and how well it does. Facts of the run alone.

A place on the disk is never told, only its last name.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from tracetune.core.errors import TracetuneError
from tracetune.core.results import Accuracy, EvalResult
from tracetune.evals.records import read_result
from tracetune.evals.statistics import wilson
from tracetune.reports.markdown import escape
from tracetune.reports.wording import level, percent, span
from tracetune.tasks.grading import grade

CARD = "README.md"
UNKNOWN = "unknown"
CONFIDENCE = 0.95
# Where something lies or is written says nothing about the model.
_NOT_TOLD = ("output", "training.checkpoint_dir", "tracking", "wandb", "training.log_dir")
_RECIPES = {"trace_sft_v1": "sft", "grpo_v1": "grpo"}


class Origin(NamedTuple):
    """Where an exported model comes from. `run` is the run's folder and `manifest` its manifest, where it has one;
    `quantized` says how the base was held while an adapter was trained on it."""

    base: str
    base_fingerprint: str
    base_folder: Path | None
    run: Path | None
    manifest: Mapping[str, Any]
    quantized: str | None = None


class Facts(NamedTuple):
    """What the export itself is."""

    title: str
    kind: str
    dtype: str
    fingerprint: str


class Measured(NamedTuple):
    """One evaluation file of the run."""

    name: str
    is_base: bool
    result: EvalResult


def write_card(folder: Path, origin: Origin, facts: Facts) -> None:
    """README.md with the YAML that the hub reads in front."""
    measured = find_evaluations(origin)
    front = yaml.safe_dump(_front(origin, facts, measured), sort_keys=False, allow_unicode=True)
    parts = (_head(origin, facts), _data(origin), _evaluations(measured), _settings(origin), _license(origin))
    body = "\n\n".join("\n".join(part) for part in map(list, parts) if part)
    (folder / CARD).write_text(f"---\n{front}---\n\n{body}\n", encoding="utf-8")


def find_evaluations(origin: Origin) -> list[Measured]:
    """The evaluation files in the run's folder, by name; a file that is none is passed over."""
    if origin.run is None:
        return []
    found = []
    for path in sorted((*origin.run.glob("*.jsonl"), *origin.run.glob("evaluations/*.jsonl"))):
        if not _is_evaluation(path):
            continue
        try:
            result = read_result(path, grade=grade)
        except TracetuneError:
            continue
        if any(item.score.correct is not None for item in result.items):
            found.append(Measured(path.stem, result.model == origin.manifest.get("base_model"), result))
    return found


def license_of(folder: Path | None) -> str:
    """The licence in a model folder's own card; `unknown` where it has none."""
    try:
        text = "" if folder is None else (folder / CARD).read_text("utf-8")
        front = yaml.safe_load(text.split("---\n")[1]) if text.startswith("---\n") else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, IndexError):
        return UNKNOWN
    told = front.get("license") if isinstance(front, Mapping) else None
    return told if isinstance(told, str) else UNKNOWN


def _is_evaluation(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            row = json.loads(file.readline())
        except ValueError:
            return False
    meta = row.get("meta") if isinstance(row, dict) else None
    return isinstance(meta, dict) and meta.get("source") == "evaluation"


def _front(origin: Origin, facts: Facts, measured: Sequence[Measured]) -> dict[str, Any]:
    recipe = _RECIPES.get(str(origin.manifest.get("recipe")))
    front: dict[str, Any] = {"license": license_of(origin.base_folder)}
    if _is_repository(origin.base):
        front["base_model"] = origin.base
    front |= {
        "library_name": {"adapter": "peft", "gguf": "llama.cpp"}.get(facts.kind, "transformers"),
        "pipeline_tag": "text-generation",
        "tags": ["tracetune", *([recipe] if recipe else []), *(["lora"] if facts.kind == "adapter" else [])],
    }
    results = [_index_entry(each) for each in measured if not each.is_base]
    return front | ({"model-index": [{"name": facts.title, "results": results}]} if results else {})


def _index_entry(measured: Measured) -> dict[str, Any]:
    value = round(_accuracy(measured.result).value, 4)
    return {
        "task": {"type": "text-generation"},
        "dataset": {"name": measured.name, "type": measured.name},
        "metrics": [{"type": "accuracy", "value": value}],
    }


def _head(origin: Origin, facts: Facts) -> Iterator[str]:
    made = {"adapter": "A LoRA adapter in PEFT's form", "gguf": "Whole weights in GGUF"}
    yield f"# {escape(facts.title)}"
    yield ""
    yield f"{made.get(facts.kind, 'Whole weights in Hugging Face form')}, stored as {facts.dtype}."
    yield ""
    yield f"- Base model: {escape(_named(origin.base))} (fingerprint `{origin.base_fingerprint}`)"
    yield f"- Fingerprint of these weights: `{facts.fingerprint}`"
    if run_id := origin.manifest.get("run_id"):
        yield f"- Run: `{run_id}`, recipe `{origin.manifest.get('recipe')}`, code `{origin.manifest.get('git_sha')}`"
    if origin.quantized:
        onto = "is to be put on" if facts.kind == "adapter" else "was merged into"
        yield (
            f"- The adapter was trained over a base held as {origin.quantized}; it {onto} the original weights, not "
            "the quantised ones, so outputs differ a little from those seen in training."
        )


def _data(origin: Origin) -> Iterator[str]:
    manifest = origin.manifest
    yield "## Data"
    yield ""
    if not manifest:
        yield "No run was exported, so nothing is known of the data."
        return
    data = manifest.get("data") or {}
    content = manifest.get("dataset_content_hash") or data.get("content_hash") or data.get("rows_hash")
    yield f"- Dataset key: {_code(manifest.get('dataset_key')) or 'none (not a frozen dataset)'}"
    yield f"- Content hash: {_code(content) or 'not recorded'}"
    for name in ("num_examples", "num_steps"):
        if manifest.get(name) is not None:
            yield f"- {name.removeprefix('num_').capitalize()}: {manifest[name]}"


def _evaluations(measured: Sequence[Measured]) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    if not measured:
        yield "The run's folder holds no evaluation."
        return
    yield f"| evaluation | model | correct | accuracy | {level(CONFIDENCE)} interval |"
    yield "|---|---|---|---|---|"
    for name, is_base, result in measured:
        found = _accuracy(result)
        who = "base" if is_base else "this model"
        share = f"{found.correct} of {found.total}"
        yield f"| {escape(name)} | {who} | {share} | {percent(found.value)} | {span(found.interval)} |"
    yield ""
    yield "Intervals are Wilson's; answers without a score are left out."


def _settings(origin: Origin) -> Iterator[str]:
    settings = origin.manifest.get("training_config")
    if not isinstance(settings, Mapping):
        return
    yield "## Training settings"
    yield ""
    yield "| setting | value |"
    yield "|---|---|"
    for name, value in _flat(settings, ""):
        if not name.startswith(_NOT_TOLD):
            yield f"| `{name}` | {escape(_named(value))} |"


def _license(origin: Origin) -> Iterator[str]:
    known = license_of(origin.base_folder)
    yield "## Licence"
    yield ""
    if known == UNKNOWN:
        yield "The licence of the base model is unknown to Tracetune; look it up before you share these weights."
    else:
        yield f"The base model's card says `{known}`; these weights are derived from it."


def _flat(section: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", value


def _named(value: Any) -> str:
    """A value as text, a place on the disk by its last name."""
    return Path(value).name if isinstance(value, str) and _is_place(value) else str(value)


def _is_place(text: str) -> bool:
    return text.startswith(("/", "./", "../", "~"))


def _is_repository(name: str) -> bool:
    return name.count("/") == 1 and not _is_place(name) and not Path(name).exists()


def _accuracy(result: EvalResult) -> Accuracy:
    """Over the answers that have a score."""
    scored = [item.score.correct for item in result.items if item.score.correct is not None]
    return Accuracy(sum(scored), len(scored), wilson(sum(scored), len(scored), confidence=CONFIDENCE))


def _code(value: Any) -> str:
    return f"`{value}`" if value else ""
