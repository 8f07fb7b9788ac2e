"""The tables, in types that SQLite and PostgreSQL both have.

Every table counts its rows in `seq`: newest first means the highest `seq`, so a clock that jumps cannot
reorder a list. JSON is canonical text, checked by hash; `seq` numbers are never given twice.
"""

from sqlalchemy import BigInteger, Column, Index, Integer, MetaData, String, Table, Text

NAMING = {"ix": "ix_%(table_name)s_%(column_0_N_name)s", "uq": "uq_%(table_name)s_%(column_0_N_name)s"}
metadata = MetaData(naming_convention=NAMING)


def _seq() -> Column[int]:
    # SQLite gives row numbers by itself only to a column whose type is exactly INTEGER.
    return Column("seq", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True)


# `id` is 122 bits of `content_hash`, so its index alone keeps content unique. A second index of random keys
# would double the bytes written per row and halve the speed of ingest.
traces = Table(
    "traces",
    metadata,
    _seq(),
    Column("id", String(36), nullable=False, unique=True),
    Column("content_hash", String(64), nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("trace_version", String(64), nullable=False),
    Column("source", Text),
    Column("payload", Text, nullable=False),
    Index(None, "source", "seq"),
    sqlite_autoincrement=True,
)

datasets = Table(
    "datasets",
    metadata,
    _seq(),
    Column("dataset_key", String(256), nullable=False, unique=True),
    Column("dataset_name", String(128), nullable=False),
    Column("dataset_version", String(64), nullable=False),
    Column("build_id", String(36), nullable=False, unique=True),
    Column("content_hash", String(64), nullable=False),
    Column("trace_count", Integer, nullable=False),
    Column("folder", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
    Index("uq_datasets_dataset_name_dataset_version", "dataset_name", "dataset_version", unique=True),
    sqlite_autoincrement=True,
)

eval_sets = Table(
    "eval_sets",
    metadata,
    _seq(),
    Column("name", String(128), nullable=False, unique=True),
    Column("content_hash", String(64), nullable=False),
    Column("problems", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
    sqlite_autoincrement=True,
)

runs = Table(
    "runs",
    metadata,
    _seq(),
    Column("run_id", String(128), nullable=False, unique=True),
    Column("folder", Text, nullable=False),
    Column("status", String(32), nullable=False),
    Column("manifest", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
    sqlite_autoincrement=True,
)
