"""What PostgreSQL alone has to refuse: TRUNCATE, and text that is no value of a type."""

import subprocess

import pytest

from tests.support.store.postgres_server import PostgresServer

NOW = "'2026-05-04 10:11:12.123456Z'"
ROW = {
    "id": "'new'",
    "decky_name": "'d9'",
    "operation": "'deploy'",
    "status": "'pending'",
    "started_at": NOW,
    "updated_at": NOW,
}


class Shell:
    """psql, as an operator opens it: no setting, no code of ours."""

    def __init__(self, server: PostgresServer, database: str) -> None:
        self._server = server
        self._database = database

    def run(self, sql: str) -> str:
        return self._server.psql(sql, self._database)

    def refused(self, sql: str) -> str:
        """The one line with which the server refuses a statement."""
        before = self.everything()
        with pytest.raises(subprocess.CalledProcessError) as error:
            self.run(sql)
        assert self.everything() == before
        return str(error.value.stderr)

    def everything(self) -> str:
        return self.run("SELECT * FROM decky_lifecycle ORDER BY id")


def insert(after: str = "", **columns: str) -> str:
    values = ROW | columns
    return f"INSERT INTO decky_lifecycle ({', '.join(values)}) VALUES ({', '.join(values.values())}) {after};"


@pytest.fixture
def shell(postgres: PostgresServer, database: str) -> Shell:
    """A store with one row in each state, and a second open one on the decky that is busy."""
    shell = Shell(postgres, database)
    shell.run(
        insert(id="'pending'", decky_name="'d1'")
        + insert(id="'running'", decky_name="'d2'", status="'running'")
        + insert(id="'waiting'", decky_name="'d2'")
        + insert(id="'succeeded'", decky_name="'d3'", status="'succeeded'", completed_at=NOW)
        + insert(id="'failed'", decky_name="'d4'", status="'failed'", completed_at=NOW, error="'boom'")
    )
    return shell


@pytest.mark.parametrize(
    "columns",
    [
        {"started_at": "'yesterday at noon'"},
        {"started_at": "'2026-02-31 10:11:12Z'"},
        {"payload": "'{'"},
        {"started_at": "'infinity'"},
        {"claimed_at": "'-infinity'"},
        {"enqueued_at": "'0044-03-15 12:00Z BC'"},
        {"cancel_requested_at": "'10000-01-01Z'"},
    ],
)
def test_an_insert_that_is_refused(shell: Shell, columns: dict[str, str]) -> None:
    assert "ERROR" in shell.refused(insert(**columns))


def test_an_upsert_is_refused(shell: Shell) -> None:
    upsert = "ON CONFLICT (id) DO UPDATE SET status = 'running', completed_at = NULL, error = NULL"
    assert "nothing leaves a terminal row" in shell.refused(insert(upsert, id="'failed'"))


def test_the_table_is_not_emptied(shell: Shell) -> None:
    assert "only a terminal row may be deleted" in shell.refused("TRUNCATE decky_lifecycle")


def test_what_a_decky_runs_is_a_document(shell: Shell) -> None:
    now = "now()"
    for document, services, moment in (
        *(("[]", "[]", now), ("{}", "{}", now), ("{}", "[1e5000]", now), ("{}", '[["ssh"]]', now)),
        ("{}", "[]", "'infinity'"),
    ):
        row = f"('d1', '', '{document}', '{services}', 'x', {moment})"
        assert "violates check constraint" in shell.refused(f"INSERT INTO decky_deployed VALUES {row}")


def test_types_are_those_of_postgresql(shell: Shell) -> None:
    columns = (
        "SELECT data_type, count(*) FROM information_schema.columns WHERE table_name = 'decky_lifecycle'"
        " AND (column_name LIKE '%\\_at' OR column_name = 'payload') GROUP BY 1 ORDER BY 1"
    )
    assert shell.run(columns).splitlines() == ["jsonb|1", "timestamp with time zone|6"]
