"""`decnet-reaper completion`."""

import click

PROGRAM = "decnet-reaper"
VARIABLE = "_DECNET_REAPER_COMPLETE"


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, options, deckies and ids.

    \b
    Examples:
      bash: decnet-reaper completion bash > ~/.local/share/bash-completion/completions/decnet-reaper
      zsh:  decnet-reaper completion zsh > "${fpath[1]}/_decnet-reaper"
      fish: decnet-reaper completion fish > ~/.config/fish/completions/decnet-reaper.fish
    """
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is not supported")
    click.echo(kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source())
