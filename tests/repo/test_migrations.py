"""The schema that the migrations make is the one that the code believes in."""

import sqlite3
import subprocess
import sys
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

import repo
from repo.migrations.revision import HEAD
from repo.models.tables import metadata


def test_head_is_the_newest_revision() -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(repo.__file__).with_name("migrations")))
    config.set_main_option("path_separator", "os")
    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_the_tables_have_the_columns_that_the_code_names(shell: sqlite3.Connection) -> None:
    for table in metadata.sorted_tables:
        found = shell.execute('SELECT name, type, "notnull", pk FROM pragma_table_info(?)', [table.name])
        assert {(name, kind, bool(full), bool(key)) for name, kind, full, key in found} == {
            (column.name, str(column.type.compile()), not column.nullable, column.primary_key)
            for column in table.columns
        }


def test_opening_a_store_that_is_up_to_date_does_not_load_alembic(path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from repo.factory import get_repository\n"
        "asyncio.run(get_repository(db_path=sys.argv[1]).initialize())\n"
        "print({'alembic', 'greenlet'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code, path], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
