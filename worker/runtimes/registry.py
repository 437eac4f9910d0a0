"""The runtimes by name, one entry each; the setting `runtime` takes its choices from here."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from worker.runtimes.base import Runtime, RuntimeAway, RuntimeUnavailable

if TYPE_CHECKING:
    from worker.settings import WorkerSettings

RUNTIMES: Final[dict[str, str]] = {
    "compose": "worker.runtimes.compose:ComposeRuntime",
    "command": "worker.runtimes.command:CommandRuntime",
    "process": "worker.runtimes.process:ProcessRuntime",
}
"""Where each one's class is. It is imported when it is chosen, since most commands need none."""

AUTO: Final = "auto"
"""Compose; `up` takes local processes where it isn't installed, and `demo` where it can't be used."""


def make_runtime(settings: "WorkerSettings") -> Runtime:
    """The runtime that was asked for, not checked yet."""
    name = "compose" if settings.runtime == AUTO else settings.runtime
    module, _, attribute = RUNTIMES[name].partition(":")
    runtime: Runtime = getattr(import_module(module), attribute).of(settings)
    return runtime


async def runtime_for_terminal(settings: "WorkerSettings") -> str:
    """The name of the runtime of `up`: `auto` is local processes where no Compose 2 is installed.

    A document's commands run unconfined there, as this user, so whoever calls this says so in a visible line.
    """
    if settings.runtime != AUTO:
        return settings.runtime
    try:
        await make_runtime(settings).check()
    except RuntimeAway:
        return "compose"
    except RuntimeUnavailable:
        return "process"
    return "compose"
