"""What must be true of a storm, asked of nobody but the database, the kernel and the stand-in's notes.

Independent of the product and of its tests: the SQL is its own, so is its reading of /proc, and it imports
nothing of ours. It looks at every moment of a storm (`Watch`), and at the whole once it is over (`verdict`).
"""

import json
import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

Read = Callable[[str], list[tuple[Any, ...]]]

# The database's own witness: one line for each commit that moved a row, in the order of the commits.
HISTORY = """
CREATE TABLE storm
    (seq INTEGER PRIMARY KEY, id TEXT, decky TEXT, was TEXT, is_now TEXT, owner TEXT, said TEXT);
CREATE TRIGGER storm_insert AFTER INSERT ON decky_lifecycle BEGIN
    INSERT INTO storm (id, decky, was, is_now) VALUES (new.id, new.decky_name, NULL, new.status); END;
CREATE TRIGGER storm_update AFTER UPDATE ON decky_lifecycle
    WHEN old.status <> new.status OR old.status IN ('succeeded', 'failed') BEGIN
    INSERT INTO storm (id, decky, was, is_now, owner, said) VALUES
        (new.id, new.decky_name, old.status, new.status, new.owner, new.error); END;
CREATE TRIGGER storm_delete AFTER DELETE ON decky_lifecycle BEGIN
    INSERT INTO storm (id, decky, was, is_now) VALUES (old.id, old.decky_name, old.status, 'deleted'); END;
"""
HISTORY_POSTGRES = """
CREATE TABLE storm
    (seq BIGSERIAL PRIMARY KEY, id TEXT, decky TEXT, was TEXT, is_now TEXT, owner TEXT, said TEXT);
CREATE FUNCTION storm() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO storm (id, decky, was, is_now) VALUES (new.id, new.decky_name, NULL, new.status);
    ELSIF TG_OP = 'DELETE' THEN
        INSERT INTO storm (id, decky, was, is_now) VALUES (old.id, old.decky_name, old.status, 'deleted');
    ELSIF old.status <> new.status OR old.status IN ('succeeded', 'failed') THEN
        INSERT INTO storm (id, decky, was, is_now, owner, said) VALUES
            (new.id, new.decky_name, old.status, new.status, new.owner, new.error);
    END IF;
    RETURN NULL; END $$;
CREATE TRIGGER storm AFTER INSERT OR UPDATE OR DELETE ON decky_lifecycle
    FOR EACH ROW EXECUTE FUNCTION storm();
"""
_LEGAL = {
    (None, "pending"),
    ("pending", "running"),
    ("pending", "failed"),
    ("running", "succeeded"),
    ("running", "failed"),
}
_RANK = {"pending": 0, "running": 1, "succeeded": 2, "failed": 2}
_RETRIED = {"swept", "interrupted", "timed_out", "lost"}
_ATTEMPTS = 2


class Unreadable(Exception):
    """The database can't be read at the moment."""


def lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a file of notes."""
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]


def alive(pid: int, started: str) -> bool:
    """Whether this very process is there, and no zombie: proc_pid_stat(5)."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[0] not in "ZX" and fields[19] == started


class Watch(threading.Thread):
    """Looks again and again, and notes what can't be: in `found`.

    Whoever of the stand-in's processes is alive before a look at the rows and alive after it was alive in
    between: then a row with its wish must be running, or says that its host is lost and nobody knows what
    became of it. And what a row says never goes back.
    """

    def __init__(self, read: Read, notes: Path) -> None:
        super().__init__(daemon=True)
        self.found: list[str] = []
        self.looks = 0
        self._read, self._notes = read, notes
        self._over = threading.Event()
        self._seen: dict[str, tuple[Any, ...]] = {}

    def run(self) -> None:
        """Look until `end` is called."""
        while not self._over.wait(0.05):
            with suppress(Unreadable):
                self.look()

    def end(self) -> None:
        """Stop looking."""
        self._over.set()
        self.join()

    def look(self) -> None:
        """One look."""
        at_work = self._at_work()
        rows = self._read("SELECT id, status, error, completed_at, payload, outcome FROM decky_lifecycle")
        still = at_work & self._at_work()
        may_run = {_wish(row[4]) for row in rows if row[1] == "running" or row[5] == "lost"}
        for wish, pid, _ in still:
            if wish not in may_run:
                said = [row[:3] for row in rows if _wish(row[4]) == wish]
                self._find(f"process {pid} is at work for {wish}, whose rows say {said}")
        for row in rows:
            before = self._seen.get(row[0], row)
            if _RANK[row[1]] < _RANK[before[1]] or (_RANK[before[1]] == 2 and row != before):
                self._find(f"a row went from {before[:4]} to {row[:4]}")
            self._seen[row[0]] = row
        self.looks += 1

    def _find(self, wrong: str) -> None:
        if wrong not in self.found:
            self.found.append(wrong)

    def _at_work(self) -> set[tuple[str, int, str]]:
        noted = lines(self._notes / "notes")
        ended = {(line["pid"], line["started"]) for line in noted if line["what"] == "end"}
        begun = {(line["wish"], line["pid"], line["started"]) for line in noted if line["what"] == "begin"}
        return {each for each in begun if each[1:] not in ended and alive(each[1], each[2])}


