"""DECNET's own record of its fleet, and the documents that its composer makes of it.

Runs in DECNET's own environment. The record is what DECNET's dashboard, command line and scheduled mutations
read: the key `deployment` and the table `fleet_deckies` of its database, and decnet-state.json.
"""

import asyncio
import os
import time
from typing import Any, NamedTuple

from decnet.composer import generate_compose
from decnet.config import (
    _ROOT,
    DEFAULT_MUTATE_INTERVAL,
    DeckyConfig,
    DecnetConfig,
    clear_state,
    load_state,
    save_state,
)
from decnet.fleet import build_deckies_from_ini
from decnet.ini_loader import load_ini_from_string
from decnet.mutator.engine import pick_new_services
from decnet.network import detect_interface, detect_subnet, get_host_ip
from decnet.web.db.models import LOCAL_HOST_SENTINEL
from decnet.web.dependencies import repo
from fastapi import HTTPException

LIMIT = 10
"""Deckies, where DECNET's own setting says nothing."""


class Plan(NamedTuple):
    """What a deploy is to bring about.

    Attributes:
        config: the whole fleet, as it is to be.
        wanted: those of its deckies that are to be deployed.
        gone: deckies that are to be taken down.
    """

    config: DecnetConfig
    wanted: list[DeckyConfig]
    gone: list[DeckyConfig]


def document(config: DecnetConfig, decky: DeckyConfig) -> dict[str, Any]:
    """The Compose document of one decky of a fleet."""
    made: dict[str, Any] = generate_compose(config.model_copy(update={"deckies": [decky]}))
    return made


async def plan(ini_content: str, *, replace: bool) -> Plan:
    """What DECNET would deploy for an INI file.

    Args:
        ini_content: the file.
        replace: it is the whole fleet; else it is added to the one that is there.

    Raises:
        HTTPException: 409, where DECNET answers so.
    """
    there = [
        DeckyConfig(**row["decky_config"]) for row in await repo.list_fleet_deckies() if row["decky_config"]
    ]
    kept = [] if replace else there
    try:
        config = await _built(ini_content, kept)
    except (ValueError, RuntimeError) as error:
        raise HTTPException(409, str(error)) from None
    wanted = list(config.deckies)
    _check_collisions(wanted, kept)
    config.deckies = [*kept, *wanted]
    limits = await repo.get_state("config_limits")
    limit = (limits or {}).get("deployment_limit", LIMIT)
    if len(config.deckies) > limit:
        raise HTTPException(409, f"{len(config.deckies)} deckies would be more than the limit of {limit}")
    names = {decky.name for decky in config.deckies}
    return Plan(await _placed(config), wanted, [decky for decky in there if decky.name not in names])


async def _built(ini_content: str, kept: list[DeckyConfig]) -> DecnetConfig:
    """The fleet of the INI file alone; its addresses are none of the deckies that are kept."""
    ini = load_ini_from_string(ini_content)
    state = await repo.get_state("deployment")
    before = DecnetConfig(**state["config"]) if state else None
    interface = before.interface if before else ini.interface or detect_interface()
    subnet = ini.subnet or (before.subnet if before else None)
    gateway = ini.gateway or (before.gateway if before else None)
    if not subnet or not gateway:
        detected = detect_subnet(interface)
        subnet, gateway = subnet or detected[0], gateway or detected[1]
    taken = {decky.ip for decky in kept if decky.ip} or None
    own = get_host_ip(interface)
    deckies = build_deckies_from_ini(ini, subnet, gateway, own, False, reserved_ips=taken)
    if before:
        return before.model_copy(update={"deckies": deckies})
    return DecnetConfig(
        mode="unihost",
        interface=interface,
        subnet=subnet,
        gateway=gateway,
        deckies=deckies,
        log_file=os.environ.get("DECNET_INGEST_LOG_FILE"),
        ipvlan=False,
        mutate_interval=ini.mutate_interval or DEFAULT_MUTATE_INTERVAL,
    )


