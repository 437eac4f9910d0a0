"""Files that can be used, files that can't, and one clear line that says why."""

import asyncio
import os
import pwd
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from repo.base import BaseRepository
from repo.errors import (
    SchemaNewer,
    StoreBusy,
    StoreFull,
    StoreMissing,
    StoreReplaced,
    StoreUnavailable,
    StoreUnusable,
)
from repo.factory import get_repository
from repo.migrations.revision import HEAD, VERSION_TABLE
from repo.sqlite.checkpoint import LOG_BYTES
from repo.sqlite.connection import file_system
from tests.support.machine.small_disk import make_read_only, small_disk
from tests.support.programs.other_user import python_as

pytestmark = pytest.mark.anyio
DECKY = {"decky_name": "d1", "operation": "deploy"}
NOW = "2026-05-04 10:11:12.123456"


async def refusal(path: Path) -> str:
    with pytest.raises(StoreUnavailable) as error:
        await get_repository(db_path=path, busy_timeout=0.1).initialize()
    message = str(error.value)
    assert str(path) in message
    assert "\n" not in message
    assert "sqlalche.me" not in message
    return message


def content(path: Path) -> bytes:
    return path.read_bytes()


def take_away(path: Path, how: str) -> None:
    path.rename(path.with_name("old.db"))
    if how == "replaced":
        path.touch()


