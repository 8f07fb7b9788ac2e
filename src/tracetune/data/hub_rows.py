"""Rows of a dataset by its name on the Hugging Face hub, in TensorFlow Datasets or on Kaggle, or of a local copy.

Each library is loaded when its hub is asked. Hugging Face needs no `datasets`, TFDS no TensorFlow: prepared
data are read as files. HF_HUB_OFFLINE, HF_HOME, HF_TOKEN, TFDS_DATA_DIR and KAGGLEHUB_CACHE mean what they
mean to the hubs' own libraries.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tracetune.core.errors import InputError, NotFound, TracetuneError, Unavailable
from tracetune.data.dataset_files import Row, all_shards, find_split, read_file_rows

Patterns = Sequence[str] | None


def huggingface_rows(name: str, subset: str | None, split: str) -> Iterator[Row]:
    """Rows of `owner/name`, `owner/name@revision` or a folder laid out as a repository.

    The subsets and splits of its card (README.md) hold; without them the words of the paths decide.
    """
    where = f"dataset {name!r}"
    folder = Path(name).expanduser()
    fetch = _local(folder) if folder.is_dir() else _from_hub(name)
    patterns = _card_patterns(fetch(["README.md"]) / "README.md", subset, split, where)
    # What is downloaded may be more than the split: the words of the paths are looked at more closely after.
    folder = fetch(patterns or [f"*{split}*"])
    if patterns is None:
        return _rows(find_split(folder, subset, split, where))
    files = {file for pattern in patterns for file in folder.glob(pattern) if file.is_file()}
    if not files:
        raise NotFound(f"{where}: {split} has no file like {', '.join(patterns)}; fetch the dataset again")
    return _rows(all_shards(sorted(files), where))


def kaggle_rows(name: str, subset: str | None, split: str) -> Iterator[Row]:
    """Rows of `owner/name`, `owner/name/versions/N` (read without asking when it is in the cache) or a folder."""
    where = f"Kaggle dataset {name!r}"
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = _kaggle_folder(name, where)
    return _rows(find_split(folder, subset, split, where))


def tfds_rows(name: str, subset: str | None, split: str) -> Iterator[Row]:
    """Rows of a dataset of the catalogue, or of the folder of one prepared version, in the array_record format."""
    where = f"TFDS dataset {name!r}"
    tfds = _library("tensorflow_datasets", "tfds", where)
    try:
        source = _tfds_source(tfds, name, subset, split)
    except tfds.core.DatasetNotFoundError as error:
        raise NotFound(
            f"{where}: not in {tfds.core.constants.DATA_DIR} and not to be prepared here; on a machine with tensorflow "
            f"run `tfds build {name} --file_format=array_record`, or give the folder of a prepared version"
        ) from error
    except NotImplementedError as error:
        raise InputError(f"{where}: {_said(error)}; prepare it again with --file_format=array_record") from error
    except ValueError as error:
        raise NotFound(f"{where}: {_said(error)}") from error
    except (OSError, ImportError, RuntimeError) as error:
        raise Unavailable(
            f"{where}: cannot be prepared here ({_said(error)}); give a prepared version's folder"
        ) from error
    return ((f"{where}: {split} row {index + 1}", _plain(source[index])) for index in range(len(source)))


def _rows(files: Sequence[Path]) -> Iterator[Row]:
    return (row for file in files for row in read_file_rows(file))


def _library(module: str, extra: str, where: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(
            f"{where}: needs {module} ({_said(error)}); run `pip install 'tracetune[{extra}]'`"
        ) from error


def _local(folder: Path) -> Callable[[Sequence[str]], Path]:
    return lambda _: folder


def _from_hub(name: str) -> Callable[[Sequence[str]], Path]:
    """Downloads the files of a repository that patterns ask for; those in the cache are found offline."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, HTTPError  # pyright: ignore[reportPrivateImportUsage]

    from tracetune.models.hub import hub_error

    repository, _, revision = name.partition("@")

    def fetch(patterns: Sequence[str]) -> Path:
        # In the hub's patterns **/ stands for at least one folder, in a glob it may be none.
        allowed = [*patterns, *(pattern.replace("**/", "") for pattern in patterns)]
        try:
            found = snapshot_download(
                repository, repo_type="dataset", revision=revision or None, allow_patterns=allowed
            )
        except (OSError, HTTPError, HFValidationError) as error:
            raise hub_error("dataset", name, repository, error) from error
        return Path(found)

    return fetch


