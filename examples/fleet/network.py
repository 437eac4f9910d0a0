"""A network namespace as another machine: joined to this one by a cable that may be cut.

The cable is cut by dropping packets. A link that is taken down says so to both ends, which no real cut does.
Needs root, iproute2 and iptables.
"""

import os
import subprocess
from itertools import count
from typing import Self

BOTH = ("INPUT", "OUTPUT")

_numbers = count(1)


class Network:
    """A switch that this machine is at; use as a context manager.

    Attributes:
        address: of this machine, as every host sees it.
    """

    def __init__(self) -> None:
        number = next(_numbers)
        self.mark = f"{os.getpid() % 100_000}-{number}"
        self.switch = f"dn{self.mark}"
        self._subnet = f"10.{200 + os.getpid() % 50}.{number}"
        self._plugs = count(2)
        self.address = f"{self._subnet}.1"

    def __enter__(self) -> Self:
        run_ip("link", "add", self.switch, "type", "bridge")
        run_ip("addr", "add", f"{self.address}/24", "dev", self.switch)
        for device in (self.switch, "lo"):
            run_ip("link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        run_ip("link", "del", self.switch)

    def plug(self) -> tuple[str, str]:
        """A free address, and a name for the cable to it."""
        plug = next(self._plugs)
        return f"{self._subnet}.{plug}", f"{self.switch}-{plug}"


class Namespace:
    """One other machine; use as a context manager.

    Args:
        network: which it is plugged into.
        name: of the machine; the namespace is called for it.

    Attributes:
        address: its own.
    """

    def __init__(self, network: Network, name: str) -> None:
        self._network = network
        self.name = f"decnet-{network.mark}-{name}"
        self.address, self._cable = network.plug()

    def __enter__(self) -> Self:
        run_ip("netns", "add", self.name)
        run_ip("link", "add", self._cable, "type", "veth", "peer", "name", "eth0", "netns", self.name)
        run_ip("link", "set", self._cable, "master", self._network.switch, "up")
        run_ip("-n", self.name, "addr", "add", f"{self.address}/24", "dev", "eth0")
        for device in ("eth0", "lo"):
            run_ip("-n", self.name, "link", "set", device, "up")
        return self

    def __exit__(self, *_: object) -> None:
        run_ip("netns", "del", self.name)  # the cable goes with it

    def command(self, *command: str) -> list[str]:
        """The command that runs this one there."""
        return ["ip", "netns", "exec", self.name, *command]

    def cut(self, *chains: str) -> None:
        """Drop every packet that goes out (`OUTPUT`) or comes in (`INPUT`); both unless said."""
        for chain in chains or BOTH:
            self._rule(chain, "-j", "DROP")

    def lose(self, share: float) -> None:
        """Drop this share of the packets, each way, by chance."""
        for chain in BOTH:
            chance = ("-m", "statistic", "--mode", "random", "--probability", str(share))
            self._rule(chain, *chance, "-j", "DROP")

    def mend(self) -> None:
        """Let all packets through again."""
        self._iptables("-F")

    def _rule(self, chain: str, *rest: str) -> None:
        self._iptables("-A", chain, "-o" if chain == "OUTPUT" else "-i", "eth0", *rest)

    def _iptables(self, *arguments: str) -> None:
        subprocess.run(self.command("iptables", "--wait", *arguments), check=True, capture_output=True)


def run_ip(*arguments: str) -> None:
    """One command of iproute2."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True)
