"""What the process runtime understands of a Compose service."""

import hashlib
import json
import re
import shlex
from collections.abc import Mapping
from typing import Any, NamedTuple

from worker.runtimes.base import OperationFailed

_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:h|m|s|ms|us))+")
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|us|h|m|s)")
_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6}


class Healthcheck(NamedTuple):
    """A service's own test of its health; times in seconds."""

    command: list[str]
    interval: float
    timeout: float
    start_period: float
    retries: int

    @classmethod
    def of(cls, service: str, spec: Mapping[str, Any]) -> "Healthcheck | None":
        """The healthcheck of a service, with the defaults of Compose; None where it has none."""
        check = spec.get("healthcheck") or {}
        if not isinstance(check, dict):
            raise OperationFailed(f"service {service}: healthcheck must be a mapping")
        test = None if check.get("disable") else check.get("test")
        if test is None or test == ["NONE"]:
            return None
        if isinstance(test, str):
            test = ["CMD-SHELL", test]
        kind, *words = _words(service, "healthcheck.test", test) or [""]
        if kind not in ("CMD", "CMD-SHELL") or not words:
            raise OperationFailed(
                f"service {service}: healthcheck.test must begin with CMD, CMD-SHELL or NONE"
            )
        retries = check.get("retries", 3)
        if not isinstance(retries, int) or retries < 1:
            raise OperationFailed(f"service {service}: healthcheck.retries must be a number from 1 on")
        return cls(
            command=["/bin/sh", "-c", words[0]] if kind == "CMD-SHELL" else words,
            interval=_seconds(service, check, "interval", 30.0),
            timeout=_seconds(service, check, "timeout", 30.0),
            start_period=_seconds(service, check, "start_period", 0.0),
            retries=retries,
        )


class Service(NamedTuple):
    """What to run for one service.

    Attributes:
        spec: a hash that changes when the service has to be replaced.
    """

    name: str
    command: list[str]
    environment: dict[str, str]
    healthcheck: Healthcheck | None
    spec: str

    @classmethod
    def of(cls, name: str, spec: Mapping[str, Any]) -> "Service":
        """Read a service of a document. Raises OperationFailed for what can't be run as a process."""
        if not spec.get("command"):
            raise OperationFailed(
                f"service {name} has no `command`: the process runtime needs one, since it has no images; "
                "add it, or use the compose runtime"
            )
        entrypoint = _words(name, "entrypoint", spec.get("entrypoint") or [])
        # As in Compose, what a service depends on is no reason to replace it.
        relevant = {key: value for key, value in spec.items() if key != "depends_on"}
        return cls(
            name=name,
            command=[*entrypoint, *_words(name, "command", spec["command"])],
            environment=_environment(name, spec.get("environment") or {}),
            healthcheck=Healthcheck.of(name, spec),
            spec=hashlib.sha256(json.dumps(relevant, sort_keys=True).encode()).hexdigest(),
        )


def _words(service: str, key: str, value: object) -> list[str]:
    """A command's arguments; `$$` stands for `$`, as in Compose."""
    try:
        words = shlex.split(value) if isinstance(value, str) else value
    except ValueError as error:
        raise OperationFailed(f"service {service}: {key} can't be split into words: {error}") from None
    if not isinstance(words, list) or not all(isinstance(word, str | int | float) for word in words):
        raise OperationFailed(f"service {service}: {key} must be text, or a list of texts")
    return [_text(word) for word in words]


def _environment(service: str, value: object) -> dict[str, str]:
    """Variables of a service. One without a value would come from our own environment: it is left out."""
    if isinstance(value, list):
        value = dict(str(entry).split("=", 1) for entry in value if "=" in str(entry))
    if not isinstance(value, dict):
        raise OperationFailed(f"service {service}: environment must be a mapping, or a list of NAME=VALUE")
    return {name: _text(item) for name, item in value.items() if item is not None}


def _text(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else str(value)
    return text.replace("$$", "$")


def _seconds(service: str, check: Mapping[str, Any], key: str, default: float) -> float:
    value = check.get(key)
    if value is None:
        return default
    if not _DURATION.fullmatch(str(value)):
        raise OperationFailed(f"service {service}: healthcheck.{key} must be a duration such as 10s or 1m30s")
    return sum(float(number) * _SECONDS[unit] for number, unit in _DURATION_PART.findall(str(value)))
