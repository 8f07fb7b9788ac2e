"""What the service keeps: filters and words of traces, leased runs, evaluations, models, tokens and answers."""

import sqlalchemy as sa
from alembic import op

from tracetune.store.trace_index import index_of
from tracetune.store.traces import index_stored_traces

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the tables; `runs` had no writer before, so it begins anew. Traces that are there are indexed."""
    op.drop_table("runs")
    _create_runs()
    _create_results()
    _create_requests()
    _create_trace_tables()


def _create_runs() -> None:
    op.create_table(
        "runs",
        _seq(),
        sa.Column("run_id", sa.String(36), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("request_key", sa.String(64)),
        sa.Column("dataset_key", sa.String(256)),
        sa.Column("owner", sa.String(128)),
        sa.Column("lease_until", sa.Double),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("cancel_requested", sa.Boolean, nullable=False),
        sa.Column("exit_code", sa.Integer),
        sa.Column("exit_reason", sa.Text),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("started_at", sa.String(40)),
        sa.Column("finished_at", sa.String(40)),
        sa.UniqueConstraint("run_id", name="uq_runs_run_id"),
        sa.UniqueConstraint("request_key", name="uq_runs_request_key"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_runs_state_seq", "runs", ["state", "seq"])


def _create_results() -> None:
    op.create_table(
        "evaluations",
        _seq(),
        sa.Column("evaluation_id", sa.String(36), nullable=False),
        sa.Column("run_id", sa.String(36)),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("eval_set", sa.String(128), nullable=False),
        sa.Column("eval_set_hash", sa.String(64), nullable=False),
        sa.Column("summary", sa.Text, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("file_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("evaluation_id", name="uq_evaluations_evaluation_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_evaluations_eval_set_seq", "evaluations", ["eval_set", "seq"])
    op.create_table(
        "models",
        _seq(),
        sa.Column("model_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(36)),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("manifest", sa.Text, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("model_id", name="uq_models_model_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("uq_models_name_version", "models", ["name", "version"], unique=True)
    op.create_index("uq_models_name_content_hash", "models", ["name", "content_hash"], unique=True)
    op.create_table(
        "baselines",
        _seq(),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("evaluation_id", sa.String(36), nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.UniqueConstraint("name", name="uq_baselines_name"),
        sqlite_autoincrement=True,
    )


def _create_requests() -> None:
    op.create_table(
        "tokens",
        _seq(),
        sa.Column("token_id", sa.String(36), nullable=False),
        sa.Column("name", sa.String(128), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=False),
        sa.Column("prefix", sa.String(16), nullable=False),
        sa.Column("scopes", sa.String(64), nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
        sa.Column("expires_at", sa.String(40)),
        sa.Column("revoked_at", sa.String(40)),
        sa.UniqueConstraint("token_id", name="uq_tokens_token_id"),
        sa.UniqueConstraint("token_hash", name="uq_tokens_token_hash"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "answers",
        sa.Column("request_key", sa.String(64), primary_key=True),
        sa.Column("body_hash", sa.String(64), nullable=False),
        sa.Column("status", sa.Integer),
        sa.Column("media_type", sa.String(128)),
        sa.Column("body", sa.LargeBinary),
        sa.Column("lease_until", sa.Double, nullable=False),
        sa.Column("created_at", sa.String(40), nullable=False),
    )
    op.create_index("ix_answers_created_at", "answers", ["created_at"])


def _create_trace_tables() -> None:
    op.create_table(
        "trace_scores",
        sa.Column("trace_id", sa.String(36), primary_key=True),
        sa.Column("criteria", sa.String(64), primary_key=True),
        sa.Column("score", sa.Double, nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("scored_at", sa.String(40), nullable=False),
    )
    connection = op.get_bind()
    index_of(connection).create(connection)
    index_stored_traces(connection)


def downgrade() -> None:
    """Drop what was added; `runs` becomes the table it was, empty."""
    added = (
        "trace_words",
        "trace_facets",
        "trace_scores",
        "answers",
        "tokens",
        "baselines",
        "models",
        "evaluations",
        "runs",
    )
    for name in added:
        op.drop_table(name)
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


def _seq() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer, "sqlite")
    return sa.Column("seq", kind, primary_key=True, autoincrement=True)
