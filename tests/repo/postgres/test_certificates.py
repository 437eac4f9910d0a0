"""A server that is reached over TLS: its certificate is checked, and it may want one of the client's."""

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from repo.errors import StoreUnavailable
from repo.factory import get_repository
from repo.postgres.presence import Presence
from repo.postgres.server import Server
from tests.support.needs import lacking, need
from tests.support.network.certificates import Certificates
from tests.support.store.postgres_server import PostgresServer, find_postgres

pytestmark = pytest.mark.anyio

_FILES = {"ssl_ca_file": "ca.crt", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"}
_RULES = "local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\n"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    need("openssl")
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def server(certificates: Certificates) -> Iterator[PostgresServer]:
    """One that takes nobody over TCP without TLS, a password, and a certificate that the authority signed."""
    if find_postgres() is None:
        lacking("postgresql")
    own = Path(tempfile.mkdtemp(prefix="tls-", dir="/tmp"))
    (own / "rules").write_text(_RULES)
    for name in _FILES.values():
        shutil.copy(certificates(name), own)
    files = {name: str(own / file) for name, file in (_FILES | {"hba_file": "rules"}).items()}
    server = PostgresServer({"ssl": "on", **files})
    for path in (own, *own.iterdir()):
        server.own(path)
        path.chmod(0o700)
    with server:
        yield server
    shutil.rmtree(own)


def url_of(server: PostgresServer, database: str, **files: str) -> str:
    options = "&".join(f"{name}={path}" for name, path in files.items())
    return f"{server.tcp_url(database)}?sslmode=verify-full&{options}"


async def test_the_store_and_the_presence_of_a_host(
    server: PostgresServer, certificates: Certificates
) -> None:
    files = {"sslcert": certificates("client.crt"), "sslkey": certificates("client.key")}
    Path(files["sslkey"]).chmod(0o600)
    url = url_of(server, server.database(), sslrootcert=certificates("ca.crt"), **files)
    async with get_repository(url=url) as repository:
        await repository.create_lifecycle({"decky_name": "decky-01", "operation": "deploy"})
        presence = Presence(Server(url), "h1", "decnet-reaper worker")
        await presence.open()
        (host,) = await repository.list_hosts()
        assert host["present"]
        await presence.close()
        over_tls = server.psql("SELECT count(*) FROM pg_stat_ssl WHERE ssl AND client_dn = '/CN=client'")
        assert int(over_tls) > 0


@pytest.mark.parametrize(
    ("authority", "files"), [("stranger.crt", ("client.crt", "client.key")), ("ca.crt", ())]
)
async def test_a_certificate_that_is_not_trusted_or_not_there_is_one_line(
    server: PostgresServer, certificates: Certificates, authority: str, files: tuple[str, ...]
) -> None:
    own = dict(zip(("sslcert", "sslkey"), map(certificates, files), strict=False))
    url = url_of(server, "postgres", sslrootcert=certificates(authority), **own)
    with pytest.raises(StoreUnavailable, match="check sslmode, sslrootcert, sslcert and sslkey") as refused:
        async with asyncio.timeout(60), get_repository(url=url):
            pass
    assert "\n" not in str(refused.value)
