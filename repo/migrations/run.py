"""Bring the schema up. Alembic is imported only when there is something to do, since that takes 0.2 s."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from repo.errors import SchemaNewer
from repo.migrations.revision import HEAD, VERSION_TABLE


def upgrade(connection: Connection) -> None:
    """Migrate to HEAD, unless another process was faster.

    Args:
        connection: in a transaction that no other one can change the schema beside.

    Raises:
        SchemaNewer: the store's revision is none that this code knows.
        StoreUnusable: a table of that name is not ours, nor DECNET's.
    """
    found = None
    if inspect(connection).has_table(VERSION_TABLE):
        found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608
    if found == HEAD:
        return

    # Here, since Alembic takes 0.1 s, and all starts but the first find their schema.
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    if found is not None:
        try:
            ScriptDirectory.from_config(config).get_revision(found)
        except CommandError:
            raise SchemaNewer(
                f"its schema is {found}, this release knows up to {HEAD}: install the release that wrote it"
            ) from None
    command.upgrade(config, "head")
