"""Frozen rows as Parquet: one column a field, so datasets, DuckDB and Polars read them as they are.

Written and read a row group at a time; memory depends on the group, never on the file.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracetune.core.ids import canonical_json
from tracetune.core.trace import Step, StoredTrace, Trace
from tracetune.store.manifest import total_chars

GROUP_ROWS = 4_096
GROUP_CHARS = 16_000_000
STEP = pa.struct([("i", pa.int64()), ("type", pa.string()), ("content", pa.string())])
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("created_at", pa.string()),
        ("content_hash", pa.string()),
        ("trace_version", pa.string()),
        ("prompt", pa.string()),
        ("final_answer", pa.string()),
        ("steps", pa.list_(STEP)),
        ("meta", pa.string()),
    ]
)


def write_rows(file: Path | IO[bytes], rows: Iterable[StoredTrace]) -> None:
    """Write all rows; `meta` becomes JSON text. OSError passes through: the caller knows the folder."""
    # zstd at its default level: half the bytes of snappy, and still faster than the disk.
    with pq.ParquetWriter(file, SCHEMA, compression="zstd") as writer:
        group: list[dict[str, Any]] = []
        num_chars = 0
        for row in rows:
            group.append(_encode(row))
            num_chars += total_chars(row.trace)
            if len(group) >= GROUP_ROWS or num_chars >= GROUP_CHARS:
                writer.write_table(pa.Table.from_pylist(group, SCHEMA))
                group, num_chars = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, SCHEMA))


def read_rows(file: Path | IO[bytes], start: int = 0) -> Iterator[StoredTrace]:
    """The rows in order from row `start`, counted from 0; row groups before it are not read."""
    with pq.ParquetFile(file) as parquet:
        sizes = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
        group = 0
        while group < len(sizes) and start >= sizes[group]:
            start -= sizes[group]
            group += 1
        for batch in parquet.iter_batches(batch_size=1_024, row_groups=range(group, len(sizes))):
            yield from map(_decode, batch.slice(min(start, len(batch))).to_pylist())
            start -= min(start, len(batch))


def _encode(row: StoredTrace) -> dict[str, Any]:
    trace = row.trace
    return {
        "id": row.id,
        "created_at": row.created_at,
        "content_hash": trace.content_hash(),
        "trace_version": trace.trace_version,
        "prompt": trace.prompt,
        "final_answer": trace.final_answer,
        "steps": [{"i": step.i, "type": step.type, "content": step.content} for step in trace.steps],
        "meta": None if trace.meta is None else canonical_json(dict(trace.meta)).decode(),
    }


def _decode(row: dict[str, Any]) -> StoredTrace:
    meta = None if row["meta"] is None else json.loads(row["meta"])
    steps = tuple(Step(step["i"], step["type"], step["content"]) for step in row["steps"])
    trace = Trace(row["trace_version"], row["prompt"], row["final_answer"], steps, meta)
    return StoredTrace(row["id"], row["created_at"], trace)
