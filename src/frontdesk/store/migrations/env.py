"""Alembic runs this file to do what `upgrade` in this folder asks for."""

from alembic import context

from frontdesk.store.migrations import VERSION_TABLE
from frontdesk.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, version_table=VERSION_TABLE
)
context.run_migrations()
