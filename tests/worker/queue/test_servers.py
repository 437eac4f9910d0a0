"""Servers that are not a plain one: with TLS, behind Sentinel, a cluster's node, too far away."""

import asyncio
import shutil
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.network.certificates import Certificates
from tests.support.network.ports import free_port
from tests.support.queue.queue_worker import SECRET, deliveries, emptied, enqueueing, working
from tests.support.queue.redis_programs import HOST, RedisProgram, SentinelSetup
from worker.queue import InvalidDSN, Queue, QueueUnavailable, QueueUnusable

pytestmark = pytest.mark.anyio

WATCHWORD = "hunter3"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def tls_server(tmp_path: Path, certificates: Certificates) -> AsyncIterator[RedisProgram]:
    server = RedisProgram(tmp_path, tls=certificates)
    await server.ready()
    yield server
    server.kill()


async def runs_a_job(dsn: str) -> None:
    async with enqueueing(dsn) as queue, working(dsn) as worked:
        await queue.enqueue(deliveries("a"))
        assert await worked.started.get() == "a"
        await emptied(queue)


async def test_tls_with_certificates_on_both_sides(
    tls_server: RedisProgram, certificates: Certificates
) -> None:
    client = f"&ssl_certfile={certificates('client.crt')}&ssl_keyfile={certificates('client.key')}"
    await runs_a_job(f"rediss://{HOST}:{tls_server.port}/0?ssl_ca_certs={certificates('ca.crt')}{client}")


@pytest.mark.parametrize(
    ("scheme", "options", "reason"),
    [
        ("rediss", "", "its certificate is not trusted: self-signed certificate in certificate chain"),
        ("rediss", "ssl_ca_certs={stranger.crt}", "its certificate is not trusted"),
        ("rediss", "ssl_ca_certs={ca.crt}", "(TLS failed:|if that goes on,) it wants a client's certificate"),
        (
            "rediss",
            "ssl_ca_certs={ca.crt}&ssl_certfile={impostor.crt}&ssl_keyfile={impostor.key}",
            "(TLS failed:|if that goes on,) it doesn't trust our certificate",
        ),
        ("redis", "", "closed|reset"),
    ],
)
async def test_tls_that_fails_says_how(
    tls_server: RedisProgram, certificates: Certificates, scheme: str, options: str, reason: str
) -> None:
    for name in ("ca.crt", "stranger.crt", "impostor.crt", "impostor.key"):
        options = options.replace(f"{{{name}}}", certificates(name))
    async with enqueueing(f"{scheme}://:{SECRET}@{HOST}:{tls_server.port}/0?{options}".rstrip("?")) as queue:
        with pytest.raises(QueueUnavailable, match=reason) as refused:
            await queue.ping()
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


async def test_only_the_named_authority_is_trusted_and_its_file_may_be_renewed(
    tls_server: RedisProgram, certificates: Certificates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certificates("ca.crt"))  # so the system trusts it
    authority = tmp_path / "authority.crt"
    shutil.copy(certificates("stranger.crt"), authority)
    client = f"ssl_certfile={certificates('client.crt')}&ssl_keyfile={certificates('client.key')}"
    dsn = f"rediss://{HOST}:{tls_server.port}/0?ssl_ca_certs={authority}&{client}"
    async with enqueueing(dsn) as queue:
        with pytest.raises(QueueUnavailable, match="its certificate is not trusted"):
            await queue.ping()
        authority.unlink()
        with pytest.raises(QueueUnavailable, match=f"{authority}: No such file or directory"):
            await queue.ping()
        shutil.copy(certificates("ca.crt"), authority)
        await queue.ping()


async def test_an_alert_that_a_reset_overtook_is_guessed(certificates: Certificates) -> None:
    async def hang_up(_: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        linger = struct.pack("ii", 1, 0)
        client.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        client.transport.abort()

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificates("server.crt"), certificates("server.key"))
    async with await asyncio.start_server(hang_up, HOST, ssl=context) as server:
        dsn = f"rediss://{HOST}:{server.sockets[0].getsockname()[1]}/0?ssl_ca_certs={certificates('ca.crt')}"
        async with enqueueing(dsn) as queue:
            with pytest.raises(QueueUnavailable, match="reset by peer: if that goes on, it wants a client's"):
                await queue.ping()


