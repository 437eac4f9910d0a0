"""`decnet-reaper web`."""

import click

from reaper.cli import exit_status
from reaper.cli.daemons.run_daemon import run_daemon


@click.command()
@click.option(
    "--listen",
    default="127.0.0.1:8090",
    show_default=True,
    metavar="WHERE",
    help="ADDRESS:PORT, or unix:PATH for a socket that the group of this process may use.",
)
@click.option(
    "--name",
    "names",
    multiple=True,
    metavar="HOST",
    help="A name under which a proxy serves it; may be repeated. Other names are refused.",
)
@click.option(
    "--actions",
    is_flag=True,
    help="Let those with a token (setting web_tokens) cancel, retry, tear down; without it, it only reads.",
)
def command(listen: str, names: tuple[str, ...], actions: bool) -> int:
    """Show it all as a live page.

    What runs, waits and has ended, with filters that stand in the address, and the story of each row. It has
    no login of its own: whoever reaches it reads every row. On 127.0.0.1 that is every user of this machine.
    Needs Starlette, uvicorn and sse-starlette: pip install 'decnet-reaper[web]'.

    \b
    Examples:
      decnet-reaper web
      decnet-reaper web --listen unix:/run/decnet-reaper-web/web.sock --name deckies.example.org
      DECNET_REAPER_WEB_TOKENS=ada:$(openssl rand -hex 24) decnet-reaper web --actions
    """
    try:
        # Here, since Starlette and uvicorn are an extra.
        from reaper.web.server import Listen, run_web
    except ImportError as error:
        reason = f"{error.name} is missing: pip install 'decnet-reaper[web]'"
        return exit_status.report(reason, exit_status.UNAVAILABLE)

    where = Listen.parse(listen)
    return run_daemon(lambda settings: run_web(settings, listen=where, names=names, act=actions))
