"""Alembic's entry: migrates the connection that `store.migrate` hands over, inside its transaction."""

from alembic import context

from tracetune.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
    transactional_ddl=True,  # SQLite can roll back DDL; the store opens its transactions explicitly
)
with context.begin_transaction():
    context.run_migrations()
