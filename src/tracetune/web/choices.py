"""What a form can choose from, and what a reference to a model is called on a page."""

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tracetune.app import jobs, registry
from tracetune.app.dataset_views import page_datasets
from tracetune.app.evalsets import list_evalsets
from tracetune.core.errors import TracetuneError
from tracetune.web.wording import short

MAX_CHOICES = 100


def dataset_keys(home: Path) -> list[str]:
    """The newest datasets."""
    return [record.dataset_key for record in page_datasets(limit=MAX_CHOICES, home=home).items]


def eval_set_names(home: Path) -> list[str]:
    """The newest eval sets."""
    return [item.name for item in list_evalsets(limit=MAX_CHOICES, home=home).items]


def model_choices(home: Path) -> list[tuple[str, str]]:
    """(reference, what it is called): the built-in model, the registry's, and finished runs that trained one."""
    versions = registry.list_models(limit=MAX_CHOICES, home=home).items
    runs = jobs.list_runs(limit=MAX_CHOICES, state="finished", home=home).items
    return [
        ("tiny", "the built-in model"),
        *((f"model:{item.model_id}", f"{item.name} version {item.version}") for item in versions),
        *((f"run:{run.run_id}", run.name) for run in runs if run.kind != "evaluation"),
    ]


def model_names(references: Iterable[str], home: Path) -> dict[str, str]:
    """What each reference is called."""
    return {reference: model_name(reference, home) for reference in references}


@lru_cache(maxsize=4096)
def model_name(reference: str, home: Path) -> str:
    """A run's name or a version's, with the beginning of its id; another reference stands for itself.

    Names of runs and versions never change; one that is gone is called by its id.
    """
    kind, _, identifier = reference.partition(":")
    try:
        if kind == "run":
            return f"{jobs.get_run(identifier, home).name} ({short(identifier)})"
        if kind == "model":
            version = registry.get_model(identifier, home)
            return f"{version.name} version {version.version}"
        if kind == "experiment":
            return identifier.partition("/")[2]
    except TracetuneError:
        return f"{kind} {short(identifier)}"
    return reference
