"""The tree of experiments: one numbered folder a training run, one a baseline; its names are this module's alone.

`ROOT/sft/sft_NNN_description`, `ROOT/distillation/dist_NNN_…`, `ROOT/rlvr/rlvr_NNN_…`, `ROOT/baseline/MODEL`. A number
is given once, whoever asks at the same time and whatever was deleted since.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args

from tracetune.app.names import PATTERN
from tracetune.core.durable import publish_folder
from tracetune.core.errors import InputError, NotFound, StorageError
from tracetune.core.ids import utc_now

ExperimentKind = Literal["baseline", "sft", "distillation", "rlvr"]
KINDS: tuple[ExperimentKind, ...] = get_args(ExperimentKind)
BY_WORD: Mapping[str, ExperimentKind] = MappingProxyType({str(kind): kind for kind in KINDS})
PREFIXES: Mapping[str, str] = MappingProxyType({"sft": "sft", "distillation": "dist", "rlvr": "rlvr"})
ROOT = Path("training/experiments")
CONFIG_FILE, IDENTITY_FILE = "training_config.yaml", "experiment.json"
MAX_DESCRIPTION_CHARS, MAX_SLUG_CHARS = 500, 60
# One empty file for each number that was given: a folder may be deleted, its number stays used.
_NUMBERS = ".numbers"
_NAME = re.compile(PATTERN.removeprefix("^").removesuffix("$"))


class Place(NamedTuple):
    """One experiment's folder in the tree."""

    kind: ExperimentKind
    name: str
    folder: Path

    @property
    def title(self) -> str:
        """`kind/name`, as it is told and asked for."""
        return f"{self.kind}/{self.name}"


def slug(text: str) -> str:
    """A description as a part of a folder's name.

    >>> slug("Higher LR, 2e-5!")
    'higher_lr_2e_5'
    """
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")[:MAX_SLUG_CHARS].strip("_")


def model_slug(model: str) -> str:
    """A model's name as the name of its baseline's folder.

    >>> model_slug("Qwen/Qwen3-0.6B"), model_slug("qwen3:8b")
    ('Qwen_Qwen3-0.6B', 'qwen3_8b')
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", model).strip("._-")[:128] or "model"


def claim(root: Path, kind: ExperimentKind, description: str) -> Place:
    """The next number of a kind, this caller's alone, and the folder it names, which is not made yet.

    Raises InputError for a description that leaves no name, StorageError when the disk refuses.
    """
    called, prefix = slug(description), PREFIXES[kind]
    if not called:
        raise InputError(f"description: must have a letter or digit to name a folder by, got {description[:60]!r}")
    if len(description) > MAX_DESCRIPTION_CHARS:
        raise InputError(f"description: at most {MAX_DESCRIPTION_CHARS} characters, got {len(description)}")
    numbers = root / kind / _NUMBERS
    try:
        numbers.mkdir(parents=True, exist_ok=True)
        number = _last_number(root / kind) + 1
        while not _take(numbers / f"{number:03d}"):
            number += 1
    except OSError as error:
        raise StorageError(f"{numbers}: cannot be written ({error.strerror}); choose another --root") from error
    name = f"{prefix}_{number:03d}_{called}"
    return Place(kind, name, root / kind / name)


def write_new(place: Place, description: str, files: Mapping[str, str]) -> None:
    """Make the folder with its identity and `files`, all or nothing. Raises Conflict, StorageError."""
    identity = {"kind": place.kind, "name": place.name, "description": description, "created_at": utc_now()}
    with publish_folder(place.folder) as partial:
        for name, text in files.items():
            (partial / name).write_text(text, encoding="utf-8")
        (partial / IDENTITY_FILE).write_text(json.dumps(identity, indent=2, ensure_ascii=False) + "\n", "utf-8")


def places(root: Path, kind: str | None = None) -> list[Place]:
    """Every experiment of the tree, kind by kind, each by its name; none where there is no tree. Raises InputError."""
    if kind is not None and kind not in KINDS:
        raise InputError(f"kind: must be one of {', '.join(KINDS)}, got {kind[:40]!r}")
    return [
        Place(each, folder.name, folder) for each in KINDS if kind in (None, each) for folder in _folders(root / each)
    ]


def place_of(root: Path, kind: str, name: str) -> Place:
    """One experiment by its kind and whole name. Raises NotFound, for a name that could be no folder too."""
    known = BY_WORD.get(kind)
    if known and _NAME.fullmatch(name) and _is_own_folder(root / known / name):
        return Place(known, name, root / known / name)
    raise NotFound(f"Experiment not found: {f'{kind}/{name}'[:160]}")


def find(root: Path, name: str) -> Place:
    """One experiment as a person names it: `sft/sft_001_idea`, `sft_001_idea`, `sft_001`, or its folder.

    Raises NotFound, InputError when several are meant.
    """
    known = places(root)
    written = name.rstrip("/")
    folder = Path(written).resolve()
    found = [place for place in known if written in (place.title, place.name)] or [
        place for place in known if place.name.startswith(f"{written}_") or place.folder.resolve() == folder
    ]
    if len(found) > 1:
        raise InputError(f"{name}: several experiments are meant; name one of {', '.join(p.title for p in found)}")
    if not found:
        raise NotFound(f"{name}: no such experiment under {root}; `tracetune experiment list` names all")
    return found[0]


def place_of_folder(folder: Path) -> Place | None:
    """The experiment whose folder this is, None for any other folder."""
    whole = folder.resolve()
    kind = BY_WORD.get(whole.parent.name)
    is_one = kind is not None and (whole / IDENTITY_FILE).is_file()
    return Place(kind, whole.name, folder) if kind and is_one else None


def tree_of(place: Place) -> Path:
    """The root of the tree that an experiment stands in."""
    return place.folder.resolve().parent.parent


def read_identity(place: Place) -> Mapping[str, Any]:
    """What the experiment was called when it was made; empty for a folder that was made by hand."""
    try:
        value = json.loads((place.folder / IDENTITY_FILE).read_bytes())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise InputError(f"{place.title}/{IDENTITY_FILE}: is not JSON ({error}); mend or delete the file") from error
    return value if isinstance(value, dict) else {}


def _take(path: Path) -> bool:
    """Whether this caller is the one who made the file."""
    try:
        path.open("x").close()
    except FileExistsError:
        return False
    return True


def _last_number(folder: Path) -> int:
    """The highest number that was given, or that a folder made by hand or in another copy of the tree has."""
    names = [*_names(folder / _NUMBERS), *(name.split("_")[1] for name in _names(folder) if name.count("_") > 1)]
    return max((int(name) for name in names if name.isascii() and name.isdecimal()), default=0)


def _names(folder: Path) -> Sequence[str]:
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def _folders(folder: Path) -> list[Path]:
    named = [folder / name for name in sorted(_names(folder), key=_order) if _NAME.fullmatch(name)]
    return [path for path in named if _is_own_folder(path)]


def _order(name: str) -> tuple[int, str]:
    """By number, also past 999."""
    number = name.split("_")[1] if name.count("_") > 1 else ""
    return (int(number) if number.isascii() and number.isdecimal() and len(number) < 18 else 0, name)


def _is_own_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
