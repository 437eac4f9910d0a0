"""The policy `decnet`: DECNET's own documents pass, and nothing that gives a submitter the host."""

from typing import Any

import pytest

from tests.support.fleet import Fleet, wait_status
from worker.documents.document import parse
from worker.documents.limits import InvalidDocument
from worker.documents.policy import check_decnet

SITE = "/opt/decnet/lib/python3.11/site-packages/decnet/templates"


def decnet() -> dict[str, Any]:
    """As DECNET's composer writes it: its keys, its order, its values."""
    return {
        "version": "3.8",
        "services": {
            "decky-01": {
                "image": "debian:bookworm-slim",
                "container_name": "decky-01",
                "hostname": "srv-mail",
                "command": ["sleep", "infinity"],
                "restart": "unless-stopped",
                "networks": {"decnet_lan": {"ipv4_address": "10.0.0.20"}},
                "sysctls": {"net.ipv4.ip_default_ttl": "64", "net.ipv4.tcp_sack": "1"},
                "cap_add": ["NET_ADMIN"],
            },
            "decky-01-ssh": {
                "build": {"context": f"{SITE}/ssh", "args": {"BASE_IMAGE": "debian:bookworm-slim"}},
                "container_name": "decky-01-ssh",
                "restart": "unless-stopped",
                "cap_add": ["NET_BIND_SERVICE"],
                "environment": {"SSH_ROOT_PASSWORD": "admin", "HOSTNAME": "srv-mail"},
                "volumes": ["/var/lib/decnet/artifacts/decky-01/ssh:/var/lib/systemd/coredump:rw"],
                "network_mode": "service:decky-01",
                "depends_on": ["decky-01"],
                "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "5"}},
                "labels": {"decnet.fleet.service": "true", "decnet.fleet.decky": "decky-01"},
            },
        },
        "networks": {"decnet_lan": {"external": True}},
    }


def test_decnets_own_document_passes() -> None:
    check_decnet(parse(decnet(), "decky-01"))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("privileged", True),
        ("volumes", ["/:/host"]),
        ("volumes", ["/var/run/docker.sock:/var/run/docker.sock"]),
        ("volumes", ["/var/lib/decnet/artifacts/decky-01/ssh/link:/host"]),
        ("volumes", ["/var/lib/decnet/artifacts/../../..:/host"]),
        ("volumes", ["/var/lib/decnet/artifacts/decky-01/..:/host"]),
        ("volumes", ["${HOME}:/host"]),
        ("volumes", ["data:/data"]),
        ("volumes", [{"type": "bind", "source": "/", "target": "/host"}]),
        ("extends", {"file": "/etc/shadow", "service": "x"}),
        ("env_file", "/etc/shadow"),
        ("secrets", ["shadow"]),
        ("configs", ["shadow"]),
        ("network_mode", "host"),
        ("network_mode", "container:other"),
        ("pid", "host"),
        ("ipc", "host"),
        ("userns_mode", "host"),
        ("cgroup", "host"),
        ("devices", ["/dev/sda:/dev/sda"]),
        ("device_cgroup_rules", ["b *:* rwm"]),
        ("cap_add", ["SYS_ADMIN"]),
        ("cap_add", ["ALL"]),
        ("cap_add", ["${CAP}"]),
        ("security_opt", ["apparmor:unconfined"]),
        ("sysctls", {"kernel.core_pattern": "|/bin/sh"}),
        ("sysctls", ["kernel.core_pattern=|/bin/sh"]),
        ("build", "/root"),
        ("build", {"context": "/root"}),
        ("build", {"context": f"{SITE}/ssh", "additional_contexts": {"host": "/"}}),
        ("build", {"context": f"{SITE}/ssh", "privileged": True}),
        ("build", {"context": f"{SITE}/../../../../decnet/templates/x"}),
        ("build", {"context": "${HOME}/decnet/templates/x"}),
        ("volumes_from", ["container:other"]),
        ("runtime", "other"),
        ("cgroup_parent", "/"),
        ("logging", {"driver": "syslog"}),
        ("provider", {"type": "/bin/sh"}),
        ("post_start", [{"command": "x", "privileged": True}]),
        ("develop", {}),
    ],
)
def test_what_would_give_the_host_away_is_refused_with_what_and_where(key: str, value: Any) -> None:
    document = decnet()
    document["services"]["decky-01-ssh"][key] = value
    if key == "network_mode":
        document["services"]["decky-01"][key] = value
    with pytest.raises(
        InvalidDocument, match=rf"^services\.decky-01(-ssh)?\.{key} is refused by the document policy"
    ):
        check_decnet(document)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("volumes", {"data": {"driver_opts": {"type": "none", "o": "bind", "device": "/"}}}),
        ("secrets", {"shadow": {"file": "/etc/shadow"}}),
        ("configs", {"shadow": {"file": "/etc/shadow"}}),
        ("include", ["other.yaml"]),
        ("networks", {"host": {"external": True}}),
        ("networks", {"lan": {"external": True, "name": "host"}}),
        ("networks", {"lan": {"external": {"name": "host"}}}),
        ("networks", {"lan": {"external": True, "name": "${X}"}}),
        ("networks", {"lan": {"driver": "macvlan"}}),
        ("networks", ["lan"]),
    ],
)
def test_what_stands_beside_the_services_is_held_to_it_too(key: str, value: Any) -> None:
    with pytest.raises(InvalidDocument, match=rf"^{key}(\.\w+)? is refused by the document policy decnet"):
        check_decnet(decnet() | {key: value})


@pytest.mark.anyio
async def test_the_client_refuses_before_a_row_exists_and_the_worker_whoever_wrote_the_row(
    fleet: Fleet,
) -> None:
    document = fleet.document("decky-01")
    document["services"]["decky-01"]["privileged"] = True
    async with fleet.client() as client:
        lifecycle_id = await client.deploy("decky-01", document)
        fleet.set(document_policy="decnet")
        async with fleet.client() as careful:
            with pytest.raises(InvalidDocument, match=r"services\.decky-01\.privileged is refused"):
                await careful.deploy("decky-01", document)
        await fleet.worker()
        row = await wait_status(client, lifecycle_id, "failed")
        assert row["error"] == "services.decky-01.privileged is refused by the document policy decnet"