async def test_a_server_without_tls_is_asked_for_it(tmp_path: Path, certificates: Certificates) -> None:
    server = RedisProgram(tmp_path)
    await server.ready()
    async with enqueueing(f"rediss://{HOST}:{server.port}?ssl_ca_certs={certificates('ca.crt')}") as queue:
        with pytest.raises(QueueUnavailable, match="no answer to TLS in time, is that a port for TLS"):
            await queue.ping()
    server.kill()


def test_files_for_tls_are_looked_at_first(certificates: Certificates) -> None:
    for options, reason in (
        (
            "ssl_ca_certs=/nowhere/ca.crt",
            "ssl_ca_certs in the Redis DSN names /nowhere/ca.crt, which can't be read",
        ),
        (f"ssl_certfile={certificates('client.crt')}", "needs both ssl_certfile and ssl_keyfile"),
        ("ssl_cert_reqs=maybe", "ssl_cert_reqs in the Redis DSN must be required, optional or none"),
    ):
        with pytest.raises(InvalidDSN, match=reason):
            Queue(f"rediss://{HOST}?{options}")
    with pytest.raises(InvalidDSN, match="without TLS; begin it with rediss://"):
        Queue(f"redis://{HOST}?ssl_ca_certs={certificates('ca.crt')}")


async def test_a_cluster_is_refused_in_one_line(tmp_path: Path) -> None:
    # its second port would be one that Linux gives to clients (redis.conf, cluster-port)
    node = RedisProgram(tmp_path, "cluster-enabled yes", f"cluster-port {free_port()}")
    await node.ready()
    cluster = "this is a Redis cluster, which can't be used: give a single server or Sentinel"
    dsn = f"redis://{HOST}:{node.port}"
    refused = f"{dsn}/0: {cluster}"
    async with enqueueing(dsn) as queue, working(dsn) as worked:
        for call in (queue.check(), queue.enqueue(deliveries("a")), queue.states(deliveries("a"))):
            with pytest.raises(QueueUnusable) as error:
                await call
            assert str(error.value) == refused
        assert await worked.outages.get() == refused
        async with node.client() as client:
            await client.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            while (await client.cluster("INFO"))["cluster_state"] != "ok":
                await asyncio.sleep(0.05)
        for call in (queue.check(), queue.enqueue(deliveries("a"))):
            with pytest.raises(QueueUnusable) as error:
                await call
            assert str(error.value) == refused
    node.kill()


async def test_sentinel_names_the_master(tmp_path: Path) -> None:
    setup = SentinelSetup(tmp_path)
    try:
        await setup.ready()
        await runs_a_job(setup.dsn)
        setup.sentinels[0].kill()
        await runs_a_job(f"{setup.dsn}?db=0")
        async with enqueueing(setup.dsn.removesuffix(setup.NAME) + "other") as queue:
            with pytest.raises(QueueUnavailable, match=r"no sentinel that answers knows .* called other"):
                await queue.ping()
    finally:
        setup.kill()


async def test_sentinel_with_tls_and_passwords(tmp_path: Path, certificates: Certificates) -> None:
    setup = SentinelSetup(tmp_path, tls=certificates, password=SECRET, sentinel_password=WATCHWORD)
    try:
        await setup.ready()
        files = "&".join(
            f"{option}={certificates(name)}"
            for option, name in (
                ("ssl_ca_certs", "ca.crt"),
                ("ssl_certfile", "client.crt"),
                ("ssl_keyfile", "client.key"),
            )
        )
        dsn = f"rediss+sentinel://:{SECRET}@{setup.addresses}/{setup.NAME}"
        await runs_a_job(f"{dsn}?sentinel_password={WATCHWORD}&{files}")
        async with enqueueing(f"{dsn}?sentinel_password={SECRET}&{files}") as queue:
            with pytest.raises(QueueUnavailable, match="the sentinels refuse us, check") as refused:
                await queue.ping()
            assert SECRET not in str(refused.value)
    finally:
        setup.kill()
