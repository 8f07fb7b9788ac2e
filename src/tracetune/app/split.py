"""Splitting a file as every door does it: train, eval and test with equal shares of every stratum, and a manifest.

The folder is there whole or not at all; a folder that no split has written is never replaced.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tracetune.core.durable import publish_folder
from tracetune.core.errors import Conflict, InputError
from tracetune.core.ids import content_hash
from tracetune.core.labels import grade_order, read_labels
from tracetune.data.records import Record, read_records
from tracetune.data.strata import stratified_split
from tracetune.data.tag_rows import problem_text, row_object
from tracetune.data.text import same_text

By = Literal["grade", "topic"]
NO_STRATUM = "none"
MANIFEST = "split_manifest.json"


class _Row(NamedTuple):
    """What a split must know of a row: its place in the file, which problem it is, and its stratum."""

    place: int
    problem: str
    stratum: str


def split_file(
    source: Path, output: Path, *, eval_share: float = 0.1, test_share: float = 0.1, by: By = "grade", seed: int = 42
) -> dict[str, Any]:
    """Share out the rows of `source` into `output`/train.jsonl, eval.jsonl and test.jsonl; gives the manifest.

    Rows with one problem (white space, case and Unicode form aside) stay together. A share of 0 writes no file.
    Raises NotFound, InputError naming the bad line, Conflict when `output` holds anything but a split.
    """
    if eval_share + test_share > 1:
        raise InputError(f"split: eval and test can have 1 together at most, got {eval_share:g} and {test_share:g}")
    shares = {"train": round(1 - eval_share - test_share, 12), "eval": eval_share, "test": test_share}
    _check_replaceable(output)
    rows = [_row(place, record, f"{source}:{record.line}", by) for place, record in enumerate(read_records(source))]
    if not rows:
        raise InputError(f"{source}: has no rows; write one JSON object a line")
    sides = stratified_split(
        rows, key_of=lambda row: row.problem, stratum_of=lambda row: row.stratum, shares=shares, seed=seed
    )
    sides = {side: chosen for side, chosen in sides.items() if shares[side] > 0}
    asked = {"source": source.name, "by": by, "seed": seed, "shares": shares}
    with publish_folder(output, replace=True) as folder:
        files = _write_sides(source, folder, sides)
        manifest = {**asked, "num_rows": len(rows), "num_problems": len({row.problem for row in rows}), "files": files}
        manifest["strata"] = _by_stratum(sides)
        (folder / MANIFEST).write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return manifest


def _row(place: int, record: Record, where: str, by: By) -> _Row:
    row = row_object(record, where)
    return _Row(place, content_hash(same_text(problem_text(row, where))), _stratum(row, where, by))


def _stratum(row: Mapping[str, Any], where: str, by: By) -> str:
    """The grade, or the first topic, wherever the row has its labels."""
    labels = read_labels(row, where)
    return (labels.grade if by == "grade" else next(iter(labels.topics), None)) or NO_STRATUM


def _check_replaceable(output: Path) -> None:
    if output.exists() and not (output.is_dir() and ((output / MANIFEST).is_file() or not any(output.iterdir()))):
        raise Conflict(f"{output}: holds something other than a split; choose another folder")


def _write_sides(source: Path, folder: Path, sides: Mapping[str, list[_Row]]) -> dict[str, dict[str, Any]]:
    """Copy each row to its side's file, byte for byte where it is one line; gives rows and sha256 by file."""
    side_of = {row.place: side for side, rows in sides.items() for row in rows}
    digests = {side: hashlib.sha256() for side in sides}
    with ExitStack() as stack:
        files = {side: stack.enter_context((folder / f"{side}.jsonl").open("wb")) for side in sides}
        for place, record in enumerate(read_records(source)):
            side = side_of[place]
            data = record.data or b""
            line = (json.dumps(json.loads(data), ensure_ascii=False).encode() if b"\n" in data else data) + b"\n"
            digests[side].update(line)
            files[side].write(line)
    return {
        f"{side}.jsonl": {"num_rows": len(rows), "sha256": digests[side].hexdigest()} for side, rows in sides.items()
    }


def _by_stratum(sides: Mapping[str, list[_Row]]) -> dict[str, dict[str, int]]:
    counts = {side: Counter(row.stratum for row in rows) for side, rows in sides.items()}
    strata = grade_order({stratum for side in counts.values() for stratum in side})
    return {stratum: {side: counts[side][stratum] for side in sides} for stratum in strata}
