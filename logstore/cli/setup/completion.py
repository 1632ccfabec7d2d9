"""`logstore completion`: a shell's completion of commands, options and names of tables."""

import click
from click.shell_completion import get_completion_class

VARIABLE = "_LOGSTORE_COMPLETE"  # in which the shell asks; click's own way


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what a shell needs to complete commands, options and names of tables.

    \b
    bash    eval "$(logstore completion bash)"                in ~/.bashrc; bash 4.4 or newer
    zsh     eval "$(logstore completion zsh)"                 in ~/.zshrc, behind compinit
    fish    logstore completion fish > ~/.config/fish/completions/logstore.fish

    Tables are asked of the node, or of Kafka, that the settings or the options typed so far name; within 2 s.
    """  # noqa: D301 - click's \b keeps the lines
    completing = get_completion_class(shell)
    assert completing is not None  # click has all three
    click.echo(completing(context.find_root().command, {}, "logstore", VARIABLE).source())