def verdict(read: Read, notes: Path) -> list[str]:
    """What is wrong with a storm that is over; nothing, if all is well."""
    history = read("SELECT id, decky, was, is_now, owner, said FROM storm ORDER BY seq")
    columns = "id, decky_name, status, outcome, attempt, retry_of, cancel_requested_at, payload, error"
    rows = read(f"SELECT {columns} FROM decky_lifecycle ORDER BY id")  # noqa: S608
    noted = lines(notes / "notes")
    acknowledged = lines(notes / "acknowledged")
    return [
        *_history(history),
        *_rows(rows),
        *(
            f"acknowledged, and gone: {line}"
            for line in acknowledged
            if line["id"] not in {r[0] for r in rows}
        ),
        *(f"two at work at once: {line}" for line in noted if line["what"] == "overlap"),
        *_order(rows, noted),
    ]


def _history(history: Iterable[tuple[Any, ...]]) -> Iterable[str]:
    """Each row's commits are a legal run, and so are those of each decky."""
    state: dict[str, str] = {}
    open_rows: dict[str, set[str]] = defaultdict(set)
    for lifecycle_id, decky, was, is_now, owner, _ in history:
        if (was, is_now) not in _LEGAL or state.get(lifecycle_id) != was:
            yield f"{lifecycle_id} went from {state.get(lifecycle_id)} ({was}) to {is_now}"
        if is_now == "running":
            if any(state[other] == "running" for other in open_rows[decky]):
                yield f"{lifecycle_id} runs beside another row of {decky}"
            if min(open_rows[decky]) != lifecycle_id:
                yield f"{lifecycle_id} of {decky} was claimed before {min(open_rows[decky])}"
            if owner is None:
                yield f"{lifecycle_id} runs without an owner"
        state[lifecycle_id] = is_now
        (open_rows[decky].add if is_now in {"pending", "running"} else open_rows[decky].discard)(lifecycle_id)


def _rows(rows: list[tuple[Any, ...]]) -> Iterable[str]:
    """Every row has ended, and has a retry exactly where it should."""
    retries: dict[str, int] = defaultdict(int)
    for row in rows:
        retries[row[5]] += 1
    for lifecycle_id, _, status, outcome, attempt, _, cancelled, _, error in rows:
        if status not in {"succeeded", "failed"}:
            yield f"{lifecycle_id} still says {status}"
        wanted = outcome in _RETRIED and attempt < _ATTEMPTS and cancelled is None
        # A failure that the runtime itself reported is final, an operation that it timed out too.
        if outcome != "timed_out" and retries[lifecycle_id] != wanted:
            has = f"{retries[lifecycle_id]} retries"
            yield f"{lifecycle_id}: {outcome} ({error}), attempt {attempt}, has {has}"
        if attempt > _ATTEMPTS:
            yield f"{lifecycle_id} is attempt {attempt}"


def _order(rows: list[tuple[Any, ...]], noted: list[dict[str, Any]]) -> Iterable[str]:
    """What began on a decky began in the order in which it was accepted; what succeeded was done."""
    place: dict[str, str] = {}
    for row in rows:
        place.setdefault(_wish(row[7]), row[0])
    latest: dict[str, str] = {}
    for line in noted:
        if line["what"] == "begin" and line["wish"] in place:
            if place[line["wish"]] < latest.get(line["decky"], ""):
                yield f"out of turn: {line}"
            latest[line["decky"]] = max(latest.get(line["decky"], ""), place[line["wish"]])
    done = {line["wish"] for line in noted if line["what"] == "end"}
    for row in rows:
        if row[2] == "succeeded" and _wish(row[7]) not in done:
            yield f"{row[0]} says succeeded, and was not done"


def _wish(payload: Any) -> str:
    found = re.search(r"wish-[\d-]+", payload if isinstance(payload, str) else json.dumps(payload))
    return found[0] if found else ""
