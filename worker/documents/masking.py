"""What must not be repeated: secrets of a document in what is printed about it, and passwords in URLs."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

_SECRET_NAME: Final = re.compile(r"pass|pwd|secret|token|key|cred|auth|dsn", re.IGNORECASE)
_SHORTEST: Final = 4
"""Characters of the shortest value that is masked: shorter ones stand in any text by chance."""
_MASK: Final = "***"

# Lines of untrusted services come through here, so that nothing below may backtrack over a line.
_WORD: Final = re.compile(r"\S++")
_USER_AND_COLON: Final = re.compile(r"[a-z0-9+.-]://(?=[^/@:]*+:)", re.IGNORECASE)


def masked(request: Mapping[str, Any]) -> dict[str, Any]:
    """A request that may be shown: *** for each value whose name says so, wherever it stands, and each
    repetition of one.

    Args:
        request: a row's payload.
    """
    compose = request.get("compose")
    mask = Mask(compose if isinstance(compose, dict) else {})
    return {name: _shown(value, mask) for name, value in request.items()}


def _shown(value: Any, mask: "Mask") -> Any:
    if isinstance(value, dict):
        return {name: _MASK if _is_secret(name, each) else _shown(each, mask) for name, each in value.items()}
    if isinstance(value, list):
        return [_shown(each, mask) for each in value]
    if not isinstance(value, str):
        return value
    name, equals, _ = value.partition("=")
    return f"{name}={_MASK}" if equals and _SECRET_NAME.search(name) else mask(value)


def _is_secret(name: object, value: object) -> bool:
    return value is not None and not isinstance(value, dict | list) and bool(_SECRET_NAME.search(str(name)))


class Mask:
    """Masks the secrets of one document: values of variables and build arguments whose names say so.

    Args:
        document: a Compose document as it is handed to the runtime.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        found = {line for value in _secrets(document) for line in (value, *value.splitlines())}
        # Longest first, since one secret can be a part of another.
        self._words = sorted((word for word in found if len(word) >= _SHORTEST), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text with *** for each secret."""
        for word in self._words:
            text = text.replace(word, _MASK)
        return without_credentials(text)


def without_credentials(text: str) -> str:
    """The text with *** for user and password of each URL in it that has a password."""
    return _WORD.sub(_masked, text) if "://" in text else text


def _masked(word: re.Match[str]) -> str:
    """The word, from its first `scheme://user:` on to its last @ replaced."""
    before, at, after = word[0].rpartition("@")
    url = _USER_AND_COLON.search(before) if at else None
    return f"{before[: url.end()]}{_MASK}@{after}" if url else word[0]


def _secrets(document: Mapping[str, Any]) -> Iterator[str]:
    services = document.get("services")  # of a row that anybody wrote
    for service in services.values() if isinstance(services, dict) else ():
        if not isinstance(service, dict):
            continue
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