def _check_collisions(wanted: list[DeckyConfig], kept: list[DeckyConfig]) -> None:
    names, addresses = {decky.name for decky in kept}, {decky.ip for decky in kept}
    for decky in wanted:
        if decky.name in names:
            raise HTTPException(
                409,
                f"decky '{decky.name}' already exists; submit with replace_fleet=true to overwrite the fleet",
            )
        if decky.ip in addresses:
            raise HTTPException(409, f"IP {decky.ip} is already in use by an existing decky")


async def _placed(config: DecnetConfig) -> DecnetConfig:
    """Each decky on a host of the swarm, in turns, where there is a swarm; else on the master's."""
    hosts = [
        host["uuid"]
        for host in await repo.list_swarm_hosts()
        if host.get("status") in ("active", "enrolled") and host.get("address")
    ]
    waiting = [decky for decky in config.deckies if decky.host_uuid not in hosts]
    for number, decky in enumerate(waiting):
        decky.host_uuid = hosts[number % len(hosts)] if hosts else None
    return config.model_copy(update={"mode": "swarm" if hosts else "unihost"})


async def record(config: DecnetConfig, gone: list[DeckyConfig]) -> None:
    """Write down what the fleet is to be; DECNET's dashboard shows it at once."""
    for decky in gone:
        await repo.delete_fleet_decky(host_uuid=decky.host_uuid or LOCAL_HOST_SENTINEL, name=decky.name)
    for decky in config.deckies:
        await repo.upsert_fleet_decky(
            {
                "host_uuid": decky.host_uuid or LOCAL_HOST_SENTINEL,
                "name": decky.name,
                "services": list(decky.services),
                "decky_config": decky.model_dump(mode="json"),
                "decky_ip": decky.ip,
                "state": "running",
            }
        )
    await _set_deployment(config)


async def mutated(name: str) -> tuple[DecnetConfig, DeckyConfig]:
    """A decky with services that DECNET's mutator picked, and its fleet.

    Raises:
        HTTPException: 404, where DECNET answers so.
    """
    config, decky = await find(name)
    services = pick_new_services(decky)
    if services is None:
        raise HTTPException(404, f"No services available to mutate {name}")
    decky.services, decky.last_mutated = list(services), time.time()
    return config, decky


async def find(name: str) -> tuple[DecnetConfig, DeckyConfig]:
    """The fleet, and the decky of this name. Raises HTTPException, 404."""
    state = await repo.get_state("deployment")
    if state is None:
        raise HTTPException(404, "No active deployment")
    config = DecnetConfig(**state["config"])
    decky = next((decky for decky in config.deckies if decky.name == name), None)
    if decky is None:
        raise HTTPException(404, f"Decky {name} not found")
    return config, decky


async def forget(config: DecnetConfig, decky: DeckyConfig) -> None:
    """Take a decky out of the record; from decnet-state.json too, or DECNET's reconciler brings it back."""
    await repo.delete_fleet_decky(host_uuid=decky.host_uuid or LOCAL_HOST_SENTINEL, name=decky.name)
    config.deckies = [other for other in config.deckies if other.name != decky.name]
    if config.deckies:
        await _set_deployment(config)
    else:
        await repo.set_state("deployment", None)
    await asyncio.to_thread(_forget_in_file, decky.name)


def _forget_in_file(name: str) -> None:
    state = load_state()
    if state is None:
        return
    config, path = state
    config.deckies = [decky for decky in config.deckies if decky.name != name]
    if config.deckies:
        save_state(config, path)
    else:
        clear_state()


async def _set_deployment(config: DecnetConfig) -> None:
    state = await repo.get_state("deployment")
    path = state["compose_path"] if state else str(_ROOT / "docker-compose.yml")
    await repo.set_state("deployment", {"config": config.model_dump(), "compose_path": path})
