"""How the tables came to be, step by step. Each file in `versions/` is one step; the newest is named here.

The names are spelled out so that a database that is up to date is recognised without loading Alembic.
"""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from frontdesk.errors import StoreUnavailable

REVISION = "0003"
VERSION_TABLE = "frontdesk_version"  # not Alembic's own name: somebody may give us a database which is not ours alone


def is_current(connection: Connection) -> bool:
    """Say whether the tables are those of the newest step."""
    return version(connection) == REVISION


def version(connection: Connection) -> str | None:
    """The step that was taken last, or None where there are no tables of ours."""
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    return connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))


def upgrade(connection: Connection) -> None:
    """Take the steps that are missing, in the transaction that is open. Raises StoreUnavailable if we are too old."""
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    known = {step.revision for step in ScriptDirectory.from_config(config).walk_revisions()}
    found = version(connection)
    if found not in known | {None}:
        raise StoreUnavailable(
            f"The store was written by a newer Frontdesk: its tables are of version {found}, and this one knows them "
            f"up to {REVISION}. Please update this one, or let it use another database."
        )
    command.upgrade(config, "head")
