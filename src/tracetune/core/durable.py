"""Durable writes: a reader sees the old bytes or the new ones, never a part, whatever is killed when.

Every write goes to a sibling temporary name, is fsynced, renamed, and the folder is fsynced: a rename
is durable only after that.
"""

import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tracetune.core.errors import Conflict, StorageError


def fsync_path(path: Path) -> None:
    """Flush a file's or folder's own metadata and data to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Replace the file at `path` by `data`, atomically. Raises StorageError when the disk refuses."""
    write_chunks_durably(path, (data,))


def write_chunks_durably(path: Path, chunks: Iterable[bytes]) -> None:
    """Replace the file at `path` by all `chunks`, atomically and streamed; an error of theirs leaves it as it was."""
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.writelines(chunks)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
        fsync_path(path.parent)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise error if isinstance(error, StorageError) else _refused(path, error) from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def publish_folder(folder: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary folder; on success it becomes `folder` at once, on an error it vanishes.

    Raises Conflict when `folder` exists and `replace` is false, StorageError when the disk refuses.
    """
    if folder.exists() and not replace:
        raise Conflict(f"{folder}: already exists; choose another name")
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        yield partial
        for path in sorted(partial.rglob("*")):
            fsync_path(path)
        fsync_path(partial)
        _swap(partial, folder)
        fsync_path(folder.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, StorageError):
            raise
        raise _refused(folder, error) from error
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _swap(partial: Path, folder: Path) -> None:
    """Rename into place; an older folder steps aside first, so no moment shows a mixture."""
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.replaced")
    shutil.rmtree(aside, ignore_errors=True)
    if folder.exists():
        folder.rename(aside)
    partial.rename(folder)
    shutil.rmtree(aside, ignore_errors=True)


def _refused(path: Path, error: OSError) -> StorageError:
    return StorageError(
        f"{path}: cannot be written ({error.strerror or error}); free space or fix permissions, then run again"
    )
