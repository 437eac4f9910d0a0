"""A decky's Compose document: read, checked, and reduced to the services that an operation wants.

Pure: nothing here touches a file, a process or Docker. Messages never quote a value of the document, since a
document may hold secrets; they say where to look.
"""

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from worker.documents.limits import MAX_BYTES, MAX_DEPTH, InvalidDocument, too_deep, too_large

__all__ = ["MAX_BYTES", "InvalidDocument", "base_service", "choose", "parse", "select", "services_of"]

_SERVICE_NAME = re.compile(r"[a-zA-Z0-9._][a-zA-Z0-9._-]{0,199}")
_SHARED_NETWORK = "service:"
_DECKY_LABEL = "decnet.fleet.decky"
_NUMBER = re.compile(r"\d+")


def parse(source: Mapping[str, Any] | str, decky_name: str) -> dict[str, Any]:
    """Turn YAML text or a mapping into a checked document of plain JSON values.

    Raises InvalidDocument for anything that Compose could not use for this decky.
    """
    loaded = _from_yaml(source) if isinstance(source, str) else source
    if not isinstance(loaded, Mapping):
        raise InvalidDocument("the document must be a mapping with a `services` key, as in a Compose file")
    document = _plain(loaded)
    _check_services(document)
    base_service(document, decky_name)
    return document


def _from_yaml(text: str) -> object:
    # Here, since a worker reads no YAML and need not have it in memory.
    from worker.documents.yaml_reader import load

    return load(text)


def base_service(document: Mapping[str, Any], decky_name: str) -> str:
    """The service that owns the decky's address: the one named like the decky, else the one whose network
    the others share, else the only one. Raises InvalidDocument where none of these tells, and for another
    decky's document."""
    services = document["services"]
    if decky_name in services:
        return decky_name
    shared = _shared_services(services)
    candidates = shared if len(shared) == 1 else list(services)
    if len(candidates) == 1:
        if _is_of_another(candidates[0], services, decky_name):
            raise InvalidDocument(
                f"this is the document of {candidates[0]!r}, not of {decky_name}:"
                f" name its base service {decky_name!r}"
            )
        return candidates[0]
    raise InvalidDocument(
        f"no base service for {decky_name}: name one service {decky_name!r}, "
        f"or let the others share one network (`network_mode: service:NAME`); services: {_listing(services)}"
    )


def services_of(document: Mapping[str, Any], decky_name: str) -> list[str]:
    """The decky's services, its base first.

    All of them, unless the document describes several deckies: then the base and those that share its
    network. A service labelled `decnet.fleet.decky` with another name is never this decky's.
    """
    services = document["services"]
    base = base_service(document, decky_name)
    several = bool(set(_shared_services(services)) - {base})
    others = [
        name
        for name, service in services.items()
        if name != base
        and (not several or _network_owner(service) == base)
        and _label(service, _DECKY_LABEL) in (None, decky_name)
    ]
    return [base, *others]


def choose(document: Mapping[str, Any], decky_name: str, services: Sequence[str] | None) -> list[str]:
    """Full service names for what was asked for, the base first; None means all of the decky's services.

    A service is found by its name (`decky-01-ssh`) or without the decky's name in front (`ssh`). No names
    means the base alone. Raises InvalidDocument for a name that isn't there.
    """
    known = services_of(document, decky_name)
    if services is None:
        return known
    if isinstance(services, str):
        raise InvalidDocument("services must be a list of names, not one text")
    base = known[0]
    wanted = [base]
    for name in services:
        full = next((c for c in (name, f"{decky_name}-{name}", f"{base}-{name}") if c in known), None)
        if full is None:
            raise InvalidDocument(f"{decky_name} has no service {name!r}; it has: {_listing(known)}")
        if full not in wanted:
            wanted.append(full)
    return wanted


def select(document: Mapping[str, Any], decky_name: str, services: Sequence[str]) -> dict[str, Any]:
    """The document with exactly these services (full names), and no `depends_on` on any other.

    The top-level `name` goes too: the project is named after the decky.
    """
    kept = {name: _without_missing(document["services"][name], services) for name in services}
    rest = {key: value for key, value in document.items() if key not in ("name", "services")}
    return {**rest, "services": kept}


