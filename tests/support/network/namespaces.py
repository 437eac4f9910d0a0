"""Other machines for tests, as the example makes them: network namespaces whose cables a test may cut."""

import os
import subprocess

from examples.fleet.network import Namespace, Network
from tests.support.needs import lacking, need

__all__ = ["Namespace", "need_network"]


def need_network() -> Network:
    """A network; the test is skipped where no namespace can be made."""
    need("ip", "iptables")
    if os.geteuid() != 0:
        lacking("root")
    if subprocess.run(["ip", "netns"], check=False, capture_output=True).returncode:
        lacking("network namespaces")
    return Network()
