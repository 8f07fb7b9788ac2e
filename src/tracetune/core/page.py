"""One page of a list, with an opaque cursor to the next: a list stays stable while rows are added."""

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from tracetune.core.errors import InputError

Item = TypeVar("Item")
MAX_SEQ = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """`next_cursor` is None on the last page."""

    items: Sequence[Item]
    next_cursor: str | None = None


def encode_cursor(seq: int) -> str:
    """The cursor that continues after the row numbered `seq`.

    >>> decode_cursor(encode_cursor(42))
    42
    """
    return base64.urlsafe_b64encode(f"s{seq}".encode()).decode().rstrip("=")


def decode_cursor(cursor: str) -> int:
    """The row number inside. Raises InputError for text that is no cursor."""
    try:
        text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
        seq = int(text[1:]) if text[:1] == "s" and text[1:].isdecimal() and len(text) < 21 else -1
    except (binascii.Error, ValueError):
        seq = -1
    if not 0 <= seq <= MAX_SEQ:
        raise InputError(f"cursor: not one this service gave, got {cursor[:40]!r}; begin without a cursor")
    return seq
