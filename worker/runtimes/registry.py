"""The runtimes by name, one entry each; the setting `runtime` takes its choices from here."""

from importlib import import_module
from typing import TYPE_CHECKING, Final

from worker.runtimes.base import Runtime, RuntimeUnavailable

if TYPE_CHECKING:
    from worker.settings import WorkerSettings

RUNTIMES: Final[dict[str, str]] = {
    "compose": "worker.runtimes.compose:ComposeRuntime",
    "command": "worker.runtimes.command:CommandRuntime",
    "process": "worker.runtimes.process:ProcessRuntime",
}
"""Where each one's class is. It is imported when it is chosen, since most commands need none."""


def make_runtime(name: str, settings: "WorkerSettings") -> Runtime:
    """The runtime of this name, not checked yet."""
    module, _, attribute = RUNTIMES[name].partition(":")
    runtime: Runtime = getattr(import_module(module), attribute).of(settings)
    return runtime


async def choose_runtime(settings: "WorkerSettings") -> Runtime:
    """The runtime that was asked for, checked; `auto` is Compose where it can be used, else processes.

    Raises RuntimeUnavailable.
    """
    if settings.runtime == "auto":
        try:
            runtime = make_runtime("compose", settings)
            await runtime.check()
        except RuntimeUnavailable:
            runtime = make_runtime("process", settings)
        else:
            return runtime
    else:
        runtime = make_runtime(settings.runtime, settings)
    await runtime.check()
    return runtime
