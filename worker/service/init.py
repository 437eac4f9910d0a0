"""What process 1 of a container has to do: a daemon that is started as that would leave zombies behind."""

import os
import signal
from typing import Final

_PASSED_ON: Final = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
_SI_KERNEL: Final = 0x80  # sigaction(2)


def leave_init_behind() -> None:
    """Go on in a child where this is process 1, whose parent stays as init(1): see pid_namespaces(7).

    It passes signals on, reaps whatever ends, and ends as the child does. A Ctrl-C isn't passed on: the
    terminal sends it to the child too. To be called before there are threads.
    """
    if os.getpid() != 1:
        return
    awaited = _PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, awaited)
    child = os.fork()
    if not child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    while True:
        _reap(child)
        got = signal.sigwaitinfo(awaited)
        if got.si_signo != signal.SIGCHLD and (got.si_signo, got.si_code) != (signal.SIGINT, _SI_KERNEL):
            os.kill(child, got.si_signo)


def _reap(child: int) -> None:
    """Reap all that has ended; end as the child does, if it has."""
    # The child is one that is left, until it has ended.
    while (ended := os.waitpid(-1, os.WNOHANG))[0]:
        if ended[0] == child:
            code = os.waitstatus_to_exitcode(ended[1])
            os._exit(code if code >= 0 else 128 - code)
