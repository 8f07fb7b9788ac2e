"""Models on Kaggle: `kaggle:OWNER/MODEL/FRAMEWORK/VARIATION[/VERSION]`, as kagglehub writes them, the prefix optional.

kagglehub resumes what was interrupted. KAGGLE_API_TOKEN, KAGGLEHUB_CACHE and the like mean what they mean to it;
HF_HUB_OFFLINE keeps it off the network, and a pinned version that was downloaded is found all the same.
"""

import importlib
import re
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import constants

from tracetune.core.errors import InputError, NotFound, TracetuneError, Unavailable

PREFIX = "kaggle:"
# The only framework whose files are config.json, tokenizer.json and safetensors.
_READ = "transformers"
_HANDLE = re.compile(r"(?P<model>[\w.-]+/[\w.-]+)/(?P<framework>\w+)/(?P<variation>[\w.-]+)(/(?P<version>\d+))?")
_REFUSED = (401, 403)


class _Handle(NamedTuple):
    text: str
    model: str
    framework: str
    version: str | None


def is_kaggle_name(name: str) -> bool:
    """Whether a name asks for Kaggle; a repository has two parts, a handle at least four."""
    return name.startswith(PREFIX) or (not name.startswith(".") and bool(_HANDLE.fullmatch(name)))


def download_kaggle(name: str) -> Path:
    """The folder of a model on Kaggle, downloaded once.

    Raises InputError for a name that is no handle or a framework that is not read, NotFound for a model that is not
    there, Unavailable when kagglehub is missing or Kaggle refuses or cannot be asked.
    """
    handle = _parse(name)
    if constants.HF_HUB_OFFLINE and handle.version is None:
        raise Unavailable(
            f"model {name!r}: HF_HUB_OFFLINE is set, and which version is the newest only Kaggle knows; "
            f"pin one that was downloaded: {PREFIX}{handle.text}/N"
        )
    kagglehub = _library(name)
    try:
        return Path(kagglehub.model_download(handle.text))
    except (OSError, ValueError, kagglehub.exceptions.UnauthenticatedError) as error:  # requests' errors are OSErrors
        raise _explain(name, handle, error) from error


def _parse(name: str) -> _Handle:
    text = name.removeprefix(PREFIX)
    match = _HANDLE.fullmatch(text)
    if match is None:
        raise InputError(
            f"model {name!r}: no Kaggle model; write {PREFIX}OWNER/MODEL/{_READ}/VARIATION, with /VERSION to pin one"
        )
    handle = _Handle(text, match["model"], match["framework"], match["version"])
    if handle.framework.lower() != _READ:
        raise InputError(
            f"model {name!r}: its weights are for {handle.framework}, and only those for {_READ} (safetensors) are "
            f"read; choose one of the {_READ} variations at kaggle.com/models/{handle.model}"
        )
    return handle


def _library(name: str) -> Any:
    try:
        return importlib.import_module("kagglehub")
    except ImportError as error:
        raise Unavailable(f"model {name!r}: needs kagglehub; run `pip install 'tracetune[kaggle]'`") from error


def _explain(name: str, handle: _Handle, error: Exception) -> TracetuneError:
    """What went wrong and what to do about it."""
    response = getattr(error, "response", None)
    status = None if response is None else response.status_code
    page = f"kaggle.com/models/{handle.model}"
    if status == 404:
        return NotFound(f"model {name!r}: not on Kaggle; look up its variations at {page}")
    if status in _REFUSED or not isinstance(error, OSError):
        return Unavailable(f"model {name!r}: Kaggle refuses it; accept its licence at {page} and set KAGGLE_API_TOKEN")
    told = " ".join(str(error).split())[:200]
    return Unavailable(f"model {name!r}: download failed ({told}); try again, or pass the model's folder")
