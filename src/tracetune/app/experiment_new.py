"""A new experiment: the next number, and a folder with settings that train into it."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from omegaconf import OmegaConf

from tracetune.app.experiment_facts import Experiment
from tracetune.app.experiment_readme import write_readme
from tracetune.app.experiment_record import read_experiment
from tracetune.app.experiments import BY_WORD, CONFIG_FILE, ROOT, Place, claim, write_new
from tracetune.config.distill import distill_mapping, load_distill_config
from tracetune.config.grpo import deciding_mapping
from tracetune.config.resolve import config_mapping, load_sft_config, read_yaml, to_yaml
from tracetune.config.rlvr import load_rlvr_config
from tracetune.config.schema import SftConfig
from tracetune.core.errors import InputError

_OUTPUT_LINE = re.compile(r"^(\s+output_dir:).*$", re.MULTILINE)
# The sections of a training file that may name the run's folder, and the key in each.
_OUTPUT_KEYS = (("training", "output_dir"), ("output", "folder"))


class Recipe(NamedTuple):
    """How a kind's settings are checked and told in full, and what runs them. `defaults` writes them all, None where
    some have none: a teacher, problems."""

    settle: Callable[[Mapping[str, Any], str], dict[str, Any]]
    script: str
    defaults: Callable[[], str] | None = None


def _sft(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    return config_mapping(load_sft_config(content, where=where))


def _distillation(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    return distill_mapping(load_distill_config(content, where=where))


def _rlvr(content: Mapping[str, Any], where: str) -> dict[str, Any]:
    return deciding_mapping(load_rlvr_config(content, where=where).config)


RECIPES: Mapping[str, Recipe] = MappingProxyType(
    {
        "sft": Recipe(_sft, "training/sft.py", lambda: to_yaml(SftConfig())),
        "distillation": Recipe(_distillation, "training/distillation.py"),
        "rlvr": Recipe(_rlvr, "training/rlvr.py"),
    }
)


def new_experiment(
    kind: str, description: str, *, config: Path | None = None, model: str | None = None, root: Path = ROOT
) -> Place:
    """Make the next experiment of a kind. Its settings are those of `config`, or every default; `model` wins over the
    model named there.

    Nothing is made, and no number is used, when the settings are wrong. Raises InputError listing every mistake,
    NotFound for a missing file, StorageError.
    """
    known, recipe = BY_WORD.get(kind), RECIPES.get(kind)
    if known is None or recipe is None:
        raise InputError(f"kind: must be one of {', '.join(('baseline', *RECIPES))}, got {kind[:40]!r}")
    if config is not None:
        content, text = read_yaml(config), config.read_text("utf-8")
    elif recipe.defaults is not None:
        text = recipe.defaults()
        content = _mapping(text)
    else:
        raise InputError(
            f"--config: {kind} needs settings; begin with training/configs/{Path(recipe.script).stem}.yaml"
        )
    if model is not None:
        content = _with_model(content, model)
    recipe.settle(content, str(config or "config"))
    place = claim(root, known, description)
    write_new(place, description, {CONFIG_FILE: _pointed(text, content, place.folder)})
    write_readme(read_experiment(place))
    return place


def settings_of(experiment: Experiment) -> Mapping[str, Any]:
    """Every dial of its run, or of the settings it is going to run with; none of a baseline. Raises InputError."""
    recipe, path = RECIPES.get(experiment.place.kind), experiment.place.folder / CONFIG_FILE
    if experiment.run is not None:
        return experiment.run.config
    return recipe.settle(read_yaml(path), str(path)) if recipe is not None and path.is_file() else {}


def command(place: Place) -> str:
    """What trains an experiment."""
    return f"python {RECIPES[place.kind].script} --config {place.folder / CONFIG_FILE}"


def _pointed(text: str, content: Mapping[str, Any], folder: Path) -> str:
    """Settings that write into `folder`: the text with that one line changed, or written anew where that is not it."""
    wanted = _with_output(content, str(folder))
    changed = _OUTPUT_LINE.sub(lambda line: f"{line[1]} {folder}", text)
    if changed and _mapping(changed) == wanted:
        return changed
    return OmegaConf.to_yaml(OmegaConf.create(dict(wanted)))


def _with_output(content: Mapping[str, Any], folder: str) -> dict[str, Any]:
    kept = {name: dict(value) if isinstance(value, Mapping) else value for name, value in content.items()}
    for section, key in _OUTPUT_KEYS:
        if isinstance(kept.get(section), dict):
            kept[section].pop(key, None)
            if not kept[section]:
                del kept[section]
    kept["training"] = {**(kept.get("training") or {}), "output_dir": folder}
    return kept


def _with_model(content: Mapping[str, Any], model: str) -> dict[str, Any]:
    """The model under the spelling that the settings use."""
    section = content.get("model")
    kept = dict(section) if isinstance(section, Mapping) else {}
    return {**content, "model": {**kept, "name" if "name" in kept else "base_model": model}}


def _mapping(text: str) -> dict[str, Any]:
    value = OmegaConf.to_container(OmegaConf.create(text), resolve=True)
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}
