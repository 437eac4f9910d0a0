"""What must not be repeated: secrets of a document in what is printed about it, and passwords in URLs."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_SECRET_NAME: Final = re.compile(r"pass|pwd|secret|token|key|cred|auth|dsn", re.IGNORECASE)
_SHORTEST: Final = 4
"""Characters of the shortest value that is masked: shorter ones stand in any text by chance."""
_CREDENTIALS: Final = re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@]*:\S*@", re.IGNORECASE)
_MASK: Final = "***"


class Mask:
    """Masks the secrets of one document: values of variables and build arguments whose names say so.

    Args:
        document: a Compose document as it is handed to the runtime.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        found = {line for value in _secrets(document) for line in (value, *value.splitlines())}
        # Longest first, since one secret can be a part of another.
        words = sorted((word for word in found if len(word) >= _SHORTEST), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, words))) if words else None

    def __call__(self, text: str) -> str:
        """The text with *** for each secret."""
        return without_credentials(self._pattern.sub(_MASK, text) if self._pattern else text)


def without_credentials(text: str) -> str:
    """The text with *** for user and password of each URL in it that has a password."""
    return _CREDENTIALS.sub(rf"\1{_MASK}@", text) if "://" in text else text


def _secrets(document: Mapping[str, Any]) -> Iterator[str]:
    for service in document.get("services", {}).values():
        build = service.get("build")
        for given in (service.get("environment"), build.get("args") if isinstance(build, dict) else None):
            for name, value in _pairs(given):
                if _SECRET_NAME.search(name):
                    yield value.replace("$$", "$")


def _pairs(given: object) -> Iterator[tuple[str, str]]:
    if isinstance(given, dict):
        yield from ((str(name), str(value)) for name, value in given.items() if value is not None)
    elif isinstance(given, list):
        yield from (str(entry).partition("=")[::2] for entry in given)
