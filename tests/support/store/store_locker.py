"""Another process that holds the write lock of the store."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

SQLITE = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
connection.execute("ROLLBACK")
"""
POSTGRESQL = """
import psycopg, sys
with psycopg.connect(sys.argv[1]) as connection:
    connection.execute("LOCK TABLE decky_lifecycle IN EXCLUSIVE MODE")
    print("locked", flush=True)
    sys.stdin.read()
"""


@asynccontextmanager
async def locked_by_another(path: str) -> AsyncIterator[None]:
    """While it holds it."""
    code = POSTGRESQL if path.startswith("postgresql://") else SQLITE
    locker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert locker.stdout is not None
    assert await locker.stdout.readline() == b"locked\n"
    try:
        yield
    finally:
        await locker.communicate(b"")
