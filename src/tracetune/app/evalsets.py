"""Registered eval sets, the verbs every door shares: register, list, open. A name stands for one content for ever."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tracetune.app.datasets import register_evalset
from tracetune.core.page import Page, decode_cursor, encode_cursor
from tracetune.core.values import EvalSet, Problem
from tracetune.store import evalsets as records
from tracetune.store.evalsets import EvalSetRecord
from tracetune.store.open import open_store
from tracetune.tasks.evalset import parse_evalset

__all__ = ["EvalSet", "EvalSetRecord", "get_evalset", "list_evalsets", "page_problems", "register_rows"]


def register_rows(name: str, rows: Sequence[Mapping[str, Any]], home: Path | None = None) -> EvalSet:
    """Register problems given as the objects of an eval-set file. Raises InputError naming the row, Conflict."""
    return register_evalset(parse_evalset(rows, "problems"), name, home=home)


def list_evalsets(*, limit: int = 20, cursor: str | None = None, home: Path | None = None) -> Page[EvalSetRecord]:
    """Registered eval sets, newest first, without their problems."""
    before = None if cursor is None else decode_cursor(cursor)
    with open_store(home) as store:
        rows = records.list_evalsets(store, limit=limit + 1, before=before)
    following = encode_cursor(rows[limit - 1][0]) if len(rows) > limit else None
    return Page([record for _, record in rows[:limit]], following)


def get_evalset(name: str, home: Path | None = None) -> EvalSet:
    """One eval set with its problems. Raises NotFound."""
    with open_store(home) as store:
        return records.get_evalset(store, name)


def page_problems(evalset: EvalSet, *, limit: int = 50, cursor: str | None = None) -> Page[Problem]:
    """Problems in the set's own order."""
    start = 0 if cursor is None else decode_cursor(cursor)
    end = start + limit
    return Page(evalset.problems[start:end], encode_cursor(end) if end < len(evalset.problems) else None)
