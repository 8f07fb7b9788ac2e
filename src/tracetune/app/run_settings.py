"""What a run is asked to do, checked as the command line checks it, but with ids where a person would give paths.

A request comes from somewhere else: words that name files, folders or code of this machine are refused, and so are
the parts of YAML and Hydra that read the environment or grow without bound. No JAX here.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple, get_args

import yaml

from tracetune.config.aliases import BUILT_IN
from tracetune.config.evaluation import EvaluationSettings, load_evaluation
from tracetune.config.grpo import config_mapping as grpo_mapping
from tracetune.config.grpo import resolve_grpo
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.resolve import config_mapping as sft_mapping
from tracetune.config.resolve import load_sft_config
from tracetune.config.schema import OutputSettings, SftConfig
from tracetune.core.errors import InputError

RunKind = Literal["sft", "grpo", "evaluation"]
RUN_KINDS: tuple[RunKind, ...] = get_args(RunKind)
MAX_WORDS, MAX_WORD_CHARS, MAX_BRACKETS = 200, 4_000, 40
MODEL_WORDS: Mapping[str, tuple[str, ...]] = {
    "sft": ("model", "model.name", "model.base_model"),
    "grpo": ("model.path",),
    "evaluation": ("model",),
}
# Hydra's composition keeps one state for the whole process.
_COMPOSING = Lock()


class Asked(NamedTuple):
    """A request as it came. `model` is a reference: `tiny`, an alias, `run:ID` or `model:ID`."""

    kind: str
    overrides: tuple[str, ...] = ()
    dataset: str | None = None
    model: str | None = None
    eval_set: str | None = None


def settle(asked: Asked) -> dict[str, Any]:
    """The run's `spec`: what was asked, and every dial with its value. Raises InputError listing every mistake."""
    if asked.kind not in RUN_KINDS:
        raise InputError(f"kind: must be one of {', '.join(RUN_KINDS)}, got {asked.kind[:40]!r}")
    mistakes = [*_word_mistakes(asked.overrides), *_model_twice(asked), *_lacking(asked)]
    if mistakes:
        raise InputError("\n".join(mistakes))
    model, config = _SETTLE[asked.kind](asked)
    return {**asked._asdict(), "overrides": list(asked.overrides), "model": model, "config": config}


def sft_config(spec: Mapping[str, Any], model: str) -> SftConfig:
    """The settings of a run that trains `model`, where its reference was resolved."""
    config = load_sft_config(spec["config"], where="run")
    return replace(config, model=replace(config.model, name=model))


def grpo_config(spec: Mapping[str, Any], model: str, *, checkpoints: Path, problems: Path | None) -> GrpoConfig:
    """The same for GRPO, with its checkpoints and its file of problems where the run has them."""
    config = resolve_grpo(spec["config"], where="run")
    config = replace(
        config,
        model=replace(config.model, name=model),
        training=replace(config.training, checkpoint_dir=str(checkpoints)),
    )
    if problems is None:
        return config
    return replace(config, data=replace(config.data, data_source="jsonl", data_path=str(problems), task=None))


def evaluation_settings(spec: Mapping[str, Any]) -> EvaluationSettings:
    """The same for an evaluation."""
    return load_evaluation(spec["config"])


def _settle_sft(asked: Asked) -> tuple[str, dict[str, Any]]:
    given = {} if asked.model is None else {"model": {"name": asked.model}}
    config = load_sft_config(given, asked.overrides, where="request")
    _refuse(
        {
            "output": (config.output != OutputSettings(), "the service names a run's files; leave it out"),
            "data.train_file": (config.data.train_file is not None, "names a file of the server; give dataset"),
            "data.train_files": (config.data.train_files is not None, "names files of the server; give dataset"),
            "data.eval_file": (config.data.eval_file is not None, "names a file of the server; leave it out"),
            "benchmark.datasets": (bool(config.benchmark.datasets), "may name files of the server; give a suite"),
            "benchmark.compare": (config.benchmark.compare is not None, "names a file of the server; leave it out"),
            "backend": (config.backend != "local", f"only local runs here, got {config.backend!r}"),
        }
    )
    return config.model.name, sft_mapping(config)


