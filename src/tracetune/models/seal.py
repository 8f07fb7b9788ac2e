"""checkpoint.json: the sha256 of every file of a saved folder, verified before any of them is used.

A folder without one (a download) is read as it is; its files are then checked only by their own formats.
"""

import json
from pathlib import Path
from typing import Any

from tracetune.core.durable import write_durably
from tracetune.core.errors import Corrupt, InputError
from tracetune.core.ids import canonical_json, content_hash, file_hash

SEAL = "checkpoint.json"
FORMAT_VERSION = 1


def seal_folder(folder: Path, facts: dict[str, Any]) -> None:
    """Write `folder`/checkpoint.json: `facts`, the format's version, the sha256 of every other file and its own."""
    files = {path.name: file_hash(path) for path in sorted(folder.iterdir()) if path.name != SEAL}
    sealed = {**facts, "format_version": FORMAT_VERSION, "files": files}
    write_durably(folder / SEAL, canonical_json(sealed | {"sha256": content_hash(sealed)}) + b"\n")


def verify_folder(folder: Path) -> dict[str, Any]:
    """The facts recorded with `folder`, every file's sha256 verified; empty when it has no checkpoint.json.

    Raises Corrupt naming the first file that is missing or differs.
    """
    path = folder / SEAL
    if not path.is_file():
        return {}
    sealed = _read_seal(path)
    for name, recorded in sorted(sealed["files"].items()):
        file = folder / name
        if not file.is_file():
            raise Corrupt(f"{file}: missing, though {SEAL} lists it; restore the folder from a good copy")
        if file_hash(file) != recorded:
            raise Corrupt(f"{file}: differs from the sha256 in {SEAL}; restore the folder from a good copy")
    return {key: value for key, value in sealed.items() if key not in ("files", "format_version", "sha256")}


def _read_seal(path: Path) -> dict[str, Any]:
    try:
        sealed = json.loads(path.read_bytes())
    except ValueError as error:
        raise Corrupt(f"{path}: not JSON ({error}); restore the folder from a good copy") from error
    if not isinstance(sealed, dict) or sealed.pop("sha256", None) != content_hash(sealed):
        raise Corrupt(f"{path}: differs from its own sha256; restore the folder from a good copy")
    if sealed.get("format_version") != FORMAT_VERSION:
        raise InputError(
            f"{path}: format_version must be {FORMAT_VERSION}, got {sealed.get('format_version')!r}; update tracetune"
        )
    return sealed