def _card_patterns(card: Path, subset: str | None, split: str, where: str) -> Patterns:
    """The path patterns that the card gives a split; None when it has none to give."""
    configs = _card_configs(card)
    if not configs:
        return None
    default = [name for name, config in configs.items() if config.get("default") or len(configs) == 1] or ["default"]
    subset = subset or default[0]
    if subset not in configs:
        raise NotFound(f"{where}: has no subset {subset!r}; name one of {', '.join(configs)}")
    files = configs[subset].get("data_files")
    if files is None:
        return None
    splits = _splits(files)
    if split not in splits:
        raise NotFound(f"{where}: {subset} has no split {split!r}; name one of {', '.join(splits)}")
    return splits[split]


def _card_configs(card: Path) -> Mapping[str, Mapping[str, Any]]:
    """What the card says of each subset; nothing without a card. Raises InputError for bad YAML."""
    from huggingface_hub import metadata_load
    from yaml import YAMLError

    try:
        facts = metadata_load(card) if card.is_file() else None
    except (YAMLError, ValueError) as error:
        raise InputError(f"{card}: its YAML cannot be read ({_said(error)}); mend it, or give a file's path") from error
    configs = (facts or {}).get("configs") or []
    return {config.get("config_name", "default"): config for config in configs}


def _splits(files: Any) -> Mapping[str, Sequence[str]]:
    """`data_files` of a card in any of its forms as split to patterns; patterns without a split are to train on."""
    if isinstance(files, Mapping):
        return {split: _listed(paths) for split, paths in files.items()}
    if isinstance(files, list) and all(isinstance(entry, Mapping) for entry in files):
        return {entry["split"]: _listed(entry["path"]) for entry in files}
    return {"train": _listed(files)}


def _listed(paths: str | Sequence[str]) -> Sequence[str]:
    return [paths] if isinstance(paths, str) else paths


def _kaggle_folder(name: str, where: str) -> Path:
    kagglehub = _library("kagglehub", "kaggle", where)
    try:
        return Path(kagglehub.dataset_download(name))
    except ValueError as error:
        raise InputError(f"{where}: {_said(error)}; write owner/name, or owner/name/versions/N") from error
    except (OSError, kagglehub.exceptions.UnauthenticatedError) as error:  # requests' errors are OSErrors
        raise _kaggle_error(error, where) from error


def _kaggle_error(error: Exception, where: str) -> TracetuneError:
    response = getattr(error, "response", None)
    if response is not None and response.status_code == 404:
        return NotFound(f"{where}: no such dataset; check owner/name")
    return Unavailable(
        f"{where}: Kaggle cannot be asked ({_said(error)}); log in with KAGGLE_API_TOKEN, "
        "pin a downloaded version as owner/name/versions/N, or give a folder"
    )


def _tfds_source(tfds: Any, name: str, subset: str | None, split: str) -> Any:
    """Rows by position. Only array_record files are read, and prepared, without TensorFlow."""
    folder = Path(name).expanduser()
    if not folder.is_dir():
        options = {"file_format": "array_record"}
        return tfds.data_source(f"{name}/{subset}" if subset else name, split=split, builder_kwargs=options)
    if not (folder / "dataset_info.json").is_file():
        raise ValueError("is no prepared version, has no dataset_info.json; give the folder whose name is the version")
    return tfds.builder_from_directory(folder).as_data_source(split=split)


def _said(error: Exception) -> str:
    """What another library's error says, in one line."""
    return " ".join(str(error).split())[:200]


def _plain(value: Any) -> Any:
    """NumPy values and bytes as plain ones."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return value.tolist() if hasattr(value, "tolist") else value