def _plain(source: Mapping[Any, Any]) -> dict[str, Any]:
    """A copy made of JSON values only, or InvalidDocument with the path of what isn't one."""
    budget = MAX_BYTES

    def copy(value: object, path: str, depth: int) -> object:
        nonlocal budget
        budget -= 1 + len(value) if isinstance(value, str) else 1
        if budget < 0:
            raise too_large()
        if depth > MAX_DEPTH:
            raise too_deep()
        if isinstance(value, Mapping):
            return {key: copy(item, f"{path}.{key}", depth + 1) for key, item in _text_keys(value, path)}
        if isinstance(value, list | tuple):
            return [copy(item, f"{path}[{index}]", depth + 1) for index, item in enumerate(value)]
        return _leaf(value, path)

    try:
        text = json.dumps(copy(source, "", 0), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except UnicodeEncodeError:
        raise InvalidDocument("the document has text that isn't valid Unicode") from None
    if size > MAX_BYTES:
        raise too_large()
    plain: dict[str, Any] = json.loads(text)
    return plain


def _text_keys(mapping: Mapping[Any, Any], path: str) -> Iterator[tuple[str, object]]:
    for key, item in mapping.items():
        if not isinstance(key, str):
            raise InvalidDocument(
                f"{_at(path)} has a key that isn't text ({type(key).__name__}); put it in quotes"
            )
        if "\0" in key:
            raise InvalidDocument(f"{_at(path)} has a NUL character in a key")
        yield key, item


def _leaf(value: object, path: str) -> object:
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidDocument(f"{_at(path)} has a NUL character, which no service can be given")
        return value
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidDocument(f"{_at(path)} is not a finite number")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise InvalidDocument(f"{_at(path)} is a number of more than 64 bits; put it in quotes")
    if value is None or isinstance(value, int | float):
        return value
    raise InvalidDocument(
        f"{_at(path)} is of type {type(value).__name__}, which JSON doesn't have; write it as text"
    )


def _check_services(document: Mapping[str, Any]) -> None:
    services = document.get("services")
    if not isinstance(services, dict) or not services:
        raise InvalidDocument("the document has no services; it needs a mapping `services` with at least one")
    if "include" in document:
        raise InvalidDocument("`include` is not supported; write the services into the document itself")
    for name, service in services.items():
        if not _SERVICE_NAME.fullmatch(name):
            raise InvalidDocument(
                f"services: {name[:80]!r} is not a name that Compose takes "
                "(letters, digits, '.', '_', '-', not beginning with '-')"
            )
        if not isinstance(service, dict):
            raise InvalidDocument(f"services.{name} must be a mapping, such as {{image: NAME}}")
        owner = _network_owner(service)
        if owner is not None and (owner not in services or owner == name):
            raise InvalidDocument(f"services.{name}.network_mode names no other service of the document")


def _network_owner(service: Mapping[str, Any]) -> str | None:
    """The service whose network this one shares."""
    mode = service.get("network_mode")
    if isinstance(mode, str) and mode.startswith(_SHARED_NETWORK):
        return mode.removeprefix(_SHARED_NETWORK)
    return None


def _shared_services(services: Mapping[str, Any]) -> list[str]:
    owners = (_network_owner(service) for service in services.values())
    return list(dict.fromkeys(owner for owner in owners if owner is not None))


def _is_of_another(base: str, services: Mapping[str, Any], decky_name: str) -> bool:
    """Whether a document, as its base and its names tell, was written for another decky.

    The base says so by its label, by services that are named after it, as DECNET names them, or by a name
    that differs from the decky's in its number alone.
    """
    return (
        _label(services[base], _DECKY_LABEL) not in (None, decky_name)
        or any(name.startswith(f"{base}-") for name in services)
        or _NUMBER.sub("", base) == _NUMBER.sub("", decky_name)
    )


def _label(service: Mapping[str, Any], key: str) -> str | None:
    labels = service.get("labels") or {}
    if isinstance(labels, list):
        labels = dict(str(label).partition("=")[::2] for label in labels)
    value = labels.get(key) if isinstance(labels, dict) else None
    return None if value is None else str(value)


def _without_missing(service: Mapping[str, Any], kept: Sequence[str]) -> dict[str, Any]:
    depends_on = service.get("depends_on")
    if isinstance(depends_on, dict):
        depends_on = {name: condition for name, condition in depends_on.items() if name in kept}
    elif isinstance(depends_on, list):
        depends_on = [name for name in depends_on if name in kept]
    rest = {key: value for key, value in service.items() if key != "depends_on"}
    return {**rest, "depends_on": depends_on} if depends_on else rest


def _listing(names: Sequence[str] | Mapping[str, Any]) -> str:
    shown = ", ".join(list(names)[:20])
    return shown if len(names) <= 20 else f"{shown} and {len(names) - 20} more"


def _at(path: str) -> str:
    shown = "".join(c if c.isprintable() else "?" for c in path.removeprefix("."))
    return shown[:200] or "the document"
