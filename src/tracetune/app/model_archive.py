"""A registered model as one tar file, streamed: the same version gives the same bytes, and its size is known before.

Every file is checked against its recorded sha256 while it is sent; a difference ends the stream short of its size.
"""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from tracetune.app.registry import get_model, model_folder
from tracetune.core.errors import Corrupt
from tracetune.store.models import StoredModel

BLOCK, RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
CHUNK_BYTES = 1 << 20
CARD = "model.json"


class Archive(NamedTuple):
    """`name` is what to call the file; `chunks` are its `num_bytes` bytes."""

    name: str
    num_bytes: int
    chunks: Iterator[bytes]


class _Entry(NamedTuple):
    """One file, `name` as it is in the archive."""

    name: str
    size: int
    sha256: str


def archive(model_id: str, home: Path | None = None) -> Archive:
    """The files of a version under `{name}-v{version}/`, with model.json that says what it is. Raises NotFound,
    Corrupt when a file is missing or has another size."""
    stored = get_model(model_id, home)
    folder = model_folder(stored, home)
    for file in stored.manifest["files"]:
        path = folder / file["name"]
        if not path.is_file() or path.stat().st_size != file["bytes"]:
            raise Corrupt(f"{path}: is missing or has another size; restore it from a backup, or promote its run again")
    stem, card = f"{stored.name}-v{stored.version}", _card(stored)
    entries = [_Entry(f"{stem}/{file['name']}", file["bytes"], file["sha256"]) for file in stored.manifest["files"]]
    first = _header(f"{stem}/{CARD}", len(card)) + card + _filler(len(card))
    content = len(first) + sum(len(_header(entry.name, entry.size)) + _padded(entry.size) for entry in entries)
    end = bytes(2 * BLOCK + -(content + 2 * BLOCK) % RECORD)
    chunks = chain((first,), *(_chunks(entry, folder) for entry in entries), (end,))
    return Archive(f"{stem}.tar", content + len(end), chunks)


def _chunks(entry: _Entry, folder: Path) -> Iterator[bytes]:
    yield _header(entry.name, entry.size)
    yield from _content(folder / Path(entry.name).name, entry.sha256)
    yield _filler(entry.size)


def _content(path: Path, sha256: str) -> Iterator[bytes]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
            yield chunk
    if digest.hexdigest() != sha256:
        raise Corrupt(f"{path}: differs from its recorded sha256; restore it from a backup, or promote its run again")


def _card(stored: StoredModel) -> bytes:
    told = {
        "model_id": stored.model_id,
        "name": stored.name,
        "version": stored.version,
        "content_hash": stored.content_hash,
        "created_at": stored.created_at,
        **stored.manifest,
    }
    return (json.dumps(told, indent=2, ensure_ascii=False) + "\n").encode()


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    # The older ustar has no number for a file of 8 GiB.
    return info.tobuf(tarfile.GNU_FORMAT)


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK


def _filler(size: int) -> bytes:
    return bytes(_padded(size) - size)
