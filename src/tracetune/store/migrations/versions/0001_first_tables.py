"""Traces, frozen datasets, registered eval sets and runs."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the four tables."""
    op.create_table(
        "traces",
        _seq(),
        sa.Column("id", sa.String(36), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("trace_version", sa.String(64), nullable=False),
        sa.Column("source", sa.Text),
        sa.Column("payload", sa.Text, nullable=False),
        sa.UniqueConstraint("id", name="uq_traces_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_traces_source_seq", "traces", ["source", "seq"])
    op.create_table(
        "datasets",
        _seq(),
        sa.Column("dataset_key", sa.String(256), nullable=False),
        sa.Column("dataset_name", sa.String(128), nullable=False),
        sa.Column("dataset_version", sa.String(64), nullable=False),
        sa.Column("build_id", sa.String(36), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("trace_count", sa.Integer, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("dataset_key", name="uq_datasets_dataset_key"),
        sa.UniqueConstraint("build_id", name="uq_datasets_build_id"),
        sqlite_autoincrement=True,
    )
    name_and_version = ["dataset_name", "dataset_version"]
    op.create_index("uq_datasets_dataset_name_dataset_version", "datasets", name_and_version, unique=True)
    op.create_table(
        "eval_sets",
        _seq(),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("problems", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("name", name="uq_eval_sets_name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "runs",
        _seq(),
        sa.Column("run_id", sa.String(128), nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("run_id", name="uq_runs_run_id"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    """Drop the four tables with all that is in them."""
    for name in ("runs", "eval_sets", "datasets", "traces"):
        op.drop_table(name)


def _seq() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("seq", kind, primary_key=True, autoincrement=True)
