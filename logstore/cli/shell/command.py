"""`logstore shell`: commands at a prompt, against one store."""

import os
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import platformdirs

from logstore.cli import options
from logstore.settings import Settings, own_folder

_PROMPT, _ENDS = "logstore> ", ("exit", "quit")
_LEFT_TO_THE_NEXT = ("bootstrap", "kafka_config", "url", "data_dir")


@click.command()
@options.with_settings("bootstrap", "url", "data_dir")
@click.pass_context
def shell(context: click.Context, _settings: Settings) -> None:
    """Take commands at a prompt, without the word `logstore` before each: `put users ada "Ada Lovelace"`.

    Tab completes commands, options and tables; the history is kept. `exit` or Ctrl-D ends it, Ctrl-C only the command
    that runs. The options hold for every command. Commands may come through a pipe, a line each: the exit status is
    then that of the first one that failed, which is the last one that runs.
    """
    for name in _LEFT_TO_THE_NEXT:
        if context.params.get(name) is not None:
            os.environ[f"LOGSTORE_{name.upper()}"] = str(context.params[name])
    if sys.stdin.isatty():
        for line in _typed(context.find_root().command):
            run_line(line)
    else:
        context.exit(next((status for line in sys.stdin if (status := run_line(line))), 0))


def run_line(line: str) -> int:
    """Run one line; returns its exit status. An empty one, or a comment, is 0."""
    from logstore.cli.main import run, say  # noqa: PLC0415 - it names this module's command

    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        return say(f"{error}: in {line.strip()!r:.80}", 2)
    if words[:1] == ["shell"]:
        return say("this is the shell", 2)
    return run(words) if words else 0


def _typed(group: click.Command) -> Iterator[str]:
    """Lines that are typed, until `exit` or the end."""
    from prompt_toolkit import PromptSession  # noqa: PLC0415 - only who types waits for its import
    from prompt_toolkit.history import FileHistory  # noqa: PLC0415 - only who types waits for its import

    from logstore.cli.shell.completer import CommandCompleter  # noqa: PLC0415 - only who types waits for its import

    session: PromptSession[str] = PromptSession(
        _PROMPT, history=FileHistory(str(_history())), completer=CommandCompleter(group), complete_while_typing=False,
    )  # fmt: skip
    while True:
        try:
            line = session.prompt()
        except KeyboardInterrupt:
            continue
        except EOFError:
            return
        if line.strip() in _ENDS:
            return
        yield line


def _history() -> Path:
    """The file of what was typed, for its user alone: values of rows are in it. Raises SetupError."""
    folder = own_folder(platformdirs.user_state_path, "set HOME")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "shell_history"
    path.touch(mode=0o600)
    return path
