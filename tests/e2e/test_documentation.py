"""The documented way to run it as a service, typed as it stands there, on a machine with a real systemd."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine.systemd_machine import VENV, Machine, machine

pytestmark = [pytest.mark.systemd, pytest.mark.timeout(600)]

HOW_TO = Path(__file__).parents[2] / "docs" / "how-to"
PASSWORD = "the-new-one"  # noqa: S105 - as the page has it
# Our wheel lies there, and for want of a network those that it needs; and Docker's group without Docker.
PREPARED = (
    "cd /root/wheels; export PIP_NO_INDEX=1 PIP_FIND_LINKS=/root/wheels; groupadd --force docker;"
    " id -u alice >/dev/null 2>&1 || useradd --create-home alice"
)


@pytest.fixture(scope="module")
def host(machines: Path) -> Iterator[Machine]:
    with machine(machines) as host:
        yield host


def typed(host: Machine, page: str, *, but_last: bool = False) -> None:
    """Run the page's `sh checked` blocks in one shell, as root."""
    blocks = re.findall(r"^```sh checked\n(.*?)^```$", (HOW_TO / page).read_text(), re.MULTILINE | re.DOTALL)
    assert blocks
    lines = [
        "set -eu",
        PREPARED,
        f"export PATH={VENV}/bin:$PATH REDISCLI_AUTH={PASSWORD} PAGER=cat",
        *(blocks[:-1] if but_last else blocks),
    ]
    host.run("bash", "-c", "\n".join(lines))


def deployed(host: Machine, decky: str) -> None:
    """By root and by the service's own user alike."""
    document = host.root / "srv" / f"{decky}.json"
    document.write_text(json.dumps({"services": {decky: {"command": ["sleep", "infinity"]}}}))
    deploy = [f"{VENV}/bin/decnet-reaper", "deploy", decky, "--compose", f"/srv/{decky}.json", "--wait"]
    host.run(*(["runuser", "-u", "decnet-reaper", "--"] if decky == "decky-01" else []), *deploy)


def test_installed_upgraded_rotated_read_and_removed_as_documented(host: Machine) -> None:
    typed(host, "install.md", but_last=True)
    deployed(host, "decky-01")
    typed(host, "upgrade.md")
    deployed(host, "decky-02")
    typed(host, "rotate-redis-password.md")
    deployed(host, "decky-03")
    asked = host.run("redis-cli", "PING", check=False).stdout
    assert "NOAUTH" in asked
    typed(host, "read-the-log.md")
    rows = json.loads(host.run(f"{VENV}/bin/decnet-reaper", "list", "--json").stdout)
    assert {row["decky_name"]: row["state" if "state" in row else "status"] for row in rows} == {
        f"decky-0{n}": "succeeded" for n in (1, 2, 3)
    }
