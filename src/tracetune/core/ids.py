"""Identity: canonical JSON, content hashes, ids and timestamps."""

import hashlib
import json
import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


def canonical_json(value: Any) -> bytes:
    """The one byte string for a JSON value: sorted keys, no spaces, UTF-8, NaN refused."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def content_hash(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, 64 hex digits; equal on every machine."""
    return hashlib.sha256(canonical_json(value)).hexdigest()


def file_hash(path: Path) -> str:
    """sha256 of a file's bytes, 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def new_id() -> str:
    """A random UUID as text."""
    return str(uuid.uuid4())


def utc_now() -> str:
    """The current time, ISO-8601 in UTC with microseconds."""
    return datetime.now(UTC).isoformat(timespec="microseconds")
