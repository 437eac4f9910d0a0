"""An authority and certificates for 127.0.0.1, made by openssl as an operator would."""

import subprocess
from pathlib import Path

# Python 3.13 checks by RFC 5280 to the letter (ssl.VERIFY_X509_STRICT).
_SIGNS = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
_NAMES = """subjectAltName=IP:127.0.0.1
subjectKeyIdentifier=hash
authorityKeyIdentifier=keyid
"""
_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


class Certificates:
    """`ca` has signed `server` and `client`; `impostor` was signed by a stranger."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        (directory / "names").write_text(_NAMES)
        for authority, names in {"ca": ("server", "client"), "stranger": ("impostor",)}.items():
            files = ("-keyout", f"{authority}.key", "-out", f"{authority}.crt")
            self._openssl("req", "-x509", *_KEY, *_SIGNS, *files, "-days", "2", "-subj", f"/CN={authority}")
            for name in names:
                self._sign(name, authority)

    def __call__(self, name: str) -> str:
        """The path of a file, such as `client.key`."""
        return str(self._directory / name)

    def _sign(self, name: str, authority: str) -> None:
        files = ("-keyout", f"{name}.key", "-out", f"{name}.csr")
        self._openssl("req", *_KEY, *files, "-subj", f"/CN={name}")
        by = ("-CA", f"{authority}.crt", "-CAkey", f"{authority}.key", "-CAcreateserial")
        request = ("-req", "-in", f"{name}.csr", "-out", f"{name}.crt", "-extfile", "names")
        self._openssl("x509", *request, *by, "-days", "2")

    def _openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self._directory, check=True, capture_output=True)
