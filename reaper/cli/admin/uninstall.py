"""`decnet-reaper uninstall`: removes what `install` wrote."""

from contextlib import suppress
from pathlib import Path

import click

from reaper.cli.admin import system_files as system
from reaper.cli.options import dry_run_option, json_option, prefix_option


@click.command()
@prefix_option("removed")
@dry_run_option
@json_option
def command(prefix: Path, dry_run: bool, as_json: bool) -> None:
    """Remove what `install` installed.

    Data, configuration and user stay.

    \b
    Examples:
      decnet-reaper uninstall --dry-run
      sudo decnet-reaper uninstall
    """
    system.print_done(uninstall(prefix, dry_run=dry_run), as_json=as_json)


def uninstall(prefix: Path, *, dry_run: bool) -> list[str]:
    """Stop and disable the units and remove what `install` wrote; data, configuration and user stay.

    Args:
        prefix: as it was installed.
        dry_run: say what would be done.

    Returns:
        What was done, a line each.

    Raises:
        InstallError: not root, or a step failed.
    """
    system.check_root(prefix, dry_run)
    done = []
    targets = [*system.files(), *system.SERVER_DROP_INS]
    written = [path for target in targets if (path := prefix / target).exists() and not path.is_symlink()]
    if system.booted(prefix) and any(path.parent == prefix / system.UNITS for path in written):
        done.append(
            system.run(dry_run, "systemctl", "stop", *system.UNIT_NAMES[:-1], "decnet-worker@*.service")
        )
        done.append(system.run(dry_run, "systemctl", "disable", "--quiet", *system.UNIT_NAMES))
    done += [system.remove(path, dry_run) for path in written]
    if not dry_run:
        for path in map(prefix.joinpath, system.SERVER_DROP_INS):
            with suppress(OSError):  # others may have drop-ins there too
                path.parent.rmdir()
    pages = [path for page in system.manual_pages() if (path := prefix / page).exists()]
    done += system.in_short([system.remove(path, dry_run) for path in pages], prefix)
    if written and system.booted(prefix):
        done.append(system.run(dry_run, "systemctl", "daemon-reload"))
    kept = [str(prefix / path) for path in ("etc/decnet-reaper", "var/lib/decnet-reaper")]
    return [*done, f"kept {', '.join(kept)}, credentials, the user decnet-reaper"]
