"""A model's name to a folder on this machine: a local folder, a run, or a download from the Hugging Face hub or Kaggle.

HF_HUB_OFFLINE, HF_HOME, HF_ENDPOINT and HF_TOKEN mean what they mean to huggingface_hub. An interrupted download goes
on where it stopped.
"""

import re
from pathlib import Path
from typing import Literal

from huggingface_hub import constants, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,  # pyright: ignore[reportPrivateImportUsage]  # of whichever HTTP client the hub's library uses
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from tracetune.config.aliases import near_names, resolve_alias
from tracetune.core.errors import NotFound, TracetuneError, Unavailable
from tracetune.models.kaggle import download_kaggle, is_kaggle_name
from tracetune.models.resume import fetch_large

MARKERS = ("config.json", "adapter_config.json")
RUN_CHECKPOINT = "checkpoint-final"
_SMALL = ("*.json", "*.jinja")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def locate(name: str, *, weights: bool = True) -> Path:
    """The folder of a model by alias, repository, Kaggle name or path; a run's folder stands for its final checkpoint.

    Without `weights` a repository's config, index and tokenizer are enough, and nothing large is downloaded.
    Raises NotFound with near names for a name nobody knows, Unavailable when the hub cannot be asked.
    """
    folder = Path(name).expanduser()
    if not name.strip():
        raise NotFound("model: has no name; pass a folder, a repository or an alias such as tiny")
    if folder.is_dir():
        return _model_folder(folder)
    if folder.is_file():
        raise NotFound(f"model {name!r}: is a file; pass the folder that holds it")
    if is_kaggle_name(name):
        return _model_folder(download_kaggle(name))
    repository = resolve_alias(name)
    if not _REPOSITORY.fullmatch(repository):
        raise NotFound(f"model {name!r}: no such folder or alias{_suggestion(name)}; pass a folder or a repository")
    return _download(name, repository, weights=weights)


def _model_folder(folder: Path) -> Path:
    for candidate in (folder, folder / RUN_CHECKPOINT):
        if any((candidate / marker).is_file() for marker in MARKERS):
            return candidate
    raise NotFound(
        f"{folder}: not a model: needs {' or '.join(MARKERS)}, there or in {RUN_CHECKPOINT}/; "
        "pass a model's folder or a finished run's"
    )


def _download(name: str, repository: str, *, weights: bool) -> Path:
    try:
        found = _snapshot(repository, *_SMALL)
        if weights:
            _fetch_weights(repository, found.name)
            found = _snapshot(repository, *_SMALL, "*.safetensors")
    except (OSError, HTTPError, HFValidationError) as error:
        raise hub_error("model", name, repository, error, suggestion=_suggestion(name)) from error
    return _model_folder(found)


def _snapshot(repository: str, *patterns: str) -> Path:
    ignored = ["*/*", "consolidated*"]  # other formats of the same weights
    return Path(snapshot_download(repository, allow_patterns=list(patterns), ignore_patterns=ignored))


def _fetch_weights(repository: str, commit: str) -> None:
    if constants.HF_HUB_OFFLINE:
        return
    try:
        fetch_large(repository, commit)
    except HTTPError as error:
        if isinstance(error, OSError):
            raise
        # Out of reach: what is in the cache may do, and huggingface_hub knows.


def hub_error(
    kind: Literal["model", "dataset"], name: str, repository: str, error: Exception, *, suggestion: str = ""
) -> TracetuneError:
    """What went wrong with a download and what to do about it."""
    where = f"{kind} {name!r}" if name == repository else f"{kind} {name!r} ({repository})"
    page = repository if kind == "model" else f"datasets/{repository}"
    command = f"hf download {repository}" + ("" if kind == "model" else " --repo-type dataset")
    if isinstance(error, GatedRepoError):
        return Unavailable(
            f"{where}: its owner asks for a licence; accept it at huggingface.co/{page} and set HF_TOKEN"
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError | HFValidationError):
        return NotFound(f"{where}: no such folder or repository{suggestion}; a private repository needs HF_TOKEN set")
    if _status(error) in (401, 403):
        return Unavailable(
            f"{where}: the hub refuses it to whoever this token is; set HF_TOKEN to a valid one that may read it "
            "(huggingface.co/settings/tokens)"
        )
    if isinstance(error, LocalEntryNotFoundError | OfflineModeIsEnabled):
        return Unavailable(
            f"{where}: no such folder, not downloaded yet, and the hub is switched off or out of reach; run "
            f"`{command}` while online, or pass the {kind}'s folder"
        )
    return Unavailable(f"{where}: download failed ({error}); try again, or pass the {kind}'s folder")


def _status(error: BaseException) -> int | None:
    """The hub's answer, which may lie under an error about the cache that was tried next."""
    under = error.__cause__ if isinstance(error, LocalEntryNotFoundError) else error
    response = under.response if isinstance(under, HfHubHTTPError) else None
    return None if response is None else response.status_code


def _suggestion(name: str) -> str:
    near = near_names(name)
    return f" (did you mean {' or '.join(near)}?)" if near else ""