async def test_everything_made_is_private(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "store.db"
    async with get_repository(db_path=path) as repository:
        await repository.create_lifecycle(DECKY)
        for made in path.parent.iterdir():
            assert stat.S_IMODE(made.stat().st_mode) == 0o600, made
        assert {made.name for made in path.parent.iterdir()} >= {"store.db", "store.db-wal", "store.db-shm"}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_what_check_says(repository: BaseRepository, path: Path) -> None:
    assert await repository.check() == {
        "path": str(path),
        "schema": HEAD,
        "sqlite_version": sqlite3.sqlite_version,
        "journal_mode": "wal",
        "integrity": "ok",
    }


@pytest.mark.parametrize("prefix", ["", "sqlite:///", "sqlite+aiosqlite:///"])
async def test_a_store_may_be_named_by_url(tmp_path: Path, prefix: str) -> None:
    async with get_repository(url=f"{prefix}{tmp_path}/a b#%?.db".replace("?", "")) as repository:
        await repository.create_lifecycle(DECKY)
    assert (tmp_path / "a b#%.db").is_file()


@pytest.mark.parametrize(
    "url", ["mysql://u:secret@h/db", "mysql://h/db", "sqlite://", ":memory:", "sqlite://h/x"]
)
def test_other_databases_are_not_supported(url: str) -> None:
    with pytest.raises(StoreUnusable) as error:
        get_repository(url=url)
    assert "secret" not in str(error.value)


async def test_a_directory(tmp_path: Path) -> None:
    assert "directory" in await refusal(tmp_path)


async def test_a_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert "pipe" in await refusal(tmp_path / "pipe")


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("remember the milk " * 100)
    assert "not an SQLite database" in await refusal(path)
    assert path.read_text().startswith("remember")


async def test_a_damaged_database(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(100)
        file.write(os.urandom(8_000))
    assert "damaged" in await refusal(path)


async def test_a_parent_that_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "can't be made" in await refusal(tmp_path / "file" / "store.db")


AS_NOBODY = """
import asyncio, concurrent.futures.thread, os, sys
from repo.factory import get_repository
if os.geteuid() == 0:
    os.setuid(65534)
try:
    asyncio.run(get_repository(db_path=sys.argv[1]).initialize())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.parametrize(("file_mode", "directory_mode"), [(0o444, 0o755), (0o000, 0o755), (0o666, 0o555)])
def test_a_file_that_may_not_be_written(made: Path, file_mode: int, directory_mode: int) -> None:
    with TemporaryDirectory() as directory:
        path = Path(shutil.copyfile(made, Path(directory) / "store.db"))
        path.chmod(file_mode)
        path.parent.chmod(directory_mode)
        said = subprocess.run(
            [sys.executable, "-c", AS_NOBODY, path], capture_output=True, text=True, check=True
        ).stdout
        path.parent.chmod(0o755)
    own = pwd.getpwuid(os.geteuid()).pw_name
    user = "nobody" if own == "root" else own
    reason = f"user {user} may not use it, but {own} alone; for a store of"
    if own == user and directory_mode & 0o200:
        reason = f"can't be written by user {os.geteuid()}; check its owner and mode"
    assert said.startswith(f"StoreUnusable {path}: {reason}")
    assert said.count("\n") == 1


IN_GROUP = """
import asyncio, os, sys
from repo.factory import get_repository

async def main():
    async with get_repository(db_path=sys.argv[1]) as repository:
        await repository.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
        print(len(await repository.list_open_lifecycles()))

try:
    asyncio.run(main())
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="acts as several users, which takes root")
def test_a_store_in_a_directory_of_a_group_is_its_members_and_nobody_elses() -> None:
    group = 54321
    with TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        shared = Path(directory) / "shared"
        shared.mkdir()
        os.chown(shared, 54320, group)
        shared.chmod(0o2770)
        path = shared / "store.db"

        def act(user: int, *, member: bool) -> str:
            python = python_as(user, Path(directory), groups=[group] if member else [])
            command = [*(python if user else [sys.executable]), "-c", IN_GROUP, str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True, umask=0o077)
            return str(done.stdout)

        assert act(0, member=False) == "1\n"
        assert act(54320, member=True) == "2\n"
        assert act(54322, member=True) == "3\n"
        facts = [file.stat() for file in shared.iterdir()]
        assert {(status.st_mode & 0o777, status.st_gid) for status in facts} == {(0o660, group)}
        said = act(54323, member=False)
        assert said.startswith(
            f"StoreUnusable {path}: user 54323 may not use it, but 54320 and the members of"
        )
        assert "DECNET_REAPER_PRIVATE=1" in said
        assert said.count("\n") == 1


async def test_a_read_only_file_system_is_not_taken_for_a_matter_of_users(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        async with get_repository(db_path=disk / "store.db"):
            pass
        make_read_only(disk)
        for name in ("store.db", "other.db"):
            said = await refusal(disk / name)
            assert "on a read-only file system" in said
            assert f"ReadWritePaths={disk}" in said
            assert "usermod" not in said


async def test_a_newer_schema(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"UPDATE {VERSION_TABLE} SET version_num = '9999'")  # noqa: S608
    before = content(path)
    assert "9999" in await refusal(path)
    with pytest.raises(SchemaNewer):
        await get_repository(db_path=path).initialize()
    assert content(path) == before


def test_network_file_systems_are_recognised(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(
        "22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw\n"
        "40 22 0:40 / /mnt/with\\040space rw - nfs4 server:/x rw\n"
        "41 40 0:41 / /mnt/with\\040space/local rw - xfs /dev/vdb rw\n"
    )
    assert file_system(Path("/mnt/with space/store.db"), mounts) == "nfs4"
    assert file_system(Path("/mnt/with space/local/store.db"), mounts) == "xfs"
    assert file_system(Path("/mnt/with spaces/store.db"), mounts) == "ext4"
    assert file_system(Path("/x"), tmp_path / "nowhere") == ""


async def test_a_lock_that_is_held_too_long(path: Path, shell: sqlite3.Connection) -> None:
    async with get_repository(db_path=path, busy_timeout=0.2) as repository:
        shell.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match=r"0\.2 s") as error:
            await repository.create_lifecycle(DECKY)
        assert str(path) in str(error.value)
        assert await repository.list_open_lifecycles() == []
        shell.execute("ROLLBACK")
        await repository.create_lifecycle(DECKY)
        assert len(await repository.list_open_lifecycles()) == 1


async def test_a_lock_that_is_given_up_in_time(repository: BaseRepository, shell: sqlite3.Connection) -> None:
    shell.execute("BEGIN IMMEDIATE")
    waiting = asyncio.create_task(repository.create_lifecycle(DECKY))
    assert await repository.list_open_lifecycles() == []  # readers don't wait
    shell.execute("COMMIT")
    await waiting


async def test_a_full_disk_is_said_and_survived(repository: BaseRepository) -> None:
    payload = {"compose": {"x": "y" * 200_000}}
    kept = await repository.create_lifecycle(DECKY)
    writer = repository._engine._writer  # type: ignore[attr-defined]
    ((pages,),) = await writer.execute_fetchall("PRAGMA page_count")
    await writer.execute_fetchall(f"PRAGMA max_page_count = {pages + 10}")
    results = await asyncio.gather(
        *(repository.create_lifecycle(DECKY | {"payload": payload}) for _ in range(3)), return_exceptions=True
    )
    assert [type(result) for result in results] == [StoreFull] * 3
    await writer.execute_fetchall("PRAGMA max_page_count = 1000000")
    added = await repository.create_lifecycle(DECKY | {"payload": payload})
    assert [row["id"] for row in await repository.list_open_lifecycles()] == [kept, added]


@pytest.mark.parametrize("beside", ["-wal", "-shm"])
async def test_a_log_that_was_deleted_acknowledges_no_more_rows(
    repository: BaseRepository, path: Path, beside: str
) -> None:
    kept = await repository.create_lifecycle(DECKY)
    Path(f"{path}{beside}").unlink()
    with pytest.raises(StoreReplaced, match=f"{beside}: was deleted"):
        await repository.create_lifecycle(DECKY)
    with pytest.raises(StoreReplaced, match=f"{beside}: was deleted"):
        await repository.update_lifecycle(kept, {"status": "running"})
    with pytest.raises(StoreReplaced, match=f"{beside}: was deleted"):
        await repository.get_lifecycle(kept)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be in two groups")
async def test_what_lies_beside_a_shared_store_has_its_mode_and_group(path: Path) -> None:
    os.chown(path, -1, 4)
    path.chmod(0o660)
    async with get_repository(db_path=path) as repository:
        await repository.create_lifecycle(DECKY)
        for beside in ("-wal", "-shm", ".lock"):
            facts = Path(f"{path}{beside}").stat()
            assert (stat.S_IMODE(facts.st_mode), facts.st_gid) == (0o660, 4)


async def test_a_row_that_cannot_be_read_hides_no_other(
    repository: BaseRepository, shell: sqlite3.Connection, caplog: pytest.LogCaptureFixture
) -> None:
    kept = await repository.create_lifecycle(DECKY)
    shell.execute("PRAGMA ignore_check_constraints = ON")  # as a store that an older SQLite wrote to may be
    for row, columns in {
        "bad-time": {"started_at": "2026-02-31 10:11:12.123456"},
        "bad-text": {"started_at": "yesterday"},
        "bad-number": {"deliveries": "often"},
        "bad-json": {"payload": "{"},
    }.items():
        values = {
            "id": row,
            "started_at": NOW,
            "updated_at": NOW,
            "deliveries": 0,
            "payload": None,
            **columns,
        }
        shell.execute(
            "INSERT INTO decky_lifecycle"
            " (id, decky_name, operation, status, started_at, updated_at, deliveries, payload)"
            " VALUES (:id, 'd2', 'deploy', 'pending', :started_at, :updated_at, :deliveries, :payload)",
            values,
        )
    for _ in range(2):
        assert {row["id"] for row in await repository.list_open_lifecycles()} == {kept, "bad-json"}
        assert {row["id"] for row in await repository.list_lifecycles()} == {kept, "bad-json"}
        everything = ["bad-time", "bad-text", "bad-number", "bad-json", kept]
        assert [row["id"] for row in await repository.get_lifecycle_by_ids(everything)] == [kept]
    named = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert sorted(line.split("row ")[1].split()[0] for line in named) == [
        "bad-json",
        "bad-number",
        "bad-text",
        "bad-time",
    ]


async def test_a_durable_write_that_changes_nothing_takes_the_early_ones_to_the_disk(
    repository: BaseRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    fdatasync = os.fdatasync

    def counted(fd: int) -> None:
        synced.append(fd)
        fdatasync(fd)

    monkeypatch.setattr(os, "fdatasync", counted)
    lifecycle_id, _ = await repository.submit_lifecycle(DECKY, durable=False)
    assert not await repository.record_delivery(lifecycle_id, 7)
    await repository.sync()
    assert synced


@pytest.mark.parametrize("column", ["decky_name", "owner"])
async def test_text_that_is_not_utf_8_is_named_and_hides_no_other(
    repository: BaseRepository, shell: sqlite3.Connection, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    kept = await repository.create_lifecycle(DECKY)
    bad = await repository.create_lifecycle({**DECKY, "decky_name": "another"})
    shell.execute("DROP TRIGGER decky_lifecycle_update")
    changed = f"UPDATE decky_lifecycle SET {column} = CAST(x'6bfc' AS TEXT) WHERE id = ?"  # noqa: S608
    shell.execute(changed, (bad,))
    for _ in range(2):
        assert [row["id"] for row in await repository.list_open_lifecycles()] == [kept]
        assert [row["id"] for row in await repository.find_ready_lifecycles(None, 10)] == [kept]
        later = await repository.create_lifecycle({**DECKY, "decky_name": "later"})
        assert later in {row["id"] for row in await repository.list_lifecycles()}
        await repository.request_cancel(later)
    (named,) = [record.getMessage() for record in caplog.records if "left out" in record.getMessage()]
    assert f"row {bad} can't be read and is left out: a text in it is not UTF-8" in named


@pytest.mark.parametrize("how", ["deleted", "replaced"])
async def test_a_file_that_went_away_takes_no_more_rows(
    repository: BaseRepository, path: Path, how: str
) -> None:
    await repository.create_lifecycle(DECKY)
    take_away(path, how)
    with pytest.raises(StoreReplaced, match=how):
        await repository.create_lifecycle(DECKY)
    with pytest.raises(StoreReplaced, match=how):
        await repository.list_open_lifecycles()


async def test_a_closed_repository_says_so_and_opens_again(path: Path) -> None:
    repository = get_repository(db_path=path)
    with pytest.raises(StoreUnusable, match="initialize"):
        await repository.create_lifecycle(DECKY)
    async with repository:
        await repository.initialize()
        lifecycle_id = await repository.create_lifecycle(DECKY)
    with pytest.raises(StoreUnusable, match="initialize"):
        await repository.list_open_lifecycles()
    await repository.close()
    async with repository:
        assert [row["id"] for row in await repository.list_open_lifecycles()] == [lifecycle_id]


async def test_the_log_stays_small(repository: BaseRepository, path: Path) -> None:
    payload = {"compose": {"x": "y" * 100_000}}
    for _ in range(20):
        await asyncio.gather(*(repository.create_lifecycle(DECKY | {"payload": payload}) for _ in range(10)))
    assert len(content(path)) > 3 * LOG_BYTES
    assert len(content(path.with_name("store.db-wal"))) < 2 * LOG_BYTES
    assert await repository.prune_lifecycles(datetime.now(UTC)) == 0


async def test_a_store_is_made_only_where_that_is_asked(tmp_path: Path) -> None:
    with pytest.raises(StoreMissing, match="no store is there"):
        await get_repository(db_path=tmp_path / "x.db", create=False).initialize()
    assert list(tmp_path.iterdir()) == []
    async with get_repository(db_path=tmp_path / "x.db"):
        pass
    async with get_repository(db_path=tmp_path / "x.db", create=False):
        pass


async def test_an_opening_that_is_cancelled_leaves_no_connection_open(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    for steps in range(0, 60, 3):
        opening = asyncio.create_task(get_repository(db_path=path).initialize())
        for _ in range(steps):
            await asyncio.sleep(0)
        opening.cancel()
        await asyncio.wait([opening])
    await asyncio.get_running_loop().shutdown_default_executor()
    opened = [str(entry.readlink()) for entry in Path("/proc/self/fd").iterdir() if entry.is_symlink()]
    assert [name for name in opened if name.startswith(str(path))] == []
