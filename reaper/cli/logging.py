"""The settings, for a command that logs, and where it logs."""

from reaper.cli.session import load_settings
from reaper.settings import ReaperSettings
from worker.logging import setup
from worker.service.init import leave_init_behind


def settings_of_command() -> ReaperSettings:
    """The settings, for a command that ends; what it logs goes to the system's log."""
    settings = load_settings()
    setup.configure_command(settings)
    return settings


def settings_of_daemon() -> ReaperSettings:
    """The settings, for a process that logs to stderr."""
    leave_init_behind()
    settings = load_settings()
    setup.configure(settings)
    return settings
