"""A YAML file of reinforcement learning with verifiable rewards becomes a typed GRPO run, or one error with every
mistake. Nothing is ignored."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from tracetune.config.check import Setting, Settings, Table
from tracetune.config.grpo import settled
from tracetune.config.grpo_schema import GrpoConfig
from tracetune.config.resolve import override, read_words, read_yaml, rivals_told
from tracetune.config.rlvr_dials import EXCLUSIVE, RLVR_DIALS, VERIFIERS
from tracetune.config.schema import LoraSettings

RLVR_KEYS = Table(RLVR_DIALS, hint="training/README.md has every key")
CHECKPOINTS = "checkpoints"
# What is rewarded where no verifier is named: the answer, and a little for its form.
DEFAULT_VERIFIERS = {"numeric": 1.0, "format": 0.2}


class RlvrRun(NamedTuple):
    """A GRPO run and its folder, None where nobody named one; its checkpoints are inside."""

    config: GrpoConfig
    output: Path | None


def load_rlvr_config(
    source: str | Path | Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    *,
    data: Path | None = None,
    output: Path | None = None,
    where: str = "config",
) -> RlvrRun:
    """Read, check and type a configuration; `data` and `output` win over it, and `where` names a mapping in messages.

    Raises NotFound for a missing file, InputError listing every mistake.

    >>> load_rlvr_config({"data": {"train_file": "a.jsonl"}, "verifiers": {"numeric": 1}}).config.rewards
    (RewardSettings(function='numeric', weight=1.0),)
    """
    mistakes: list[str] = []
    if source is None or isinstance(source, Mapping):
        content = dict(source or {})
    else:
        where, content = str(source), read_yaml(Path(source))
    settings = RLVR_KEYS.check(content, where, mistakes)
    override(settings, RLVR_KEYS.check(read_words(overrides, mistakes), "override", mistakes), EXCLUSIVE)
    mistakes += rivals_told({name: one for name, one in settings.items() if one.value is not None}, EXCLUSIVE)
    if data is not None:
        settings["data.data_path"] = Setting(str(data), "--data")
    if "data.data_path" not in settings:
        mistakes.append("data.train_file: nothing to train on; give --data FILE, or data.train_file in the config")
    folder = output or (Path(settings["output"].value) if "output" in settings else None)
    settings.pop("output", None)
    _complete(settings, mistakes)
    config = settled(settings, where, mistakes)
    if folder is not None:
        config = replace(config, training=replace(config.training, checkpoint_dir=str(folder / CHECKPOINTS)))
    return RlvrRun(config, folder)


def _complete(settings: Settings, mistakes: list[str]) -> None:
    """What GRPO's settings need beside the keys of the file."""
    settings["data.data_source"] = Setting("jsonl", "rlvr")
    settings.setdefault("data.data_path", Setting("", "rlvr"))
    settings["training.num_batches"] = Setting(None, "rlvr")
    _verifiers(settings, mistakes)
    adapter = [name for name in settings if name.startswith("lora.")]
    if "lora.r" in settings and settings["lora.r"].value is None:
        for name in adapter:
            del settings[name]
    elif adapter:
        settings.setdefault("lora.r", Setting(LoraSettings().r, "model.peft_config"))


def _verifiers(settings: Settings, mistakes: list[str]) -> None:
    """The rewards that the named verifiers are."""
    named = {name: settings.pop(f"verifiers.{name}", None) for name in VERIFIERS}
    weights = {name: setting.value for name, setting in named.items() if setting and setting.value is not None}
    if not any(named.values()):
        weights = DEFAULT_VERIFIERS
    elif not weights:
        mistakes.append(f"verifiers: must name at least one of {', '.join(VERIFIERS)}; give one a weight")
    settings["rewards.functions"] = Setting(tuple(weights), "verifiers")
    settings["rewards.weights"] = Setting(tuple(weights.values()), "verifiers")
