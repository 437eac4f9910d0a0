"""Rows that DECNET itself wrote have random ids, which say nothing about the order of ours."""

import sqlite3
from uuid import uuid4

import pytest

from repo.base import BaseRepository
from repo.repository import ids

pytestmark = pytest.mark.anyio
DECKY = {"decky_name": "d1", "operation": "deploy"}


async def test_rows_of_decnet_with_random_ids_are_no_clock(
    repository: BaseRepository, shell: sqlite3.Connection
) -> None:
    now = "2026-05-04 10:11:12.123456"
    for _ in range(2_000):
        shell.execute(
            "INSERT INTO decky_lifecycle VALUES (?, 'd2', NULL, 'deploy', 'succeeded', NULL, NULL, ?, ?, ?,"
            " NULL, NULL, NULL, 1, NULL, NULL, 0, NULL, NULL)",
            (str(uuid4()), now, now, now),
        )
    accepted = [await repository.create_lifecycle(DECKY) for _ in range(3)]
    assert accepted == sorted(accepted)
    assert all(lifecycle_id[:8] < ids.horizon() for lifecycle_id in accepted)
