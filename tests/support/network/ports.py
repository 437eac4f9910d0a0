"""TCP ports for servers that can't choose one by themselves."""

import contextlib
import secrets
import socket

# Below what Linux gives to those who only connect, so that nobody takes the port meanwhile.
_FIRST, _LAST = 20_000, 32_000


def free_port(address: str = "127.0.0.1") -> int:
    """A port that nobody listens on, and that no other call gives as long as this process lives.

    Args:
        address: "*" are all addresses.
    """
    while True:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        with contextlib.suppress(OSError), claim, socket.socket() as probe:
            claim.bind(f"\0decnet-reaper tests: port {port}")
            probe.bind(("0.0.0.0" if address == "*" else address, port))  # noqa: S104
            claim.detach()  # the name is taken until this process ends
            return port
