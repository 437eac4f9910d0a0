"""Bring the schema up. Alembic is imported only when there is something to do, since that takes 0.2 s."""

from pathlib import Path

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from repo.errors import SchemaNewer
from repo.models import HEAD, VERSION_TABLE


def revision(connection: Connection) -> str | None:
    """The revision that the file says it has, or None."""
    try:
        return connection.exec_driver_sql(f"SELECT version_num FROM {VERSION_TABLE}").scalar()  # noqa: S608
    except OperationalError as error:
        if "no such table" in str(error.orig):
            return None
        raise


def bring_up(connection: Connection) -> None:
    """Migrate to HEAD, in one transaction and only once however many processes ask at once.

    Args:
        connection: idle; its transactions begin with `BEGIN IMMEDIATE`.

    Raises:
        SchemaNewer: the file's revision is none that this code knows.
        StoreUnusable: a table of that name is not ours, nor DECNET's.
    """
    with connection.begin():
        if revision(connection) == HEAD:
            return
    # A table that is rebuilt would take the rows along that refer to it; the pragma is idle in a transaction.
    _pragmas(connection, "foreign_keys = OFF", "legacy_alter_table = ON")
    try:
        with connection.begin():
            found = revision(connection)
            if found != HEAD:
                _upgrade(connection, found)
    finally:
        _pragmas(connection, "legacy_alter_table = OFF", "foreign_keys = ON")


def _upgrade(connection: Connection, found: str | None) -> None:
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


def _pragmas(connection: Connection, *pragmas: str) -> None:
    driver = connection.connection.driver_connection
    assert driver is not None  # noqa: S101
    for pragma in pragmas:
        driver.execute(f"PRAGMA {pragma}").close()
