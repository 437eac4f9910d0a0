"""Alembic's entry: runs on the connection, and in the transaction, that `repo.migrations.run` hands over."""

from alembic import context

from repo.migrations.revision import VERSION_TABLE
from repo.models.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
