"""Other machines for tests, as the example makes them: network namespaces whose cables a test may cut."""

import os
import subprocess

from examples.fleet.network import Namespace, Network
from tests.support.needs import lacking, need

__all__ = ["Namespace", "make_bad", "need_network"]


def need_network() -> Network:
    """A network; the test is skipped where no namespace can be made."""
    need("ip", "iptables", "tc")
    if os.geteuid() != 0:
        lacking("root")
    if subprocess.run(["ip", "netns"], check=False, capture_output=True).returncode:
        lacking("network namespaces")
    return Network()


def make_bad(cable: Namespace, loss: float) -> None:
    """Make a line slow, and let it lose this share of the packets each way.

    Slow is 200 ms each packet, or 128 kbit/s where the kernel has no netem.
    """
    slow = ("tc", "qdisc", "add", "dev", "eth0", "root")
    for kind in (
        ("netem", "delay", "200ms", "50ms"),
        ("tbf", "rate", "128kbit", "burst", "4kb", "latency", "1s"),
    ):
        if subprocess.run(cable.command(*slow, *kind), check=False, capture_output=True).returncode == 0:
            break
    else:
        lacking("a kernel with netem or tbf")
    cable.lose(loss)
