"""The doctor's checks: each returns what it found, or raises what is wrong and what to do about it."""

import contextlib
import ctypes
import shutil
from collections import Counter
from pathlib import Path
from typing import get_args

from reaper.settings import ReaperSettings
from repo.errors import StoreError
from repo.factory import repository_of
from repo.settings import as_setting
from repo.sqlite.location import sqlite_path
from worker.liveness.directories import host_of
from worker.liveness.lock_directory import Daemon
from worker.liveness.locks import DeckyLocks
from worker.liveness.owner import Owner
from worker.queue import Queue, QueueUnavailable, QueueUnusable
from worker.runtimes.base import RuntimeUnavailable
from worker.runtimes.registry import make_runtime, runtime_for_terminal
from worker.runtimes.subprocesses import environment, run

UNITS = ("decnet-reaper.service", "decnet-worker@*.service")
_LOW_SPACE = 256 * 1024 * 1024
_TIME_ERROR = 5
_TIMEX_BYTES = 512


class Wrong(Exception):
    """Something that is needed is missing or broken; says what to do."""


class Doubtful(Exception):
    """Something that works as it is, but may not be what is wanted; says what to do."""


async def store(settings: ReaperSettings) -> str:
    """The file opens and is sound, or the server answers."""
    async with repository_of(settings) as repository:
        facts = await repository.check()
    if "postgresql_version" in facts:
        standbys = facts["synchronous_standby_names"] or "none"
        pooler = ", through a pooler" if facts["pooler"] == "yes" else ""
        version = facts["postgresql_version"]
        return f"{facts['path']}, PostgreSQL {version}, synchronous standbys {standbys}{pooler}"
    if facts["integrity"] != "ok":
        raise Wrong(f"{facts['path']} is damaged ({facts['integrity']}): stop all, restore it from a backup")
    return f"{facts['path']}, SQLite {facts['sqlite_version']}, journal {facts['journal_mode']}, sound"


async def schema(settings: ReaperSettings) -> str:
    """Its schema is the one of this release; opening migrates older ones and refuses newer ones."""
    async with repository_of(settings) as repository:
        return f"revision {(await repository.check())['schema']}"


async def queue(settings: ReaperSettings) -> str:
    """Redis or Valkey answers, and this host's queue can be read and written, and is this store's."""
    redis = Queue(settings.redis)
    with contextlib.suppress(StoreError):  # the check of the store says it
        async with repository_of(settings) as repository:
            redis.store = await repository.identify()
    try:
        return f"{redis.name}, {await redis.check(settings.host_uuid)}"
    except QueueUnusable as error:
        raise Wrong(str(error)) from None
    except QueueUnavailable as error:
        raise Wrong(
            f"{error}: start Redis or Valkey (decnet-reaper up brings one), or set DECNET_REAPER_REDIS"
        ) from None
    finally:
        await redis.close()


async def locks(settings: ReaperSettings) -> str:
    """Their directory can be written, is of this host, and its file system has flock(2)."""
    directory = DeckyLocks.of(settings).directory
    holders = []
    for daemon in get_args(Daemon):
        try:
            runs = directory.runs(daemon)
        except OSError as error:
            raise Wrong(
                f"{directory.path} can't be locked ({error.strerror}): use a local file system"
            ) from None
        if runs:
            pids = ", ".join(map(str, directory.pids(daemon))) or "another user's"
            holders.append(f"{daemon} (pid {pids})")
    host = {None: "no host yet", "-": "the master's own"}.get(
        noted := host_of(directory.path), f"host {noted}"
    )
    return f"{directory.path}, id {directory.id}, {host}; held by {', '.join(holders) or 'nobody'}"


async def rows(settings: ReaperSettings) -> str:
    """Every open row is of this host, and was claimed in this lock directory."""
    async with repository_of(settings, create=True) as repository:
        found = await repository.list_open_lifecycles()
    if sqlite_path(settings.database) is not None:
        elsewhere = Counter(row["host_uuid"] for row in found if row["host_uuid"] != settings.host_uuid)
        for host_uuid, count in elsewhere.items():
            raise Doubtful(
                f"{count} open rows are of {f'host {host_uuid}' if host_uuid else 'the master itself'}, which"
                f" nobody serves here: those that wait end as not started within"
                f" {as_setting(settings.pending_ttl)}, those that run as not seen for"
                f" {as_setting(settings.stale_after)}; `decnet-reaper sweep --older-than 1s` ends them now"
            )
    ours = DeckyLocks.of(settings).directory
    for row in found:
        owner = Owner.parse(row["owner"]) if row["status"] == "running" else None
        if owner is not None and owner.alive and owner.locks != ours.id:
            raise Doubtful(
                f"row {row['id']} of {row['decky_name']} was claimed in another lock directory than"
                f" {ours.path}, and its worker is alive (pid {owner.pid}): it is left alone until that ends"
            )
    return f"{len(found)} open, all of this host"


async def runtime(settings: ReaperSettings) -> str:
    """What brings deckies up can be used here; with `auto`, what takes its place in `up` and `demo`."""
    runtime = make_runtime(settings)
    try:
        return f"{runtime.name}: {await runtime.check()}"
    except RuntimeUnavailable as error:
        if await runtime_for_terminal(settings) == runtime.name:
            raise
        raise Doubtful(f"deckies of `up` and `demo` are local processes, no worker starts: {error}") from None


async def units(settings: ReaperSettings) -> str:
    """A reaper and a worker run: as units, or as `decnet-reaper up`."""
    directory = DeckyLocks.of(settings).directory
    if directory.runs("up"):
        return f"decnet-reaper up runs, pid {', '.join(map(str, directory.pids('up')))}"
    if not _has_systemd():
        raise Doubtful("no systemd here, and no decnet-reaper up: start up, or a worker and a reaper")
    show = ["systemctl", "show", "--property=Id,ActiveState", "--value", "--all", *UNITS]
    answer = await run(show, env=environment())
    words = [line for line in answer.lines if line]
    states = dict(zip(words[::2], words[1::2], strict=False))
    shown = ", ".join(f"{unit} {state}" for unit, state in sorted(states.items()))
    if "failed" in states.values():
        raise Wrong(f"{shown}: see why with `decnet-reaper logs`, then `systemctl restart` it")
    for prefix, what in (("decnet-reaper", "reaper"), ("decnet-worker", "worker")):
        if not any(unit.startswith(prefix) and state == "active" for unit, state in states.items()):
            raise Doubtful(
                f"no {what} unit is active ({shown or 'none installed'}): `decnet-reaper install`, then"
                " `systemctl enable --now decnet-reaper.target`"
            )
    return shown


def _has_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()  # sd_booted(3)


async def clock(settings: ReaperSettings) -> str:
    """The kernel says that the clock is synchronised, see adjtimex(2). Liveness doesn't depend on it."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_BYTES))
    if state == _TIME_ERROR:
        raise Doubtful("the clock is not synchronised, rows may show wrong times: run an NTP client")
    return "synchronised" if state >= 0 else "the kernel doesn't tell"


async def space(settings: ReaperSettings) -> str:
    """There is room for the store, the documents, the locks and the queue's socket."""
    found = []
    for directory in (settings.state_dir, settings.runtime_dir):
        free = shutil.disk_usage(_existing(directory)).free
        if free < _LOW_SPACE:
            raise Wrong(f"only {free // 2**20} MiB are free for {directory}: free some")
        found.append(f"{free / 2**30:.1f} GiB free for {directory}")
    return ", ".join(found)


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path
