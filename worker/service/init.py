"""What process 1 of a container has to do: a daemon that is started as that would leave zombies behind."""

import os
import signal
from typing import Final

_PASSED_ON: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


def leave_init_behind() -> None:
    """Go on in a child where this is process 1, whose parent stays as init(1): see pid_namespaces(7).

    It passes signals on, reaps whatever ends, and ends as the child does. To be called before there are
    threads.
    """
    if os.getpid() != 1:
        return
    child = os.fork()
    if not child:
        return
    for number in _PASSED_ON:
        signal.signal(number, lambda signum, _: os.kill(child, signum))
    while True:
        pid, status = os.wait()
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)