def _settle_grpo(asked: Asked) -> tuple[str, dict[str, Any]]:
    from tracetune.config.compose import compose_grpo

    hydras = [word for word in asked.overrides if word.lstrip("+~").startswith(("hydra.", "hydra/", "hydra="))]
    if hydras:
        raise InputError("\n".join(f"override {word!r}: Hydra's own settings stay with the server" for word in hydras))
    with _COMPOSING:
        config = compose_grpo(asked.overrides)
    whole = GrpoConfig()
    asked_benchmark = config.tracking.benchmark
    code = [reward.function for reward in config.rewards if ":" in reward.function]
    _refuse(
        {
            "checkpoint_dir": (
                config.training.checkpoint_dir != whole.training.checkpoint_dir,
                "the service names a run's folders; leave it out",
            ),
            "training.log_dir": (config.tracking.log_dir is not None, "names a folder of the server; leave it out"),
            "training.data_path": (config.data.data_path is not None, "names a file of the server; give dataset"),
            "training.eval_path": (config.data.eval_path is not None, "names a file of the server; leave it out"),
            "rewards.functions": (bool(code), f"code is not taken over this door, got {code}; name built-in rewards"),
            "benchmark.datasets": (bool(asked_benchmark.datasets), "may name files of the server; give a suite"),
            "benchmark.compare": (asked_benchmark.compare is not None, "names a file of the server; leave it out"),
            "resume": (config.resume != whole.resume, "the service resumes a run by its id; leave it out"),
            "backend": (config.backend != "local", f"only local runs here, got {config.backend!r}"),
        }
    )
    if asked.dataset is not None and config.data.data_source != whole.data.data_source:
        raise InputError(f"dataset: contradicts training.data_source={config.data.data_source}; keep one")
    model = asked.model or config.model.name
    return model, grpo_mapping(replace(config, model=replace(config.model, name=model)))


def _settle_evaluation(asked: Asked) -> tuple[str, dict[str, Any]]:
    return asked.model or BUILT_IN, asdict(load_evaluation(overrides=asked.overrides))


_SETTLE = {"sft": _settle_sft, "grpo": _settle_grpo, "evaluation": _settle_evaluation}


def _refuse(checks: Mapping[str, tuple[bool, str]]) -> None:
    mistakes = [f"{key}: {told}" for key, (is_wrong, told) in checks.items() if is_wrong]
    if mistakes:
        raise InputError("\n".join(mistakes))


def _lacking(asked: Asked) -> Iterator[str]:
    """Each kind needs what it works on, and nothing that it would ignore."""
    if asked.kind == "sft" and asked.dataset is None:
        yield "dataset: sft trains on a frozen dataset; give its key"
    if asked.kind == "evaluation":
        if asked.eval_set is None:
            yield "eval_set: an evaluation answers a registered eval set; give its name"
        if asked.model is None:
            yield "model: an evaluation measures a model; give tiny, an alias, run:ID or model:ID"
        if asked.dataset is not None:
            yield "dataset: has no effect on an evaluation; leave it out"
    elif asked.eval_set is not None:
        yield f"eval_set: has no effect on {asked.kind}; leave it out, and evaluate the run when it has finished"


def _model_twice(asked: Asked) -> Iterator[str]:
    if asked.model is None:
        return
    for word in asked.overrides:
        key = word.partition("=")[0].lstrip("+~")
        if key in MODEL_WORDS[asked.kind]:
            yield f"override {word!r}: model is given beside it; keep one"


def _word_mistakes(words: Sequence[str]) -> Iterator[str]:
    """What a word may not hold, before any parser reads it."""
    if len(words) > MAX_WORDS:
        yield f"overrides: at most {MAX_WORDS} are taken, got {len(words)}"
        return
    for word in words:
        told = _word_mistake(word)
        if told is not None:
            yield f"override {word[:60]!r}: {told}"


def _word_mistake(word: str) -> str | None:
    if len(word) > MAX_WORD_CHARS:
        return f"has {len(word):,} characters; {MAX_WORD_CHARS:,} is the most"
    if not word.isprintable():
        return "has a line break or another character that cannot be printed; leave it out"
    if "${" in word:
        return "would be filled in from the server's environment; write the value itself"
    if sum(word.count(bracket) for bracket in "[{(") > MAX_BRACKETS:
        return f"has more than {MAX_BRACKETS} brackets; no setting needs them"
    if _has_anchor(word.partition("=")[2]):
        return "has a YAML anchor, alias or tag; write the value itself"
    return None


def _has_anchor(value: str) -> bool:
    marks = (yaml.AnchorToken, yaml.AliasToken, yaml.TagToken)
    try:
        return any(isinstance(token, marks) for token in yaml.scan(f"value: {value}"))
    except yaml.YAMLError:
        # What the scanner cannot read, the parser refuses with better words.
        return False
