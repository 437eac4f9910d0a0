"""The lock directory: found from the store, known by its id, for one host, for who may use the store."""

import os
import shutil
import stat
from pathlib import Path

import pytest

from worker.liveness.directories import Access, belong_to, check_host, host_of
from worker.liveness.errors import LocksReplaced, LocksUnusable
from worker.liveness.lock_directory import LockDirectory, find_lock_directory
from worker.settings import WorkerSettings


def settings(root: Path, database: str) -> WorkerSettings:
    return WorkerSettings(state_dir=root / "state", runtime_dir=root / "run", database=database)


def test_the_directory_follows_the_store(tmp_path: Path) -> None:
    real = tmp_path / "data"
    real.mkdir()
    (tmp_path / "link").symlink_to(real)
    for database in (
        str(real / "decnet.db"),
        str(tmp_path / "link" / "decnet.db"),
        f"sqlite:///{real / 'decnet.db'}",
        f"sqlite+aiosqlite:///{tmp_path / 'link' / 'decnet.db'}",
    ):
        assert find_lock_directory(settings(tmp_path, database)) == real / "decnet.db-locks"
    server = settings(tmp_path, "postgresql://decnet@db.example/decnet")
    assert find_lock_directory(server) == tmp_path / "state" / "locks"


def test_its_id_is_the_same_for_all_who_open_it(tmp_path: Path) -> None:
    assert LockDirectory(tmp_path / "locks").id == LockDirectory(tmp_path / "locks").id


def test_a_copy_and_a_new_one_and_one_of_another_boot_have_other_ids(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    first = LockDirectory(path)
    shutil.copytree(path, tmp_path / "copy")
    ids = {first.id, LockDirectory(tmp_path / "copy").id}
    shutil.rmtree(path)
    ids.add(LockDirectory(path).id)
    named, boot, inode = (path / "id").read_text().split()
    (path / "id").write_text(f"{named} {boot[::-1]} {inode}\n")
    ids.add(LockDirectory(path).id)
    (path / "id").write_text("")
    ids.add(LockDirectory(path).id)
    assert len(ids) == 5


def test_one_that_was_replaced_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "locks"
    opened = LockDirectory(path)
    opened.check_same()
    path.rename(tmp_path / "moved")
    with pytest.raises(LocksReplaced, match="restart to use what is there now"):
        opened.check_same()
    LockDirectory(path)
    with pytest.raises(LocksReplaced):
        opened.check_same()
    shutil.rmtree(path)
    (tmp_path / "moved").rename(path)
    opened.check_same()
    (path / "id").unlink()
    with pytest.raises(LocksReplaced):
        opened.check_same()


def test_it_belongs_to_one_host(tmp_path: Path) -> None:
    access = Access(os.geteuid(), os.getegid(), 0o600)
    check_host(tmp_path, "h1")
    assert host_of(tmp_path) is None
    belong_to(tmp_path, "h1", access)
    belong_to(tmp_path, "h1", access)
    assert host_of(tmp_path) == "h1"
    for other in ("h2", None):
        with pytest.raises(LocksUnusable, match="belongs to host h1, and this is"):
            belong_to(tmp_path, other, access)
    (tmp_path / "host").unlink()
    belong_to(tmp_path, None, access)
    with pytest.raises(LocksUnusable, match="belongs to the master"):
        check_host(tmp_path, "h1")


@pytest.mark.parametrize(("store", "directory"), [(0o600, 0o700), (0o660, 0o770), (0o640, 0o750)])
def test_who_may_use_the_store_may_use_its_locks(tmp_path: Path, store: int, directory: int) -> None:
    database = tmp_path / "store.db"
    database.touch()
    database.chmod(store)
    locks = LockDirectory.of(settings(tmp_path, str(database)))
    os.close(locks.open("decky-01.lock"))
    assert stat.S_IMODE(locks.path.stat().st_mode) == directory
    for name in ("decky-01.lock", "id"):
        assert stat.S_IMODE((locks.path / name).stat().st_mode) == store


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_root_makes_belongs_to_the_store_s_owner(tmp_path: Path) -> None:
    database = tmp_path / "store.db"
    database.touch()
    os.chown(database, 12345, 23456)
    locks = LockDirectory.of(settings(tmp_path, str(database)))
    os.close(locks.open("decky-01.lock"))
    for path in (locks.path, *locks.path.iterdir()):
        assert (path.stat().st_uid, path.stat().st_gid) == (12345, 23456)


def test_only_one_up_and_any_number_of_workers(tmp_path: Path) -> None:
    first, second = LockDirectory(tmp_path / "locks"), LockDirectory(tmp_path / "locks")
    with first.joined("worker"), second.joined("worker"), first.joined("up"):
        assert first.runs("worker")
        assert not first.runs("reaper")
        assert set(second.pids("worker")) == {os.getpid()}
        with pytest.raises(LocksUnusable, match="already up"), second.joined("up"):
            pass
    assert not first.runs("worker")


def test_a_directory_that_can_not_be_made_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(LocksUnusable, match=r"lock directory .*/file/locks can't be used: File exists;"):
        LockDirectory(tmp_path / "file" / "locks")
