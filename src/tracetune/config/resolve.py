"""A YAML file or mapping, plus `key=value` overrides, becomes one typed `SftConfig`, or one error with every mistake.

Nothing is ignored: an unknown key, a wrong type, a value out of range and a contradiction are all refused at once.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from tracetune.config.benchmark import benchmark_mapping, make_benchmark
from tracetune.config.check import Settings, Table
from tracetune.config.dials import DIALS, EXCLUSIVE
from tracetune.config.schema import (
    DataSettings,
    LoraSettings,
    ModelSettings,
    OptimizerSettings,
    OutputSettings,
    SftConfig,
    TrainingSettings,
)
from tracetune.core.errors import InputError, NotFound

_TABLE = Table(DIALS, hint="--dry-run without it prints every key")


def load_sft_config(
    source: str | Path | Mapping[str, Any] | None = None, overrides: Sequence[str] = (), *, where: str = "config"
) -> SftConfig:
    """Read, check and type a configuration; `where` names a mapping in messages.

    Raises NotFound for a missing file, InputError listing every mistake.

    >>> load_sft_config({"model": "tiny", "learning_rate": 2e-5, "steps": 5}).training.num_steps
    5
    """
    settings = settle(_TABLE, source, overrides, where=where, contradictions=contradictions)
    return SftConfig(**sections(settings))


def settle(
    table: Table,
    source: str | Path | Mapping[str, Any] | None,
    overrides: Sequence[str],
    *,
    where: str,
    contradictions: Callable[[Settings], list[str]],
) -> dict[str, Any]:
    """The checked value of every dial that was set, by its target. Raises InputError listing every mistake."""
    mistakes: list[str] = []
    if source is None or isinstance(source, Mapping):
        content = dict(source or {})
    else:
        where, content = str(source), read_yaml(Path(source))
    settings = table.check(content, where, mistakes)
    override(settings, table.check(read_words(overrides, mistakes), "override", mistakes), EXCLUSIVE)
    mistakes.extend(contradictions(settings))
    if mistakes:
        raise InputError("\n".join(mistakes))
    return {target: setting.value for target, setting in settings.items()}


def sft_keys() -> frozenset[str]:
    """Every key that an SFT file may hold, and every section of it."""
    return frozenset({*_TABLE.known, *_TABLE.sections})


def config_mapping(config: SftConfig) -> dict[str, Any]:
    """The configuration as plain JSON values that its loader reads back to an equal object."""
    mapping = asdict(config)
    if config.training.num_steps is not None:
        del mapping["training"]["num_epochs"]
    if config.optimizer.warmup_steps is not None:
        del mapping["optimizer"]["warmup_ratio"]
    if config.model.lora is not None:
        mapping["model"]["lora"]["target_modules"] = list(config.model.lora.target_modules)
    for name in ("train_files", "grades", "topics"):
        value = mapping["data"][name]
        mapping["data"][name] = None if value is None else list(value)
    mesh = mapping["model"].pop("mesh")
    mapping["model"]["mesh_shape"] = [list(mesh["shape"]), list(mesh["axes"])]
    mapping["benchmark"] = benchmark_mapping(config.benchmark)
    return mapping


def to_yaml(config: SftConfig) -> str:
    """The resolved `config.yaml`: every dial with its value, readable by its loader."""
    return OmegaConf.to_yaml(OmegaConf.create(config_mapping(config)))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file of settings as it is written, not yet checked. Raises NotFound, InputError."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise NotFound(f"{path}: no such configuration file; check the path after --config") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text at byte {error.start}; save the file as UTF-8") from error
    try:
        content = OmegaConf.to_container(OmegaConf.create(text), resolve=True, throw_on_missing=True)
    except (YAMLError, OmegaConfBaseException) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path}: not a readable YAML file: {reason}; mend that line") from error
    if not isinstance(content, dict) or any(not isinstance(key, str) for key in content) or content == {text: None}:
        raise InputError(f"{path}: a configuration must be a mapping of keys to values; see training/configs")
    return {str(key): value for key, value in content.items()}


def read_words(overrides: Sequence[str], mistakes: list[str]) -> dict[str, Any]:
    """Read `key=value` words; values are YAML, so 2e-5 is a number and [a,b] a list. Mistakes are appended."""
    content: dict[str, Any] = {}
    for word in overrides:
        key, equals, text = word.partition("=")
        if not equals or not key:
            mistakes.append(f"override {word!r}: must be written key=value")
            continue
        try:
            value = OmegaConf.to_container(OmegaConf.create(f"value: {text}"), resolve=True)
        except (YAMLError, OmegaConfBaseException):
            mistakes.append(f"override: {key}: not a readable value, got {text!r}")
            continue
        content[key] = value["value"] if isinstance(value, dict) else text
    return content


def override(settings: Settings, overrides: Settings, exclusive: Sequence[tuple[str, str]]) -> None:
    """Overrides win: over the same dial, over its rival of an `exclusive` pair, and null over a whole section."""
    for target, setting in overrides.items():
        rivals = {rival for pair in exclusive if target in pair for rival in pair if rival != target}
        for old in [name for name in settings if name in rivals or name.startswith(f"{target}.")]:
            if setting.value is not None or old not in rivals:
                del settings[old]
        settings[target] = setting


def contradictions(settings: Settings) -> list[str]:
    """Pairs of good values that cannot both be obeyed."""
    given = {target: setting for target, setting in settings.items() if setting.value is not None}
    found = rivals_told(given, EXCLUSIVE)
    steps, warmup = given.get("training.num_steps"), given.get("optimizer.warmup_steps")
    if steps and warmup and warmup.value > steps.value:
        found.append(f"{warmup.place}: must not exceed the {steps.value} steps of the run, got {warmup.value}")
    if "data.shuffle_seed" in given and "data.shuffle" in given and not given["data.shuffle"].value:
        found.append(f"{given['data.shuffle_seed'].place}: has no effect while data.shuffle is false; remove one")
    eval_every = given.get("training.eval_every")
    if eval_every and eval_every.value > 0 and not {"data.eval_file", "data.eval_fraction"} & set(given):
        found.append(
            f"{eval_every.place}: needs data.eval_file or data.eval_fraction, the rows to evaluate on; add one or "
            "remove this key"
        )
    return [*found, *_token_bounds(given)]


def rivals_told(given: Settings, exclusive: Sequence[tuple[str, str]]) -> list[str]:
    """Of each pair of which both are given, that one must go."""
    return [
        f"{given[second].place}: contradicts {given[first].place}; keep one"
        for first, second in exclusive
        if first in given and second in given
    ]


def _token_bounds(given: Settings) -> list[str]:
    """Bounds on an example's tokens that no example could keep, or that would have no effect."""
    low, high, length = (given.get(name) for name in ("data.min_tokens", "data.max_tokens", "model.max_length"))
    row = length.value if length else ModelSettings().max_length
    told = []
    if high and high.value > row:
        told.append(f"{high.place}: must not exceed model.max_length, {row} tokens a row, got {high.value}")
    most = min(high.value, row) if high else row
    if low and low.value > most:
        told.append(f"{low.place}: must not exceed the {most} tokens that an example may have, got {low.value}")
    return told


def section(values: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The values of one section, by the last part of their targets."""
    names = {target: target.removeprefix(f"{prefix}.") for target in values if target.startswith(f"{prefix}.")}
    return {name: values[target] for target, name in names.items() if "." not in name}


def sections(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of an `SftConfig`."""
    top = {name: values[name] for name in ("backend", "system_instruction") if name in values}
    lora = section(values, "model.lora")
    model = {name: value for name, value in section(values, "model").items() if name != "lora"}
    return {
        **top,
        "model": ModelSettings(**model, lora=LoraSettings(**lora) if lora else None),
        "optimizer": OptimizerSettings(**section(values, "optimizer")),
        "training": TrainingSettings(**section(values, "training")),
        "data": DataSettings(**section(values, "data")),
        "output": OutputSettings(**section(values, "output")),
        "benchmark": make_benchmark(section(values, "benchmark")),
    }
