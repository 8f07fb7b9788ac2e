"""Which run folder a GRPO run's checkpoints belong to: a small file beside them says so.

Where the checkpoints lie inside the run folder it is told by the way from them, so that a folder that was copied or
moved is a run of its own.
"""

import json
import os
from pathlib import Path

from tracetune.core.durable import write_durably
from tracetune.core.errors import NotFound

POINTER = "run.json"


def write_pointer(checkpoints: Path, folder: Path) -> None:
    """Say that `checkpoints` are those of the run in `folder`. Raises StorageError."""
    root = folder.resolve()
    told = os.path.relpath(root, checkpoints.resolve()) if is_inside(checkpoints, folder) else str(root)
    write_durably(checkpoints / POINTER, json.dumps({"folder": told}).encode())


def read_pointer(checkpoints: Path) -> Path | None:
    """The run folder that the checkpoints belong to, None for a run that begins. Raises NotFound when it is gone."""
    try:
        told = json.loads((checkpoints / POINTER).read_bytes())["folder"]
    except (FileNotFoundError, NotADirectoryError):
        return None
    folder = (checkpoints.resolve() / told).resolve()
    if not folder.is_dir():
        raise NotFound(
            f"{checkpoints}: belongs to the run in {folder}, which is gone; restore it, or choose "
            "another checkpoint_dir (another --output of tracetune rlvr)"
        )
    return folder


def is_inside(checkpoints: Path, folder: Path) -> bool:
    """Whether the checkpoints lie in the run folder, as those of `tracetune rlvr` do."""
    return checkpoints.resolve().is_relative_to(folder.resolve())


def elsewhere(checkpoints: Path, folder: Path) -> str:
    """What a person names to have a run in another place."""
    return "another --output" if is_inside(checkpoints, folder) else "another checkpoint_dir"
