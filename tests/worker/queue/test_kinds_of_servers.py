"""Servers that are not a plain one: with TLS, behind Sentinel, a cluster's node."""

import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.redis_programs import HOST, RedisProgram

pytestmark = pytest.mark.anyio


class Certificates:
    """An authority, and certificates that it and another one have signed."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._authority("ca")
        self._authority("stranger")
        for name in ("server", "client"):
            self._sign(name, "ca")
        self._sign("impostor", "stranger")

    def __getitem__(self, name: str) -> Path:
        return self.directory / name

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.directory, check=True, capture_output=True)

    def _authority(self, name: str) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")
        self._openssl("req", "-x509", *key, "-out", f"{name}.crt", "-days", "2", "-subj", f"/CN={name}")

    def _sign(self, name: str, authority: str) -> None:
        key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{name}.key")
        self._openssl("req", *key, "-out", f"{name}.csr", "-subj", f"/CN={name}")
        (self.directory / "names").write_text(f"subjectAltName=IP:{HOST}\n")
        by = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial")
        request = ("-req", "-in", f"{name}.csr", "-out", f"{name}.crt")
        self._openssl("x509", *request, *by, "-days", "2", "-extfile", "names")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
async def tls_server(tmp_path: Path, certificates: Certificates) -> AsyncIterator[RedisProgram]:
    server = RedisProgram(
        tmp_path,
        "port 0",
        f"tls-cert-file {certificates['server.crt']}",
        f"tls-key-file {certificates['server.key']}",
        f"tls-ca-cert-file {certificates['ca.crt']}",
        "tls-auth-clients yes",
        *(f"tls-port {port}" for port in ()),
        tls=True,
    )
    yield server
    server.kill()
