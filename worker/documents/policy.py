"""The policy `decnet`: a document may ask for what DECNET's own documents ask for, and for nothing else.

Whoever submits a document is root on the host otherwise: `privileged`, a mount of `/`, the engine's socket, a
build context with the host's keys. What is allowed is what DECNET's composer and its services write.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

from worker.documents.limits import InvalidDocument

CAPABILITIES: Final = frozenset({"NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE"})

# The folder that DECNET makes for what a service of a decky catches. No container can write into the one
# above it, where it could put a link to somewhere else.
_ARTIFACTS: Final = re.compile(r"/var/lib/decnet/artifacts/[\w-][\w.-]*/[\w-][\w.-]*:/[^:$]*(:r[ow])?")
_TEMPLATES: Final = re.compile(r"/[\w./-]+/decnet/templates/[\w-]+")
_NETWORK: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_SYSCTL: Final = re.compile(r"net\.[a-z0-9_.]+")


def _is_any(value: object) -> bool:
    return True


def _is_build(value: object) -> bool:
    if not isinstance(value, dict) or value.keys() - {"context", "args"}:
        return False
    context = str(value.get("context"))
    return ".." not in context.split("/") and _TEMPLATES.fullmatch(context) is not None


def _are_capabilities(value: object) -> bool:
    return isinstance(value, list) and set(map(str, value)) <= CAPABILITIES


def _are_sysctls(value: object) -> bool:
    return isinstance(value, dict) and all(_SYSCTL.fullmatch(name) for name in value)


def _are_artifacts(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(mount, str) and _ARTIFACTS.fullmatch(mount) for mount in value
    )


def _is_of_a_service(value: object) -> bool:
    return isinstance(value, str) and value.startswith("service:")


def _is_json_file(value: object) -> bool:
    return isinstance(value, dict) and value.get("driver") == "json-file"


_SERVICE: Final[dict[str, Callable[[object], bool]]] = {
    **dict.fromkeys(("image", "command", "container_name", "hostname", "restart", "networks"), _is_any),
    **dict.fromkeys(("depends_on", "environment", "labels", "ports"), _is_any),
    **dict.fromkeys(("healthcheck", "init", "stop_grace_period"), _is_any),  # ours: harmless, and of use
    "build": _is_build,
    "cap_add": _are_capabilities,
    "sysctls": _are_sysctls,
    "volumes": _are_artifacts,
    "network_mode": _is_of_a_service,
    "logging": _is_json_file,
}
_WANTED: Final = {
    "build": "a context below .../decnet/templates, and args",
    "cap_add": f"only {', '.join(sorted(CAPABILITIES))}",
    "sysctls": "only net.*",
    "volumes": "only /var/lib/decnet/artifacts/DECKY/SERVICE:PATH",
    "network_mode": "only service:NAME",
    "logging": "only the driver json-file",
}
_NETWORKS: Final = "only external networks, and not the host's"


def check_policy(document: Mapping[str, Any], policy: str) -> None:
    """Refuse what the setting `document_policy` does not allow. Raises InvalidDocument."""
    if policy == "decnet":
        check_decnet(document)


def check_decnet(document: Mapping[str, Any]) -> None:
    """Refuse what DECNET's own documents don't need. Raises InvalidDocument, which says what and where."""
    for key in document:
        if key not in ("version", "name", "services", "networks"):
            raise _refused(key, None)
    for name, service in document["services"].items():
        for key, value in service.items():
            allowed = _SERVICE.get(key)
            if allowed is None or not allowed(value):
                raise _refused(f"services.{name}.{key}", _WANTED.get(key))
    networks = document.get("networks") or {}
    if not isinstance(networks, dict):
        raise _refused("networks", _NETWORKS)
    for name, network in networks.items():
        if not _is_external(name, network):
            raise _refused(f"networks.{name}", _NETWORKS)


def _is_external(name: str, network: object) -> bool:
    if not isinstance(network, dict) or network.keys() - {"external", "name"}:
        return False
    real_name = str(network.get("name", name))
    # To Compose an external network of the name `host` is the host's own namespace.
    return network.get("external") is True and real_name != "host" and bool(_NETWORK.fullmatch(real_name))


def _refused(where: str, wanted: str | None) -> InvalidDocument:
    shown = "".join(c if c.isprintable() else "?" for c in where)[:200]
    return InvalidDocument(
        f"{shown} is refused by the document policy decnet" + (f": {wanted}" if wanted else "")
    )
