"""`decnet-reaper completion`."""

import click
from click.shell_completion import get_completion_class

PROGRAM = "decnet-reaper"
VARIABLE = "_DECNET_REAPER_COMPLETE"

# What Click 8's scripts get wrong, and instead of what.
_MENDED = {
    # zsh: at its second call an autoloaded function is none that is being loaded, and completed nothing.
    "$zsh_eval_context[-1] == loadautofunc": f"$funcstack[1] == _{PROGRAM}",
    # fish: a description ended at its first comma.
    'string split ","': 'string split --max 1 ","',
}


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell.

    It completes commands, options, files, deckies and ids. For zsh, ~/.zshrc needs fpath+=~/.zfunc before
    it calls compinit.

    \b
    Examples:
      decnet-reaper completion bash > ~/.local/share/bash-completion/completions/decnet-reaper
      decnet-reaper completion zsh > ~/.zfunc/_decnet-reaper
      decnet-reaper completion fish > ~/.config/fish/completions/decnet-reaper.fish
    """
    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"{shell} is not supported")
    script = kind(ctx.find_root().command, {}, PROGRAM, VARIABLE).source()
    for wrong, right in _MENDED.items():
        script = script.replace(wrong, right)
    click.echo(script)
