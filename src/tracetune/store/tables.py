"""The tables, in types that SQLite and PostgreSQL both have.

Every table counts its rows in `seq`: newest first means the highest `seq`, so a clock that jumps cannot
reorder a list. JSON is canonical text, checked by hash; `seq` numbers are never given twice.
"""

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
)

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

trace_scores = Table(
    "trace_scores",
    metadata,
    Column("trace_id", String(36), primary_key=True),
    Column("criteria", String(64), primary_key=True),
    Column("score", Double, nullable=False),
    Column("details", Text, nullable=False),
    Column("scored_at", String(40), nullable=False),
)

# What was asked for, who works on it, and how it ended. `owner` holds a run until `lease_until` (seconds since
# 1970); a lease that ran out means that its process is gone. `folder` is relative to the home folder.
runs = Table(
    "runs",
    metadata,
    _seq(),
    Column("run_id", String(36), nullable=False, unique=True),
    Column("kind", String(32), nullable=False),
    Column("name", String(128), nullable=False),
    Column("state", String(16), nullable=False),
    Column("spec", Text, nullable=False),
    Column("folder", Text, nullable=False),
    Column("request_key", String(64), unique=True),
    Column("dataset_key", String(256)),
    Column("owner", String(128)),
    Column("lease_until", Double),
    Column("attempts", Integer, nullable=False, default=0),
    Column("cancel_requested", Boolean, nullable=False, default=False),
    Column("exit_code", Integer),
    Column("exit_reason", Text),
    Column("created_at", String(40), nullable=False),
    Column("started_at", String(40)),
    Column("finished_at", String(40)),
    Index(None, "state", "seq"),
    sqlite_autoincrement=True,
)

# One finished evaluation: its answers are a JSONL file under the home folder, its numbers are here.
evaluations = Table(
    "evaluations",
    metadata,
    _seq(),
    Column("evaluation_id", String(36), nullable=False, unique=True),
    Column("run_id", String(36)),
    Column("model", Text, nullable=False),
    Column("eval_set", String(128), nullable=False),
    Column("eval_set_hash", String(64), nullable=False),
    Column("summary", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("file_sha256", String(64), nullable=False),
    Column("created_at", String(40), nullable=False),
    Index(None, "eval_set", "seq"),
    sqlite_autoincrement=True,
)

# The registry: versions of a name count from 1 and are content-addressed.
models = Table(
    "models",
    metadata,
    _seq(),
    Column("model_id", String(36), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column("version", Integer, nullable=False),
    Column("content_hash", String(64), nullable=False),
    Column("run_id", String(36)),
    Column("folder", Text, nullable=False),
    Column("manifest", Text, nullable=False),
    Column("created_at", String(40), nullable=False),
    Index("uq_models_name_version", "name", "version", unique=True),
    Index("uq_models_name_content_hash", "name", "content_hash", unique=True),
    sqlite_autoincrement=True,
)

baselines = Table(
    "baselines",
    metadata,
    _seq(),
    Column("name", String(128), nullable=False, unique=True),
    Column("evaluation_id", String(36), nullable=False),
    Column("created_at", String(40), nullable=False),
    sqlite_autoincrement=True,
)

# A token is shown once; the row keeps its sha256. `scopes` are words joined by a space.
tokens = Table(
    "tokens",
    metadata,
    _seq(),
    Column("token_id", String(36), nullable=False, unique=True),
    Column("name", String(128), nullable=False),
    Column("token_hash", String(64), nullable=False, unique=True),
    Column("prefix", String(16), nullable=False),
    Column("scopes", String(64), nullable=False),
    Column("created_at", String(40), nullable=False),
    Column("expires_at", String(40)),
    Column("revoked_at", String(40)),
    sqlite_autoincrement=True,
)

# Answers kept for a repeated request: `request_key` is a sha256 over who asked, the path and the client's key.
answers = Table(
    "answers",
    metadata,
    Column("request_key", String(64), primary_key=True),
    Column("body_hash", String(64), nullable=False),
    Column("status", Integer),
    Column("media_type", String(128)),
    Column("body", LargeBinary),
    Column("lease_until", Double, nullable=False),
    Column("created_at", String(40), nullable=False, index=True),
)
