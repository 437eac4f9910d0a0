"""A network namespace as another machine: joined to this one by a cable of its own that a test may cut.

The cable is cut by dropping packets. A link that is taken down says so to both ends, which no real cut does.
"""

import os
import subprocess
from itertools import count
from typing import Self

from tests.support.needs import lacking, need

_numbers = count(1)


def need_namespaces() -> None:
    """Skip the test where no namespace can be made."""
    need("ip", "iptables")
    if os.geteuid() != 0:
        lacking("root")
    if subprocess.run(["ip", "netns"], check=False, capture_output=True).returncode:
        lacking("network namespaces")


class Namespace:
    """One other machine; use as a context manager.

    Attributes:
        here: address of this machine, as seen from there.
        there: its own address.
    """

    def __init__(self) -> None:
        need_namespaces()
        number = next(_numbers)
        self.name = f"decnet-{os.getpid()}-{number}"
        self._cable = f"dn{os.getpid() % 100_000}-{number}"
        network = f"10.{200 + os.getpid() % 50}.{number}"
        self.here, self.there = f"{network}.1", f"{network}.2"

    def __enter__(self) -> Self:
        _ip("netns", "add", self.name)
        _ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        _ip("addr", "add", f"{self.here}/24", "dev", self._cable)
        _ip("link", "set", self._cable, "up")
        _ip("-n", self.name, "addr", "add", f"{self.there}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            _ip("-n", self.name, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        _ip("netns", "del", self.name)  # the cable goes with it

    def command(self, *command: str) -> list[str]:
        """The command that runs this one there."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self, *chains: str) -> None:
        """Drop every packet that goes out (`OUTPUT`) or comes in (`INPUT`); both unless said."""
        for chain in chains or ("INPUT", "OUTPUT"):
            self._iptables("-A", chain, "-o" if chain == "OUTPUT" else "-i", "eth0", "-j", "DROP")

    def mend(self) -> None:
        """Let all packets through again."""
        self._iptables("-F")

    def _iptables(self, *arguments: str) -> None:
        subprocess.run(self.command("iptables", "--wait", *arguments), check=True, capture_output=True)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
