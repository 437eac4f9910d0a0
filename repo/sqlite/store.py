"""An open store: its two connections, the threads that own them, and how they came to be."""

from sqlalchemy import Connection

from repo.errors import StoreUnavailable
from repo.group_commit import GroupCommit
from repo.migrations.run import bring_up
from repo.sqlite.checkpoint import Checkpoints
from repo.sqlite.connection import SqliteFile
from repo.sqlite.errors import SqliteError, explained
from repo.sqlite.reads import Reads


class Store:
    """Opens the file and brings its schema up; blocks while it does.

    Attributes:
        writes: the group commit.
        reads: the reading thread.

    Raises:
        StoreUnavailable: with what to do about it.
    """

    def __init__(self, file: SqliteFile) -> None:
        file.prepare()
        checkpoints = Checkpoints(file)
        opened: list[Connection] = []
        try:
            # SQLite doesn't wait for whoever switches a new file to WAL, so that only one may do it
            checkpoints.acquire()
            try:
                engine = file.engine()
                writer = engine.connect().execution_options(begin="BEGIN IMMEDIATE")
                opened.append(writer)
                file.remember()
                bring_up(writer)
            finally:
                checkpoints.release()
            reader = engine.connect()
            opened.append(reader)
        except Exception as error:
            for connection in opened:
                connection.close()
            checkpoints.close()
            if isinstance(error, SqliteError):
                raise explained(error, file.path, file.busy_timeout) from None
            if isinstance(error, StoreUnavailable) and str(file.path) not in str(error):
                raise type(error)(f"{file.path}: {error}") from None
            raise
        self.writes = GroupCommit(file, writer, checkpoints)
        self.reads = Reads(file, reader)

    def close(self, timeout: float | None = None) -> None:
        """Answer what was asked, then let go of the file; wait for that up to `timeout` seconds."""
        self.reads.stop(timeout)
        self.writes.stop(timeout)
