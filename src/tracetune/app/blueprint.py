"""A model's shape by its name, its weights unread: what is planned and rehearsed must fit where the run would not."""

from pathlib import Path
from typing import NamedTuple

from tracetune.config.aliases import built_in
from tracetune.config.dials import PROJECTIONS
from tracetune.config.schema import LoraSettings
from tracetune.models import adapter
from tracetune.models.arch import Arch
from tracetune.models.describe import describe
from tracetune.models.hf import read_object
from tracetune.models.hub import locate
from tracetune.models.tiny import tiny_arch


class Blueprint(NamedTuple):
    """`lora` are the settings of the adapter that the name stands for, which is what a run would go on training;
    `folder` None is the built-in model, else where its config and tokenizer are."""

    arch: Arch
    lora: LoraSettings | None = None
    folder: Path | None = None


def blueprint(name: str) -> Blueprint:
    """The shape behind an alias, a repository, a folder or an index file. Raises as `locate` and `describe` do."""
    if size := built_in(name):
        return Blueprint(tiny_arch(size))
    path = Path(name).expanduser()
    # The index of a checkpoint stands for the folder it lies in.
    folder = path.parent if path.name.endswith(".index.json") and path.is_file() else locate(name, weights=False)
    if (folder / adapter.CONFIG).is_file():
        return blueprint(adapter.base_of(folder))._replace(lora=_adapter_settings(folder))
    return Blueprint(describe(folder).arch, folder=folder)


def _adapter_settings(folder: Path) -> LoraSettings:
    """As far as memory goes: a pattern of modules counts as all of them."""
    recorded = read_object(folder / adapter.CONFIG)
    modules, rank = recorded.get("target_modules"), recorded.get("r")
    named = tuple(name for name in PROJECTIONS if isinstance(modules, list) and name in modules)
    return LoraSettings(r=rank if isinstance(rank, int) and rank > 0 else 1, target_modules=named or PROJECTIONS)
