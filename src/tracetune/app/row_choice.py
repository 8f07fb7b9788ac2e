"""Which rows of a run's files are trained on, which are held out to evaluate on, and one hash of them all."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from tracetune.config.schema import SftConfig
from tracetune.core.errors import InputError
from tracetune.core.ids import canonical_json
from tracetune.core.labels import Wanted
from tracetune.data.render import TrainingRow
from tracetune.data.strata import stratified_split
from tracetune.data.text import same_text


class FileRows(NamedTuple):
    """How many of a run's rows come from one file, and the weight they have."""

    path: str
    weight: float
    num_rows: int


class Source(NamedTuple):
    """Rows of one origin, and its name for messages."""

    name: str
    rows: Iterable[TrainingRow]
    weight: float = 1.0


class Choice:
    """The rows of a source that are wanted, and how many were not."""

    def __init__(self, source: Source, wanted: Wanted) -> None:
        self._source, self._wanted = source, wanted
        self.num_chosen = self.num_others = 0

    def __iter__(self) -> Iterator[TrainingRow]:
        for row in self._source.rows:
            is_wanted = self._wanted.takes(row.labels)
            self.num_chosen += is_wanted
            self.num_others += not is_wanted
            if is_wanted:
                yield row

    def check(self) -> None:
        """Raises InputError when nothing was chosen."""
        if self.num_chosen:
            return
        if not self.num_others:
            raise InputError(f"{self._source.name}: has no rows to train on")
        raise InputError(
            f"{self._source.name}: none of its {self.num_others} rows is of {self._wanted.told()} (data.grades, "
            "data.topics); choose others, or tag the rows"
        )


def told_choice(wanted: Wanted, num_others: int) -> str:
    """What the choice left out in words, nothing when that is nothing."""
    return f"left out {num_others} rows that are not of {wanted.told()}" if num_others else ""


def hold_out(
    chosen: Sequence[tuple[TrainingRow, int]], config: SftConfig
) -> tuple[Sequence[tuple[TrainingRow, int]], tuple[TrainingRow, ...]]:
    """Rows to train on with their source, and rows to evaluate on: of every grade the same share, and of one question
    all rows on one side."""
    fraction = config.data.eval_fraction
    if fraction is None:
        return chosen, ()
    sides = stratified_split(
        chosen,
        key_of=lambda row: same_text(next(message.content for message in row[0].messages if message.role == "user")),
        stratum_of=lambda row: row[0].labels.grade or "",
        shares={"train": 1 - fraction, "eval": fraction},
        seed=config.training.seed,
    )
    for side, rows in sides.items():
        if not rows:
            raise InputError(
                f"data.eval_fraction: {fraction:g} of {len(chosen)} rows leaves none to {side}; give more rows, or "
                "another share"
            )
    return sides["train"], tuple(row for row, _ in sides["eval"])


def counted(rows: Sequence[TrainingRow], files: Sequence[FileRows] = ()) -> dict[str, Any]:
    """Facts about rows: how many, and one hash of all, with where each file ends and what it weighs."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(canonical_json([[message.role, message.content] for message in row.messages]) + b"\n")
    for file in files:
        digest.update(canonical_json([file.num_rows, file.weight]) + b"\n")
    return {"rows": len(rows), "rows_hash": digest.hexdigest()}
